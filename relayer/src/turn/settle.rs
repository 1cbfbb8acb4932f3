//! Batches of signed statements: packed, simulated, sent.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{primitives::Bytes, sol_types::SolCall};
use contracts::Settlement;
use ledger::{Units, book::Obligation, read::SignedStatement, rules};

use super::{Relayer, Report, View};
use crate::{Error, Result};

/// Most statements in one transaction.
const BATCH_STATEMENTS: usize = 100;
/// Most calldata bytes of one transaction; nodes refuse 128 KiB.
const BATCH_BYTES: usize = 96 * 1024;
/// Gas that a transaction is packed for.
const BATCH_GAS: u64 = 12_000_000;

impl Relayer {
    /// Batches signed statements that follow their deposit's last one and that no transaction carries.
    pub(super) async fn settle(&self, view: &View, report: &mut Report) -> Result<()> {
        let mut ready = Vec::new();
        let mut stakes = BTreeMap::new();
        for deposit in self.reader.ready_deposits().await? {
            let is_busy = |id: &i64| view.busy_statements.contains(id);
            if let Some(best) = deposit.candidates.first()
                && !deposit.candidates.iter().any(is_busy)
            {
                ready.push(self.reader.signed_statement(*best).await?);
                stakes.insert(*best, deposit.at_stake);
            }
        }
        for batch in pack(&ready) {
            let batch = self.without_skips(batch, report).await?;
            if batch.is_empty() {
                continue;
            }
            let ids = batch.iter().map(|statement| statement.id).collect();
            let value = self.value_of(&batch, &stakes).await?;
            self.send(view, &Obligation::Settle(ids), settle_input(&batch), Some(value), report)
                .await?;
        }
        Ok(())
    }

    /// Takes out of a batch what a simulation says would be skipped, and says why.
    async fn without_skips<'a>(
        &self,
        batch: Vec<&'a SignedStatement>,
        report: &mut Report,
    ) -> Result<Vec<&'a SignedStatement>> {
        let contract = Settlement::new(self.config.chain.contract, &self.provider);
        let statements = batch.iter().map(|statement| to_contract(statement)).collect();
        let outcomes = contract.settle(statements).call().await.map_err(Error::call("settle"))?;
        let mut good = Vec::new();
        for (statement, outcome) in batch.into_iter().zip(outcomes) {
            if outcome == 0 {
                good.push(statement);
            } else {
                report.waiting.push(format!(
                    "statement {} of deposit {} would be skipped: {}",
                    statement.digest,
                    statement.statement.key.id(),
                    outcome_name(outcome)
                ));
            }
        }
        Ok(good)
    }

    /// What a batch is worth, in millionths of a USD: what it moves, or frees for other deposits.
    async fn value_of(
        &self,
        batch: &[&SignedStatement],
        stakes: &BTreeMap<i64, Units>,
    ) -> Result<u128> {
        let mut value = 0_u128;
        for statement in batch {
            let units = stakes.get(&statement.id).copied().unwrap_or_default();
            let worth = self.micro_usd(statement.statement.key.token, units).await?;
            value = value.saturating_add(worth);
        }
        Ok(value)
    }
}

/// Packs statements into batches by number, bytes, and an upper bound of their gas.
fn pack(statements: &[SignedStatement]) -> Vec<Vec<&SignedStatement>> {
    let mut batches: Vec<Vec<&SignedStatement>> = Vec::new();
    let (mut bytes, mut gas) = (0, 0);
    for statement in statements {
        let size = statement.statement.rows.len()
            + statement.signature.len()
            + statement.cosignature.len()
            + 640;
        let cost = gas_bound(statement);
        let fits = batches.last().is_some_and(|batch| {
            batch.len() < BATCH_STATEMENTS && bytes + size <= BATCH_BYTES && gas + cost <= BATCH_GAS
        });
        if !fits {
            batches.push(Vec::new());
            (bytes, gas) = (0, 0);
        }
        (bytes, gas) = (bytes + size, gas + cost);
        if let Some(batch) = batches.last_mut() {
            batch.push(statement);
        }
    }
    batches
}

/// Upper bound of a statement's gas.
fn gas_bound(statement: &SignedStatement) -> u64 {
    let rows = contracts::rows::decode(&statement.statement.rows).unwrap_or_default();
    let words: BTreeSet<_> = rows.iter().map(|(provider, _)| rules::word_of(*provider)).collect();
    rules::gas_bound(rows.len(), words.len())
}

/// Calldata of `settle` for a batch.
pub(crate) fn settle_input(batch: &[&SignedStatement]) -> Bytes {
    let statements = batch.iter().map(|statement| to_contract(statement)).collect();
    Settlement::settleCall { statements }.abi_encode().into()
}

fn to_contract(signed: &SignedStatement) -> Settlement::Statement {
    Settlement::Statement {
        key: signed.statement.key.clone().into(),
        epoch: signed.statement.epoch,
        manifest: signed.statement.manifest,
        rows: signed.statement.rows.clone().into(),
        signature: signed.signature.clone().into(),
        cosignature: signed.cosignature.clone().into(),
    }
}

/// Name of `ISettlement.Outcome`.
pub const fn outcome_name(outcome: u8) -> &'static str {
    match outcome {
        0 => "settled",
        1 => "its epoch is not the deposit's next one",
        2 => "its rows are malformed",
        3 => "it names a provider that is not registered",
        4 => "the deposit does not hold that much",
        5 => "the signer's signature is wrong",
        6 => "the cosigner's signature is wrong",
        _ => "unknown reason",
    }
}
