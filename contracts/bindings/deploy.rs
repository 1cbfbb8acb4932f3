//! The one way to put the contracts on a chain, used by tests, by the demo and by `quittance deploy`.
//!
//! Deployment goes through the deterministic deployment proxy (CREATE2), so that the address follows from salt and
//! bytecode alone: the same on every chain, known before anything is sent, and the same again if it is tried twice.

use alloy::{
    network::TransactionBuilder,
    primitives::{Address, B256, Bytes, address, keccak256},
    providers::Provider,
    rpc::types::TransactionRequest,
    sol_types::SolConstructor,
    transports::{RpcError, TransportErrorKind},
};

use crate::abi::{DepositHelper, Settlement};

/// The deterministic deployment proxy: calldata is `salt ‖ init code`. Present on most chains and on anvil.
/// Source: <https://github.com/Arachnid/deterministic-deployment-proxy>.
pub const CREATE2_PROXY: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");

/// The Permit2 contract, the same on every chain that has it.
/// Source: <https://github.com/Uniswap/permit2>.
pub const PERMIT2: Address = address!("000000000022D473030F116dDEE9F6B43aC78BA3");

/// Seconds between a thaw and its withdrawal in production: seven days.
pub const THAW_PERIOD: u32 = 7 * 24 * 60 * 60;

/// What an explorer needs to verify a contract, besides its constructor's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationInput {
    /// File and name, as the compiler knows the contract.
    pub contract: &'static str,
    /// The compiler's standard JSON input.
    pub standard_json: &'static str,
}

/// Version of the Solidity compiler, as explorers ask for it.
pub const COMPILER: &str = env!("QUITTANCE_SOLC");

/// Verification input of `Settlement`.
pub const SETTLEMENT_INPUT: VerificationInput = VerificationInput {
    contract: "src/Settlement.sol:Settlement",
    standard_json: include_str!(concat!(env!("OUT_DIR"), "/Settlement.input.json")),
};

/// Verification input of `DepositHelper`.
pub const DEPOSIT_HELPER_INPUT: VerificationInput = VerificationInput {
    contract: "src/periphery/DepositHelper.sol:DepositHelper",
    standard_json: include_str!(concat!(env!("OUT_DIR"), "/DepositHelper.input.json")),
};

/// Where the contract is and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// Address of the contract.
    pub address: Address,
    /// A block at or before the one that brought the contract; indexing starts here.
    pub start_block: u64,
    /// Whether this call deployed it; false if it was there already.
    pub is_new: bool,
}

/// Why a deployment failed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The node did not answer as it should.
    #[error("the node refused a request of the deployment")]
    Rpc(#[from] RpcError<TransportErrorKind>),
    /// The transaction was not mined in time, or not at all.
    #[error("the deployment transaction was not mined")]
    Pending(#[from] alloy::providers::PendingTransactionError),
    /// The chain lacks the deployment proxy.
    #[error("chain has no deterministic deployment proxy at {CREATE2_PROXY}")]
    NoProxy,
    /// The deposit helper serves one Settlement contract, which must be there before it.
    #[error("no Settlement contract at {0}; deploy it before its deposit helper")]
    NoSettlement(Address),
    /// The transaction was mined and the contract is still not there.
    #[error("no code at {0} after the deployment transaction; was it given too little gas?")]
    NoCode(Address),
}

/// ABI-encoded arguments of the contract's constructor; the thaw period is in seconds.
pub fn constructor_arguments(thaw_period: u32) -> Bytes {
    Settlement::constructorCall { thawPeriod: thaw_period }.abi_encode().into()
}

/// Init code of the contract for a thaw period in seconds.
pub fn init_code(thaw_period: u32) -> Bytes {
    [Settlement::BYTECODE.as_ref(), &constructor_arguments(thaw_period)].concat().into()
}

/// Where a deployment with this thaw period and salt lands, on any chain.
pub fn address_of(thaw_period: u32, salt: B256) -> Address {
    landing(&init_code(thaw_period), salt)
}

/// ABI-encoded arguments of the deposit helper's constructor.
pub fn helper_constructor_arguments(settlement: Address) -> Bytes {
    DepositHelper::constructorCall { settlement, permit2: PERMIT2 }.abi_encode().into()
}

/// Where the deposit helper of the contract at `settlement` lands with this salt, on any chain.
pub fn helper_address_of(settlement: Address, salt: B256) -> Address {
    landing(&helper_init_code(settlement), salt)
}

fn helper_init_code(settlement: Address) -> Bytes {
    [DepositHelper::BYTECODE.as_ref(), &helper_constructor_arguments(settlement)].concat().into()
}

/// Deploys the contract from the provider's default account, or finds that it is there already.
///
/// `thaw_period` is in seconds.
pub async fn deploy(
    provider: &impl Provider,
    thaw_period: u32,
    salt: B256,
) -> Result<Deployment, DeployError> {
    create(provider, &init_code(thaw_period), salt).await
}

/// Deploys the deposit helper of the contract at `settlement`, or finds that it is there already.
///
/// Chains without [`PERMIT2`] get a helper whose other two routes work.
pub async fn deploy_helper(
    provider: &impl Provider,
    settlement: Address,
    salt: B256,
) -> Result<Deployment, DeployError> {
    if provider.get_code_at(settlement).await?.is_empty() {
        return Err(DeployError::NoSettlement(settlement));
    }
    create(provider, &helper_init_code(settlement), salt).await
}

/// Where the proxy puts a contract (EIP-1014).
fn landing(init_code: &Bytes, salt: B256) -> Address {
    CREATE2_PROXY.create2(salt, keccak256(init_code))
}

async fn create(
    provider: &impl Provider,
    init_code: &Bytes,
    salt: B256,
) -> Result<Deployment, DeployError> {
    let address = landing(init_code, salt);
    let start_block = provider.get_block_number().await?;
    if !provider.get_code_at(address).await?.is_empty() {
        return Ok(Deployment { address, start_block: 0, is_new: false });
    }
    if provider.get_code_at(CREATE2_PROXY).await?.is_empty() {
        return Err(DeployError::NoProxy);
    }
    let input = [salt.as_slice(), init_code].concat();
    let request = TransactionRequest::default().with_to(CREATE2_PROXY).with_input(input);
    provider.send_transaction(request).await?.watch().await?;
    if provider.get_code_at(address).await?.is_empty() {
        return Err(DeployError::NoCode(address));
    }
    Ok(Deployment { address, start_block, is_new: true })
}
