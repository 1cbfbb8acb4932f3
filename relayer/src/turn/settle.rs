//! Batches of signed statements: packed, simulated, sent.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    slice,
};

use alloy::{primitives::Bytes, sol_types::SolCall};
use contracts::Settlement;
use ledger::{Millis, book::Obligation, read::SignedStatement, rules, statement};

use super::{Relayer, Report, View, bisection::Bisection, send::Worth};
use crate::{
    Error, Result,
    sender::{MAX_GAS, fees::Urgency, refusal},
};

/// Most statements in one transaction.
const BATCH_STATEMENTS: usize = 100;
/// Most calldata bytes of one transaction; nodes refuse 128 KiB.
const BATCH_BYTES: usize = 96 * 1024;
/// Most calldata bytes that are tried at all.
const MAX_BYTES: usize = 127 * 1024;
/// Gas that a transaction is packed for.
const BATCH_GAS: u64 = 12_000_000;
/// Gas that a transaction costs by itself.
const TRANSACTION_GAS: u64 = 21_000;

/// A statement that may be sent now.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    signed: SignedStatement,
    worth: Worth,
    /// Whether a key that the deposit names did not sign itself: then its code decides, by ERC-1271.
    is_by_code: bool,
}

impl Relayer {
    /// Lets the slots that keep a batch from its own be replaced by what the batch can spare.
    async fn note_roomless(&self, batch: &[Ready], view: &View) -> Result<()> {
        let estimate = self.sender.gas_limit(&input_of(batch), view.block()).await?;
        let gas = estimate.unwrap_or_else(|_| gas_of(batch));
        let bound = self.bound(&parts_of(batch), gas, view.later)?;
        if let Ok(mut roomless) = self.roomless.lock() {
            *roomless = Some(bound);
        }
        Ok(())
    }

    /// Batches signed statements that follow their deposit's last one and that no transaction can still settle.
    pub(super) async fn settle(&self, view: &View, report: &mut Report) -> Result<()> {
        if view.is_frozen() {
            return Ok(());
        }
        let mut ready = Vec::new();
        for deposit in self.reader.ready_deposits().await? {
            let is_busy = |id: &i64| view.busy.statements.contains(id);
            if let Some(best) = deposit.candidates.first()
                && !deposit.candidates.iter().chain(&deposit.others).any(is_busy)
                && let Some(statement) = self.ready(*best, view, report).await?
            {
                ready.push(statement);
            }
        }
        for batch in pack(ready) {
            if !self.has_room(view, 0, report, "a settle batch") {
                self.note_roomless(&batch, view).await?;
                break;
            }
            for batch in self.settleable(batch, view, report).await? {
                self.send_batch(batch, view, report).await?;
            }
        }
        Ok(())
    }

    /// Sends a batch. If it is too dear, those of its statements go that would pay for a transaction of their own, so that
    /// dust delays nothing, apart from each other if they are not equally urgent: the tip of what presses is paid for by
    /// that alone. The rest waits.
    async fn send_batch(&self, batch: Vec<Ready>, view: &View, report: &mut Report) -> Result<()> {
        let Some(why) = self.send_together(&batch, view, report).await? else { return Ok(()) };
        let (mut dear, mut cheap) = (Vec::new(), BTreeMap::<_, Vec<Ready>>::new());
        for ready in batch {
            let alone = slice::from_ref(&ready);
            let bound = self.bound(&parts_of(alone), gas_of(alone), view.later)?;
            if self.is_too_dear(bound, view) {
                dear.push(ready);
            } else {
                cheap.entry(Reverse(bound.urgency)).or_default().push(ready);
            }
        }
        if cheap.is_empty() {
            self.wait(report, view.now, "a settle batch", &why);
            return Ok(());
        }
        for group in cheap.values() {
            self.send_group(group, view, report).await?;
        }
        if !dear.is_empty() {
            let (parts, gas) = (parts_of(&dear), gas_of(&dear));
            let why = self.too_dear(&parts, self.bound(&parts, gas, view.later)?, gas, view)?;
            self.wait(report, view.now, "a settle batch", &why);
        }
        Ok(())
    }

    /// Sends statements of which each would pay for a transaction of its own: together, or else one by one.
    async fn send_group(&self, group: &[Ready], view: &View, report: &mut Report) -> Result<()> {
        if self.send_together(group, view, report).await?.is_none() {
            return Ok(());
        }
        for alone in group.chunks(1) {
            if let Some(why) = self.send_together(alone, view, report).await? {
                self.wait(report, view.now, "a settle batch", &why);
            }
        }
        Ok(())
    }

    /// Sends statements in one transaction; returns why that is too dear if it is.
    async fn send_together(
        &self,
        batch: &[Ready],
        view: &View,
        report: &mut Report,
    ) -> Result<Option<String>> {
        let (obligation, input) = (obligation_of(batch), input_of(batch));
        self.send_if_cheap(view, &obligation, input, &parts_of(batch), report).await
    }

    /// A deposit's best candidate, if it may be sent now: one that a mined transaction carried in vain waits for a later block
    /// to be tried at.
    async fn ready(&self, id: i64, view: &View, report: &mut Report) -> Result<Option<Ready>> {
        let signed = self.reader.signed_statement(id).await?;
        if let Some(block) = self.reader.last_carried(id).await?
            && block >= view.anchors.checkpoint.number
        {
            let subject = format!("statement {}", signed.digest);
            let why = format!(
                "a transaction of block {block} carried it in vain; it is tried at a later one"
            );
            self.wait(report, view.now, &subject, &why);
            return Ok(None);
        }
        let worth = self.worth_of(&signed).await?;
        let is_by_code = is_by_code(&signed);
        Ok(Some(Ready { signed, worth, is_by_code }))
    }

    /// The batches that a simulation lets through: what would be skipped, what spoils the whole call, and what no node takes,
    /// is taken out and explained, and the rest stays together if it can.
    async fn settleable(
        &self,
        batch: Vec<Ready>,
        view: &View,
        report: &mut Report,
    ) -> Result<Vec<Vec<Ready>>> {
        let mut bisection = Bisection::new(batch);
        let mut good = Vec::new();
        while let Some(group) = bisection.next() {
            if let Some(reason) = self.kept_apart(group, view) {
                bisection.fail(format!("{reason}; it is tried again within a day"));
                continue;
            }
            match self.simulate(group, view).await? {
                Ok(outcomes) => {
                    good.push(self.without_skips(group, &outcomes, view, report));
                    bisection.pass();
                }
                Err(reason) => bisection.fail(format!(
                    "settling it alone fails ({reason}); it is tried again each turn"
                )),
            }
        }
        let is_spoilt = !bisection.poison.is_empty();
        for (ready, why) in bisection.poison {
            let subject = format!("statement {}", ready.signed.digest);
            self.wait(report, view.now, &subject, &why);
        }
        good.retain(|batch| !batch.is_empty());
        if is_spoilt && good.len() > 1 {
            let rest = good.concat();
            let is_refused = self.kept_apart(&rest, view).is_some();
            if !is_refused && self.simulate(&rest, view).await?.is_ok() {
                return Ok(vec![rest]);
            }
        }
        Ok(good)
    }

    /// Why a batch may not go as it is, if it carries too much of what no node took.
    fn kept_apart(&self, batch: &[Ready], view: &View) -> Option<String> {
        let is_pressing = batch.iter().any(|ready| ready.worth.is_pressing(view.later));
        let urgency = if is_pressing { Urgency::Pressing } else { Urgency::Normal };
        self.apart().why(&obligation_of(batch), view.now, urgency)
    }

    /// What settling a batch would come to, statement by statement, at the block that the turn decides by; or why the call
    /// would fail.
    async fn simulate(
        &self,
        batch: &[Ready],
        view: &View,
    ) -> Result<std::result::Result<Vec<u8>, String>> {
        let contract = Settlement::new(self.config.chain.contract, &self.provider);
        let statements: Vec<_> = batch.iter().map(|ready| to_contract(&ready.signed)).collect();
        let call = contract.settle(statements).from(self.sender.address()).gas(MAX_GAS);
        if call.calldata().len() > MAX_BYTES {
            return Ok(Err(format!("{} bytes of calldata are too many", call.calldata().len())));
        }
        match call.block(view.block()).call().await {
            Ok(outcomes) if outcomes.len() == batch.len() => Ok(Ok(outcomes)),
            Ok(outcomes) => {
                let (got, wanted) = (outcomes.len(), batch.len());
                Ok(Err(format!("{got} outcomes for {wanted} statements")))
            }
            Err(alloy::contract::Error::TransportError(error)) => match refusal(&error) {
                Some(reason) => Ok(Err(reason)),
                None => Err(Error::call("settle")(alloy::contract::Error::TransportError(error))),
            },
            Err(error) => Err(Error::call("settle")(error)),
        }
    }

    /// The statements that a simulation settles; says of the others why it skips them.
    fn without_skips(
        &self,
        batch: &[Ready],
        outcomes: &[u8],
        view: &View,
        report: &mut Report,
    ) -> Vec<Ready> {
        let mut good = Vec::new();
        for (ready, outcome) in batch.iter().zip(outcomes) {
            if *outcome == 0 {
                good.push(ready.clone());
                continue;
            }
            let subject = format!("statement {}", ready.signed.digest);
            let deposit = ready.signed.statement.key.id();
            let why = format!("deposit {deposit} would be skipped: {}", outcome_name(*outcome));
            self.wait(report, view.now, &subject, &why);
        }
        good
    }
}

/// What the statements of a batch are worth.
fn parts_of(batch: &[Ready]) -> Vec<Worth> {
    batch.iter().map(|ready| ready.worth.clone()).collect()
}

/// Upper bound of the gas of a transaction that settles a batch.
fn gas_of(batch: &[Ready]) -> u64 {
    let statements = batch.iter().map(|ready| gas_bound(&ready.signed));
    statements.fold(TRANSACTION_GAS, u64::saturating_add)
}

/// Packs statements into batches by number, bytes, and an upper bound of their gas. Near deadlines go first, then high
/// values, so that dust delays nothing. What only code can verify travels apart: code may change its mind.
fn pack(mut statements: Vec<Ready>) -> Vec<Vec<Ready>> {
    let key = |ready: &Ready| {
        let deadline = ready.worth.deadline.unwrap_or(Millis::MAX);
        let value = std::cmp::Reverse(ready.worth.value.unwrap_or_default());
        (deadline, value, ready.signed.id)
    };
    statements.sort_by_key(key);
    let (by_code, by_key) = statements.into_iter().partition(|ready: &Ready| ready.is_by_code);
    [by_key, by_code].into_iter().flat_map(pack_in_order).collect()
}

fn pack_in_order(statements: Vec<Ready>) -> Vec<Vec<Ready>> {
    let mut batches: Vec<Vec<Ready>> = Vec::new();
    let (mut bytes, mut gas) = (0, 0);
    for ready in statements {
        let signed = &ready.signed;
        let size =
            signed.statement.rows.len() + signed.signature.len() + signed.cosignature.len() + 640;
        let cost = gas_bound(signed);
        let fits = batches.last().is_some_and(|batch| {
            batch.len() < BATCH_STATEMENTS && bytes + size <= BATCH_BYTES && gas + cost <= BATCH_GAS
        });
        if !fits {
            batches.push(Vec::new());
            (bytes, gas) = (0, 0);
        }
        (bytes, gas) = (bytes + size, gas + cost);
        if let Some(batch) = batches.last_mut() {
            batch.push(ready);
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

/// Whether one of the signatures is not its key's own.
fn is_by_code(signed: &SignedStatement) -> bool {
    let is_own = |key, signature: &[u8]| {
        statement::recover(signed.digest, signature).is_ok_and(|signer| signer == key)
    };
    let key = &signed.statement.key;
    !is_own(key.signer, &signed.signature)
        || (!key.cosigner.is_zero() && !is_own(key.cosigner, &signed.cosignature))
}

fn obligation_of(batch: &[Ready]) -> Obligation {
    Obligation::Settle(batch.iter().map(|ready| ready.signed.id).collect())
}

fn input_of(batch: &[Ready]) -> Bytes {
    settle_input(&batch.iter().map(|ready| &ready.signed).collect::<Vec<_>>())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A statement with this many rows of providers of which no two share a word of credits.
    fn ready(id: i64, rows: u32, value: u128, is_by_code: bool) -> Ready {
        let rows: Vec<_> = (1..=rows).map(|n| (n * 4, 1)).collect();
        let rows = contracts::rows::encode(&rows).unwrap();
        let key = contracts::eip712::DepositKey {
            token: Default::default(),
            requestor: Default::default(),
            signer: Default::default(),
            cosigner: Default::default(),
            salt: Default::default(),
        };
        let (spent, manifest) = (ledger::Units::ZERO, Default::default());
        let statement = statement::Statement { key, epoch: 1, spent, manifest, rows };
        let (signature, cosignature) = (vec![0; 65], Vec::new());
        let digest = Default::default();
        let signed = SignedStatement { id, statement, digest, signature, cosignature };
        Ready { signed, worth: Worth { value: Some(value), ..Worth::default() }, is_by_code }
    }

    fn sizes(batches: &[Vec<Ready>]) -> Vec<usize> {
        batches.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_batch_ends_at_a_hundred_statements_at_its_gas_and_at_its_bytes() {
        let many = |count: i64, rows| pack((0..count).map(|n| ready(n, rows, 1, false)).collect());
        assert_eq!(sizes(&many(100, 1)), [100]);
        assert_eq!(sizes(&many(201, 1)), [100, 100, 1]);
        // Each row is a word of its own here: 23,100 gas, and 60,000 for the statement.
        let each = gas_bound(&ready(0, 100, 1, false).signed);
        assert_eq!((each, BATCH_GAS / each), (2_370_000, 5));
        assert_eq!(sizes(&many(11, 100)), [5, 5, 1]);
        assert_eq!(sizes(&many(2, 600)), [1, 1], "one that is larger than a batch goes alone");
        let long = |id| {
            let mut long = ready(id, 1, 1, true);
            long.signed.signature = vec![0; BATCH_BYTES / 2 - 640 - contracts::rows::SIZE];
            long
        };
        assert_eq!(sizes(&pack((0..4).map(long).collect())), [2, 2], "to the byte");
        let mut longer: Vec<_> = (0..4).map(long).collect();
        longer[1].signed.signature.push(0);
        assert_eq!(sizes(&pack(longer)), [1, 1, 2]);
    }

    #[test]
    fn near_deadlines_go_first_then_high_values_and_what_code_decides_goes_apart() {
        let mut near = ready(4, 1, 1, false);
        near.worth.deadline = Some(1_000);
        let statements =
            vec![ready(1, 1, 5, false), ready(2, 1, 9, true), ready(3, 1, 7, false), near];
        let ids = |batch: &Vec<Ready>| batch.iter().map(|ready| ready.signed.id).collect();
        let packed: Vec<Vec<i64>> = pack(statements).iter().map(ids).collect();
        assert_eq!(packed, [vec![4, 3, 1], vec![2]]);
    }
}
