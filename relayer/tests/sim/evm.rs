//! Bytecode over a state in memory: mined transactions, and calls that leave no trace.

use alloy::{
    consensus::{Transaction, Typed2718},
    primitives::{Address, Bytes, Log, TxKind, U256},
};
use revm::{
    Context, Database, DatabaseCommit, ExecuteEvm, MainBuilder, MainContext,
    context::{
        BlockEnv, TxEnv,
        result::{EVMError, ExecutionResult, InvalidTransaction, ResultAndState},
    },
    context_interface::block::BlobExcessGasAndPrice,
    database::{CacheDB, EmptyDB},
    database_interface::WrapDatabaseRef,
    primitives::hardfork::SpecId,
};

use crate::chain::{CHAIN_ID, Tx};

/// Accounts, code and storage. A block without transactions shares its parent's.
pub(crate) type State = CacheDB<EmptyDB>;

/// The rules that anvil runs by default.
const SPEC: SpecId = SpecId::OSAKA;
/// Gas limit of every block.
pub(crate) const BLOCK_GAS: u64 = 30_000_000;
/// Most gas of one transaction (EIP-7825).
pub(crate) const TX_GAS: u64 = 16_777_216;

/// What execution depends on besides the state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings {
    pub(crate) number: u64,
    pub(crate) time: u64,
    pub(crate) base_fee: u64,
}

impl Surroundings {
    fn block(self) -> BlockEnv {
        BlockEnv {
            number: U256::from(self.number),
            timestamp: U256::from(self.time),
            gas_limit: BLOCK_GAS,
            basefee: self.base_fee,
            prevrandao: Some(Default::default()),
            blob_excess_gas_and_price: Some(BlobExcessGasAndPrice {
                excess_blob_gas: 0,
                blob_gasprice: 1,
            }),
            ..Default::default()
        }
    }
}

/// What a call came to.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) succeeded: bool,
    /// Whether it ran out of gas or into an invalid instruction, instead of reverting.
    pub(crate) halted: bool,
    pub(crate) gas_used: u64,
    pub(crate) gas_spent: u64,
    pub(crate) output: Bytes,
    pub(crate) logs: Vec<Log>,
    pub(crate) created: Option<Address>,
}

impl From<ExecutionResult> for Ended {
    fn from(result: ExecutionResult) -> Self {
        let (gas_used, gas_spent) = (result.tx_gas_used(), result.gas().total_gas_spent());
        let succeeded = result.is_success();
        let halted = matches!(result, ExecutionResult::Halt { .. });
        let (output, logs, created) = match result {
            ExecutionResult::Success { output, logs, .. } => {
                let created = output.address().copied();
                (output.into_data(), logs, created)
            }
            ExecutionResult::Revert { output, .. } => (output, Vec::new(), None),
            ExecutionResult::Halt { .. } => (Bytes::new(), Vec::new(), None),
        };
        Self { succeeded, halted, gas_used, gas_spent, output, logs, created }
    }
}

/// Runs a signed transaction and keeps what it did. `None` if no block may hold it in this state.
pub(crate) fn mine(state: &mut State, tx: &Tx, around: Surroundings) -> Option<Ended> {
    let env = TxEnv {
        tx_type: tx.ty(),
        caller: tx.signer(),
        gas_limit: tx.gas_limit(),
        gas_price: tx.max_fee_per_gas(),
        gas_priority_fee: tx.max_priority_fee_per_gas(),
        kind: tx.kind(),
        value: tx.value(),
        data: tx.input().clone(),
        nonce: tx.nonce(),
        chain_id: tx.chain_id(),
        ..Default::default()
    };
    let ran = run(&mut *state, env, around, true).ok()?;
    state.commit(ran.state);
    Some(ran.result.into())
}

/// Runs a call on top of a state and forgets what it did.
pub(crate) fn call(
    state: &State,
    from: Address,
    (to, data, value): (TxKind, Bytes, U256),
    gas_limit: u64,
    around: Surroundings,
) -> Result<Ended, String> {
    let env = TxEnv {
        caller: from,
        gas_limit,
        kind: to,
        data,
        value,
        chain_id: Some(CHAIN_ID),
        ..Default::default()
    };
    // Calls pay nothing, whatever gas costs.
    let around = Surroundings { base_fee: 0, ..around };
    run(WrapDatabaseRef(state), env, around, false)
        .map(|ran| ran.result.into())
        .map_err(|error| error.to_string())
}

fn run<DB: Database>(
    db: DB,
    tx: TxEnv,
    around: Surroundings,
    checks_nonce: bool,
) -> Result<ResultAndState, EVMError<DB::Error, InvalidTransaction>> {
    let context = Context::mainnet().with_db(db).with_block(around.block());
    let context = context.modify_cfg_chained(|cfg| {
        cfg.set_spec_and_mainnet_gas_params(SPEC);
        cfg.chain_id = CHAIN_ID;
        cfg.disable_nonce_check = !checks_nonce;
        // Wallets that are contracts are asked for as callers.
        cfg.disable_eip3607 = true;
    });
    context.build_mainnet().transact(tx)
}
