//! Balances and credits against the contract's own state, as of final blocks.

use std::collections::BTreeSet;

use alloy::{eips::BlockId, providers::DynProvider};
use contracts::Settlement;
use ledger::{
    chain::ChainWriter,
    completeness::{Account, Holding},
    rules::DepositState,
};

use crate::{
    Endpoints, Error, Result,
    endpoint::{Endpoint, Header},
};

/// Most accounts touched by facts that are compared at a final block; the rest are at those after it.
const CHANGED: u64 = 100;
/// Accounts compared besides, in rotation, so that all of them are in time.
const SAMPLED: u64 = 4;

/// Compares, pinned to the hash of a final block. A difference counts if as many operators show it as must agree on a
/// block; one that another endpoint does not show is a lie.
pub(crate) async fn compare(
    writer: &ChainWriter,
    endpoints: &Endpoints,
    agreeing: &[Endpoint],
    header: &Header,
) -> Result<()> {
    let comparison = writer.comparison(header.block.number, CHANGED, SAMPLED).await?;
    for (account, ours) in &comparison.holdings {
        let mut differing: Vec<(&Endpoint, String)> = Vec::new();
        let mut confirmed = false;
        for endpoint in agreeing {
            // An endpoint that does not answer says nothing, neither way.
            let Some(theirs) = held(endpoint, header, account).await else { continue };
            if theirs == shown(ours) {
                confirmed = true;
                break;
            }
            differing.push((endpoint, theirs));
        }
        if !confirmed {
            let Some((_, theirs)) = differing.first() else { return Ok(()) };
            let same = differing.iter().filter(|(_, said)| said == theirs);
            let operators: BTreeSet<_> = same.map(|(endpoint, _)| endpoint.operator()).collect();
            if operators.len() < endpoints.needed() {
                // Too few tell; the next final block tries again.
                return Ok(());
            }
            let difference = Error::StateDiffers {
                block: header.block.number,
                account: name(account),
                ours: shown(ours),
                theirs: theirs.clone(),
            };
            writer.halt(account, &difference.to_string(), header.block.time).await?;
            return Err(difference);
        }
        if endpoints.operators() > 1 {
            for (endpoint, theirs) in &differing {
                endpoint.lied(format!(
                    "it said that {} is {theirs} at block {}; another endpoint and the logs say {}",
                    name(account),
                    header.block.number,
                    shown(ours)
                ));
            }
        }
    }
    Ok(writer.compared(&comparison, header.block.time).await?)
}

/// What the contract says that an account holds, if the endpoint says anything.
async fn held(endpoint: &Endpoint, header: &Header, account: &Account) -> Option<String> {
    let provider: &DynProvider = endpoint.provider();
    let contract = Settlement::new(endpoint.contract(), provider);
    let at = BlockId::hash(header.block.hash);
    match account {
        Account::Deposit(id) => {
            let state = contract.depositOf(*id).block(at).call().await.ok()?;
            Some(deposit(
                (state.balance, state.thawing, state.spent),
                (state.epoch, state.thawEnds.into()),
            ))
        }
        Account::Credit(token, provider) => {
            let units = contract.creditOf(*token, *provider).block(at).call().await.ok()?;
            Some(credit(units))
        }
    }
}

fn shown(holding: &Holding) -> String {
    match holding {
        Holding::Deposit(DepositState { balance, thawing, spent, epoch, thaw_ends, .. }) => {
            deposit((balance.get(), thawing.get(), spent.get()), (*epoch, *thaw_ends))
        }
        Holding::Credit(units) => credit(units.get()),
    }
}

fn deposit((balance, thawing, spent): (u64, u64, u64), (epoch, ends): (u32, u64)) -> String {
    format!("balance {balance}, thawing {thawing}, spent {spent}, epoch {epoch}, thaw ends {ends}")
}

fn credit(units: u64) -> String {
    format!("{units} units")
}

fn name(account: &Account) -> String {
    match account {
        Account::Deposit(id) => format!("deposit {id}"),
        Account::Credit(token, provider) => format!("the credit of provider {provider} in {token}"),
    }
}
