//! The second opinion on a whole run: what the sources said and what the chain has, put before [`relayer::opinion`], which
//! shares nothing with the ledger, and held against the judge's accounts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use alloy::{
    primitives::{Address, B256, I256},
    sol_types::SolEventInterface,
};
use contracts::Settlement::SettlementEvents;
use jiff::Timestamp;
use ledger::workload::{Price, Record, WorkResult};
use relayer::opinion::{
    self, Case, Decimal, Decision, DepositKey, Event, Manifest, Opinion, Organisation, Verdict,
    WorkloadFile,
};
use serde_json::{Value, json};

use crate::{
    chain::{CHAIN_ID, Chain},
    judge::{Books, WorkKey},
    setting::{self, RATE_MILLIS, Setting, organisation},
    witness::Witness,
};

/// What the sources said, file after file, and what the operator decided.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Content, and when it was said, by a clock of its own.
    files: Vec<(String, i64)>,
    /// When each statement was stated, by its digest.
    stated: BTreeMap<B256, i64>,
    /// When the database was lost, or an older one took its place.
    forgotten: Vec<i64>,
    now: i64,
}

/// A decision about a piece of work, as the opinion takes it.
pub(crate) fn decision((source, external_id): &WorkKey, verdict: &str) -> Decision {
    Decision {
        source: source.clone(),
        external_id: external_id.clone(),
        verdict: match verdict {
            "pay" => Verdict::Pay,
            "release" => Verdict::Release,
            _ => Verdict::Hold,
        },
        at_ms: None,
    }
}

impl Said {
    /// Records that were sent together.
    pub(crate) fn records(&mut self, records: &[Record]) {
        self.say(records.iter().map(line).collect());
    }

    fn say(&mut self, content: String) {
        self.now += 1;
        self.files.push((content, self.now));
    }

    /// Statements that are known by now; those that were not before have just been stated.
    pub(crate) fn state(&mut self, digests: impl IntoIterator<Item = B256>) {
        self.now += 1;
        for digest in digests {
            self.stated.entry(digest).or_insert(self.now);
        }
    }

    /// The database is lost, or an older one takes its place: what was said before may not be known any more.
    pub(crate) fn forget(&mut self) {
        self.now += 1;
        self.forgotten.push(self.now);
    }

    /// The payout address of a machine.
    pub(crate) fn payee(&mut self, machine: &str, address: Address) {
        let line = json!({ "schema": "payee/1", "machine": machine, "address": address });
        self.say(line.to_string());
    }

    /// The opinion on a chain, given the decisions in order and the installation's fee and deposits, by organisation.
    pub(crate) fn opinion(
        &self,
        chain: &Chain,
        witness: &Witness,
        decisions: Vec<Decision>,
        (fee_bps, deposits): (u16, &[Vec<B256>]),
    ) -> Result<Opinion, String> {
        let setting = Setting::get();
        let file = |(content, at): &(String, i64)| {
            let file = opinion::file("said.jsonl", content.as_bytes(), "")?;
            if let Some(field) = file.records.iter().find_map(|record| record.as_ref().err()) {
                return Err(format!("the second opinion does not read {field} of {content}"));
            }
            Ok(WorkloadFile { source: String::new(), file, at_ms: Some(*at) })
        };
        let rate = |index: usize| Decimal::read(&rate(index)).expect("a decimal");
        Ok(opinion::judge(&Case {
            chain_id: CHAIN_ID,
            contract: setting.settlement,
            secret: setting::SECRET,
            operator: (fee_bps > 0).then(setting::operator),
            fee_bps: vec![fee_bps],
            rates: [0, 1].map(|index| (setting.tokens[index], vec![rate(index)])).into(),
            organisations: [0, 1]
                .map(|index| Organisation {
                    name: organisation(index).into(),
                    token: setting.tokens[index],
                    deposits: deposits[index].clone(),
                })
                .into(),
            files: self.files.iter().map(file).collect::<Result<_, String>>()?,
            decisions,
            events: events(chain)?,
            manifests: self.manifests(witness)?,
            closed_until: None,
            is_over: true,
        }))
    }

    fn manifests(&self, witness: &Witness) -> Result<Vec<Manifest>, String> {
        let Ok(entries) = fs::read_dir(witness.manifests()) else { return Ok(Vec::new()) };
        let is_manifest = |path: &PathBuf| path.extension().is_some_and(|name| name == "json");
        let paths = entries.flatten().map(|entry| entry.path()).filter(is_manifest);
        let mut manifests = Vec::new();
        for path in paths.collect::<BTreeSet<_>>() {
            let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
            let mut manifest = Manifest::read(&text)?;
            manifest.at_ms = self.stated.get(&manifest.digest).copied();
            let before = |forgot: &&i64| manifest.at_ms.is_none_or(|stated| **forgot < stated);
            manifest.forgot_ms = self.forgotten.iter().rev().find(before).copied();
            manifests.push(manifest);
        }
        Ok(manifests)
    }
}

/// USD per whole token.
fn rate(index: usize) -> String {
    format!("{}.{:03}", RATE_MILLIS[index] / 1000, RATE_MILLIS[index] % 1000)
}

/// A record as a line of `workload/1`.
fn line(record: &Record) -> String {
    let (item, revision) = (&record.item, &record.revision);
    let time = |ms: i64| Timestamp::from_millisecond(ms).expect("a time").to_string();
    let result = match revision.result {
        WorkResult::Completed => "completed",
        WorkResult::Interrupted => "interrupted",
        WorkResult::Failed => "failed",
    };
    let mut line = json!({
        "schema": "workload/1", "source": item.source, "external_id": item.external_id,
        "revision": revision.revision, "organisation": item.organisation, "machine": item.machine,
        "kind": "batch", "started_at": time(item.started_ms), "ended_at": time(item.stopped_ms),
        "result": result,
    });
    match &revision.price {
        Price::Usd(usd) => line["price"] = json!({ "currency": "USD", "amount": usd.to_string() }),
        Price::Token(amount) => {
            let rate = revision.rate.as_ref().expect("an amount comes with its rate");
            line["amount"] = Value::String(amount.base_units().to_string());
            line["rate"] = json!({
                "usd_per_token": rate.usd_per_token.to_string(), "source": rate.source,
                "at": time(rate.at_ms),
            });
        }
    }
    let digests = [revision.evidence.digest, revision.evidence.mirror_digest];
    for (name, digest) in ["digest", "mirror_digest"].into_iter().zip(digests) {
        if let Some(digest) = digest {
            line["evidence"][name] = Value::String(digest.to_string());
        }
    }
    format!("{line}\n")
}

/// The contract's events of the whole chain, as far as they move money or number providers.
fn events(chain: &Chain) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    let logs = chain.blocks.iter().flat_map(|block| block.logs());
    for log in logs.filter(|log| log.address() == Setting::get().settlement) {
        let event =
            SettlementEvents::decode_log(&log.inner).map_err(|error| error.to_string())?.data;
        events.push(match event {
            SettlementEvents::TokenRegistered(event) => {
                Event::TokenRegistered { token: event.token, decimals: event.decimals }
            }
            SettlementEvents::Registered(event) => {
                Event::Registered { provider: event.provider, payout: event.payout }
            }
            SettlementEvents::Deposited(event) => Event::Deposited {
                key: DepositKey {
                    requestor: event.key.requestor,
                    signer: event.key.signer,
                    cosigner: event.key.cosigner,
                    token: event.key.token,
                    salt: event.key.salt,
                },
                units: event.units,
            },
            SettlementEvents::Withdrawn(event) => {
                Event::Withdrawn { deposit: event.id, units: event.units }
            }
            SettlementEvents::Settled(event) => Event::Settled {
                deposit: event.id,
                epoch: event.epoch,
                spent: event.spent,
                root: event.manifest,
                rows: event.rows.to_vec(),
            },
            SettlementEvents::Claimed(event) => {
                Event::Claimed { provider: event.provider, token: event.token, units: event.units }
            }
            _ => continue,
        });
    }
    Ok(events)
}

/// What opinion and judge see differently: to the base unit, by token, and by workload.
pub(crate) fn differences(opinion: &Opinion, books: &Books) -> Vec<String> {
    let mut found: Vec<_> =
        opinion.differences.iter().map(|difference| format!("{difference:?}")).collect();
    if opinion.statements != books.statements {
        found.push(format!("{} statements, {} judged", opinion.statements, books.statements));
    }
    for token in Setting::get().tokens {
        let total = opinion.totals.get(&token).copied().unwrap_or_default();
        let judged = books.totals(token).map(|amount| I256::try_from(amount).expect("an amount"));
        let seen = [
            total.deposited,
            total.withdrawn,
            total.claimed,
            total.in_deposits,
            total.credited - total.claimed,
        ];
        if seen != judged {
            found.push(format!("of {token} the opinion has {seen:?}, the judge {judged:?}"));
        }
    }
    found
}
