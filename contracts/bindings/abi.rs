//! Bindings of the compiled contracts.
#![allow(
    missing_docs,
    reason = "generated from the ABI; the Solidity interfaces carry the documentation"
)]
#![allow(clippy::too_many_arguments, reason = "generated from the ABI")]

use alloy::sol;

sol!(
    #[sol(rpc, all_derives)]
    Settlement,
    concat!(env!("OUT_DIR"), "/Settlement.json")
);

sol!(
    #[sol(rpc, all_derives)]
    DepositHelper,
    concat!(env!("OUT_DIR"), "/DepositHelper.json")
);

sol!(
    #[sol(rpc)]
    TestToken,
    concat!(env!("OUT_DIR"), "/TestToken.json")
);
