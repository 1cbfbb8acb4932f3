//! Balances and credits against the contract's own state, as of final blocks.

use std::{collections::BTreeSet, mem, time::Duration};

use alloy::{eips::BlockId, primitives::keccak256, providers::DynProvider};
use contracts::Settlement;
use ledger::{
    chain::ChainWriter,
    completeness::{Account, Holding},
    point,
    rules::DepositState,
};

use crate::{
    Endpoints, Error, Result,
    endpoint::{Endpoint, Header},
    endpoints::wire::{PATIENCE, all},
};

/// Most accounts touched by facts that are compared in a turn; the rest are in those after it.
const CHANGED: u64 = 100;
/// Accounts compared besides, in rotation, so that all of them are in time.
const SAMPLED: u64 = 4;

/// How often in a row an endpoint may say nothing of an account before it is not waited for at every other one.
const SILENCES: u32 = 2;

/// Who is asked, and how patience with them stands.
struct Asked<'a> {
    endpoint: &'a Endpoint,
    silences: u32,
    /// In vain, in all.
    waited: Duration,
}

/// Compares, pinned to the hash of a final block. What an account holds is what as many operators show as must agree on a
/// block; all are asked, and once more at the end of what too few answered to. One that shows something else, and again when
/// asked again, lies. Returns whether enough showed the same of every account. Of one in `told` they have as of this block.
pub(crate) async fn compare(
    writer: &ChainWriter,
    endpoints: &Endpoints,
    agreeing: &[Endpoint],
    header: &Header,
    told: &mut BTreeSet<Account>,
) -> Result<bool> {
    let comparison = writer.comparison(header.block.number, CHANGED, SAMPLED).await?;
    let patient = |endpoint| Asked { endpoint, silences: 0, waited: Duration::ZERO };
    let mut asked: Vec<_> = agreeing.iter().map(patient).collect();
    let mut is_told = true;
    let holdings = comparison.holdings.iter();
    let mut left: Vec<_> = holdings.filter(|(account, _)| !told.contains(account)).collect();
    for is_again in [false, true] {
        for holding in mem::take(&mut left) {
            let said = said(&mut asked, header, &holding.0).await;
            if endpoints.are_enough(said.iter().map(|(endpoint, _)| *endpoint)) {
                if judge(writer, endpoints, header, holding, &said).await? {
                    told.insert(holding.0);
                } else {
                    is_told = false;
                }
            } else if is_again || !endpoints.are_enough(asked.iter().map(|asked| asked.endpoint)) {
                return Ok(false);
            } else {
                left.push(holding);
            }
        }
    }
    if is_told {
        writer.compared(&comparison, header.block.time).await?;
    }
    Ok(is_told)
}

/// What those say who are asked and answer. One that does not says nothing, neither way.
async fn said<'a>(
    asked: &mut Vec<Asked<'a>>,
    header: &Header,
    account: &Account,
) -> Vec<(&'a Endpoint, String)> {
    let ask = async |endpoint| {
        let began = point::now();
        let answer = held(endpoint, header, account).await;
        (answer, point::now().duration_since(began))
    };
    let answers = all(asked.iter().map(|asked| ask(asked.endpoint))).await;
    let mut said = Vec::new();
    for (asked, (answer, took)) in asked.iter_mut().zip(answers) {
        match answer {
            Some(answer) => {
                asked.silences = 0;
                said.push((asked.endpoint, answer));
            }
            None => {
                asked.silences += 1;
                asked.waited += took;
            }
        }
    }
    asked.retain(|asked| asked.silences < SILENCES && asked.waited < PATIENCE);
    said
}

/// Compares what an account holds with what is said of it. Returns whether enough showed the same; fails if that is not ours.
async fn judge(
    writer: &ChainWriter,
    endpoints: &Endpoints,
    header: &Header,
    (account, ours): &(Account, Holding),
    said: &[(&Endpoint, String)],
) -> Result<bool> {
    let ours = shown(ours);
    let Some(agreed) = agreed(endpoints, said) else {
        tracing::warn!(account = name(account), "too few operators show the same");
        return Ok(false);
    };
    if agreed != ours {
        let (block, theirs) = (header.block.number, agreed.into());
        let difference = Error::StateDiffers { block, account: name(account), ours, theirs };
        writer.halt(account, &difference.to_string(), header.block.time).await?;
        return Err(difference);
    }
    for (endpoint, theirs) in said.iter().filter(|(_, theirs)| *theirs != ours) {
        doubt(endpoint, header, account, (theirs, &ours)).await;
    }
    Ok(true)
}

/// What enough operators show.
fn agreed<'a>(endpoints: &Endpoints, said: &'a [(&Endpoint, String)]) -> Option<&'a str> {
    let votes = said.iter().map(|(endpoint, said)| (endpoint.operator(), keccak256(said)));
    let winner = endpoints.agreed(votes)?;
    let mut shown = said.iter().map(|(_, said)| said.as_str());
    shown.find(|said| keccak256(said) == winner)
}

/// Marks an endpoint that shows something else than the others do, if it does so again: before, it may have been behind a
/// cache.
async fn doubt(
    endpoint: &Endpoint,
    header: &Header,
    account: &Account,
    (theirs, ours): (&str, &str),
) {
    let (account_name, block) = (name(account), header.block.number);
    let problem = format!("it said that {account_name} is {theirs} at block {block}");
    match held(endpoint, header, account).await {
        Some(again) if again != ours => {
            endpoint.lied(format!("{problem}; the other operators and the logs say {ours}"));
        }
        _ => {
            tracing::warn!(operator = endpoint.operator(), "{problem}, and not when asked again");
        }
    }
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
