//! The contract's bytecode, run in memory.

use alloy::primitives::{Address, B256, Bytes, Log, U256};
use contracts::{Settlement, deploy};
use revm::{
    Context, DatabaseRef, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext, MainnetEvm,
    context::{BlockEnv, ContextTr, TxEnv, result::ExecutionResult},
    database::{CacheDB, EmptyDB},
    handler::MainnetContext,
    primitives::{TxKind, hardfork::SpecId},
    state::{AccountInfo, Bytecode},
};

/// Gas of every call, the cap of one transaction on mainnet.
const GAS: u64 = 16_777_216;

/// What a call came to: returned bytes with the logs, or the bytes that it reverted with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Returned(Bytes, Vec<Log>),
    Reverted(Bytes),
}

pub(crate) struct Chain(MainnetEvm<MainnetContext<CacheDB<EmptyDB>>>);

impl Chain {
    pub(crate) fn new(chain_id: u64) -> Self {
        let context = Context::mainnet().with_db(CacheDB::new(EmptyDB::default()));
        let context = context.modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(SpecId::CANCUN);
            cfg.chain_id = chain_id;
            cfg.disable_nonce_check = true;
            // Wallets that are contracts call as well.
            cfg.disable_eip3607 = true;
            // Init code of tests may be larger than mainnet allows.
            cfg.limit_contract_initcode_size = Some(usize::MAX);
        });
        Self(context.build_mainnet())
    }

    pub(crate) fn set_time(&mut self, now: u64) {
        let block = BlockEnv { timestamp: U256::from(now), gas_limit: GAS, ..Default::default() };
        self.0.set_block(block);
    }

    pub(crate) fn deploy(&mut self, init_code: Bytes) -> Address {
        let kind = TxKind::Create;
        match self.transact(Address::ZERO, kind, init_code) {
            ExecutionResult::Success { output, .. } => *output.address().expect("an address"),
            other => panic!("deployment failed: {other:?}"),
        }
    }

    /// Puts runtime code at an address.
    pub(crate) fn put_code(&mut self, account: Address, code: Bytes) {
        let info = AccountInfo::default().with_code(Bytecode::new_raw(code));
        self.0.ctx.db_mut().insert_account_info(account, info);
    }

    pub(crate) fn call(&mut self, from: Address, to: Address, data: Bytes) -> Answer {
        match self.transact(from, TxKind::Call(to), data) {
            ExecutionResult::Success { output, logs, .. } => {
                Answer::Returned(output.into_data(), logs)
            }
            ExecutionResult::Revert { output, .. } => Answer::Reverted(output),
            halted @ ExecutionResult::Halt { .. } => panic!("the call came to a halt: {halted:?}"),
        }
    }

    pub(crate) fn storage(&mut self, account: Address, slot: U256) -> U256 {
        self.0.ctx.db_mut().storage_ref(account, slot).expect("memory answers")
    }

    pub(crate) fn set_storage(&mut self, account: Address, slot: U256, value: U256) {
        let written = self.0.ctx.db_mut().insert_account_storage(account, slot, value);
        written.expect("memory answers");
    }

    fn transact(&mut self, from: Address, kind: TxKind, data: Bytes) -> ExecutionResult {
        let chain_id = self.0.ctx.cfg.chain_id;
        let transaction = TxEnv {
            caller: from,
            gas_limit: GAS,
            kind,
            data,
            chain_id: Some(chain_id),
            ..Default::default()
        };
        self.0.transact_commit(transaction).expect("a valid transaction")
    }
}

/// The bytecode under test: that of the bindings, or of the forge artifact named by `QUITTANCE_SETTLEMENT`, by which
/// a test puts a broken contract in its place.
pub(crate) fn init_code(thaw_period: u32) -> Bytes {
    let init_code = deploy::init_code(thaw_period);
    let Some(path) = std::env::var_os("QUITTANCE_SETTLEMENT") else { return init_code };
    let artifact = std::fs::read(path).expect("the artifact that QUITTANCE_SETTLEMENT names");
    let artifact: serde_json::Value = serde_json::from_slice(&artifact).expect("JSON");
    let bytecode = artifact["bytecode"]["object"].as_str().expect("bytecode.object");
    let bytecode: Bytes = bytecode.parse().expect("linked bytecode");
    [bytecode.as_ref(), &init_code[Settlement::BYTECODE.len()..]].concat().into()
}

/// Slot of `key` in the mapping at `slot`.
pub(crate) fn mapping(key: B256, slot: u64) -> U256 {
    let slot = B256::from(U256::from(slot));
    U256::from_be_bytes(alloy::primitives::keccak256([key, slot].concat()).0)
}
