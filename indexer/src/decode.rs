//! Logs into facts, exhaustively.

use alloy::{primitives::Address, rpc::types::Log, sol_types::SolEventInterface};
use contracts::Settlement::{self, SettlementEvents};
use ledger::{
    Units,
    chain::{Event, Fact},
};

use crate::{Error, Result};

/// The fact that a log of the contract states. `EIP712DomainChanged`, which the ABI inherits, is never emitted.
pub fn fact(log: &Log, contract: Address) -> Result<Fact> {
    let log_index = log.log_index.unwrap_or_default();
    let unknown =
        || Error::UnknownEvent { block: log.block_hash.unwrap_or_default(), log_index, contract };
    let decoded = SettlementEvents::decode_log(&log.inner).map_err(|_| unknown())?;
    let event = event(decoded.data).ok_or_else(unknown)?;
    Ok(Fact { log_index, tx_hash: log.transaction_hash.unwrap_or_default(), event })
}

fn event(event: SettlementEvents) -> Option<Event> {
    Some(match event {
        SettlementEvents::TokenRegistered(Settlement::TokenRegistered {
            token, decimals, ..
        }) => Event::TokenRegistered { token, decimals },
        SettlementEvents::Deposited(Settlement::Deposited { key, from, units, .. }) => {
            Event::Funded { key: key.into(), sender: from, units: Units::new(units) }
        }
        SettlementEvents::Thawed(Settlement::Thawed { id, units, ends }) => {
            Event::Thawed { deposit: id, units: Units::new(units), ends: ends.into() }
        }
        SettlementEvents::Withdrawn(Settlement::Withdrawn { id, to, units }) => {
            Event::Withdrawn { deposit: id, recipient: to, units: Units::new(units) }
        }
        SettlementEvents::Settled(Settlement::Settled { id, epoch, spent, manifest, rows }) => {
            Event::Settled {
                deposit: id,
                epoch,
                spent: Units::new(spent),
                manifest,
                rows: rows.to_vec(),
            }
        }
        SettlementEvents::Skipped(Settlement::Skipped { id, digest, reason }) => {
            Event::Skipped { deposit: id, digest, reason }
        }
        SettlementEvents::Registered(Settlement::Registered { provider, payout }) => {
            Event::Registered { provider, payout }
        }
        SettlementEvents::PayoutSet(Settlement::PayoutSet { provider, payout, claimNonce }) => {
            Event::PayoutSet { provider, payout, claim_nonce: claimNonce }
        }
        SettlementEvents::Claimed(Settlement::Claimed {
            provider,
            token,
            to,
            units,
            claimNonce,
        }) => Event::Claimed {
            provider,
            token,
            recipient: to,
            units: Units::new(units),
            claim_nonce: claimNonce,
        },
        SettlementEvents::ClaimFailed(Settlement::ClaimFailed { provider, token, units }) => {
            Event::ClaimFailed { provider, token, units: Units::new(units) }
        }
        SettlementEvents::EIP712DomainChanged(_) => return None,
    })
}
