//! EIP-712 messages of the contract, and the domain they are signed in.
//!
//! The types are those of `ISettlement.sol` and `IRewards.sol`.

use alloy::{
    primitives::{Address, B256},
    sol,
    sol_types::{Eip712Domain, SolStruct, eip712_domain},
};

use crate::abi::{DepositHelper, Settlement};

/// Messages as EIP-712 encodes them.
#[allow(missing_docs, reason = "fields are documented in the Solidity interfaces")]
mod messages {
    super::sol! {
        #[derive(Debug, Default, PartialEq, Eq, Hash)]
        struct DepositKey {
            address requestor;
            address signer;
            address cosigner;
            address token;
            bytes32 salt;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Statement {
            DepositKey key;
            uint32 epoch;
            uint64 spent;
            bytes32 manifest;
            bytes rows;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct ClaimTo {
            uint32 provider;
            address token;
            address to;
            uint64 nonce;
            uint64 deadline;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct SetPayout {
            uint32 provider;
            address payout;
            uint64 nonce;
            uint64 deadline;
        }
    }
}

pub use messages::{ClaimTo, DepositKey, SetPayout, Statement};

/// The domain of the contract at `settlement` on chain `chain_id`.
pub fn domain(chain_id: u64, settlement: Address) -> Eip712Domain {
    eip712_domain! {
        name: "Quittance",
        version: "1",
        chain_id: chain_id,
        verifying_contract: settlement,
    }
}

impl DepositKey {
    /// Id of the deposit: the EIP-712 struct hash of its key.
    pub fn id(&self) -> B256 {
        self.eip712_hash_struct()
    }
}

impl From<DepositKey> for Settlement::DepositKey {
    fn from(key: DepositKey) -> Self {
        let DepositKey { requestor, signer, cosigner, token, salt } = key;
        Self { requestor, signer, cosigner, token, salt }
    }
}

impl From<Settlement::DepositKey> for DepositKey {
    fn from(key: Settlement::DepositKey) -> Self {
        let Settlement::DepositKey { requestor, signer, cosigner, token, salt } = key;
        Self { requestor, signer, cosigner, token, salt }
    }
}

impl From<DepositKey> for DepositHelper::DepositKey {
    fn from(key: DepositKey) -> Self {
        let DepositKey { requestor, signer, cosigner, token, salt } = key;
        Self { requestor, signer, cosigner, token, salt }
    }
}
