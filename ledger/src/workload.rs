//! Workloads: what a source says was done, for whom, by which machine, and what it costs.

use alloy::primitives::{Address, B256, keccak256};
use serde::{Deserialize, Serialize};

use crate::{Amount, Decimal, Error, Millis, Result, Unit};

/// What a workload was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Answering queries to a model.
    Inference,
    /// Producing images or video.
    Render,
    /// Scientific computing, drug discovery for one.
    Simulation,
    /// Turning speech into text.
    Transcription,
    /// Anything else that ran from start to stop.
    Batch,
}

/// How a workload ended. Only completed work is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkResult {
    /// It did what was asked.
    Completed,
    /// The machine left before the end.
    Interrupted,
    /// It ended without a result.
    Failed,
}

/// The part of a record that no revision may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Who reports, `salad` for one.
    pub source: String,
    /// The source's own id of the work.
    pub external_id: String,
    /// Who pays.
    pub organisation: String,
    /// Which machine did it.
    pub machine: String,
    /// What it was.
    pub kind: Kind,
    /// Container group or similar, as the source names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_group: Option<String>,
    /// GPU class, as the source names it; `None` for work on CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_class: Option<String>,
    /// Virtual CPUs used at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<Decimal>,
    /// Memory used at most, MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<Decimal>,
    /// Priority, as the source names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Country of the machine, ISO 3166-1 alpha-2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Start of the work.
    pub started_ms: Millis,
    /// End of the work.
    pub stopped_ms: Millis,
}

/// What one whole token costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// USD per whole token.
    pub usd_per_token: Decimal,
    /// Where the rate comes from.
    pub source: String,
    /// When it held.
    pub at_ms: Millis,
}

/// What a workload costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Price {
    /// USD, converted once, at acceptance.
    Usd(Decimal),
    /// Base units of the organisation's token, converted by the source.
    Token(Amount),
}

/// What can be said about how mirrored work went on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// Jobs on the source's side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub salad_job_ids: Vec<String>,
    /// Agreement on the mirror's side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golem_agreement: Option<String>,
    /// Digest of the output on the source's side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<B256>,
    /// Digest of the output on the mirror's side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_digest: Option<B256>,
}

/// The part of a record that a revision may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Number of the revision, from 0. The highest one counts.
    pub revision: u32,
    /// How the work ended.
    pub result: WorkResult,
    /// What it costs.
    pub price: Price,
    /// The rate at which the source converted, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How it went on both sides.
    #[serde(default)]
    pub evidence: Evidence,
}

/// One intake record: parsed, normalised, checked for form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What stays.
    pub item: Item,
    /// What may be revised.
    pub revision: Revision,
    /// Payout address that the source names for the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payout: Option<Address>,
}

impl Record {
    /// The record as it is stored, JSON.
    pub fn body(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|_| Error::Corrupt("record"))
    }

    /// Reads a stored record.
    pub fn from_body(body: &str) -> Result<Self> {
        serde_json::from_str(body).map_err(|_| Error::Corrupt("body of a workload"))
    }

    /// Hash over all that the source sent. Same hash, same record.
    pub fn content(&self) -> Result<B256> {
        Ok(keccak256(self.body()?))
    }

    /// What is owed for it in a token, before anything was settled: nothing unless the work is completed.
    pub fn amount(&self, rate: &Rate, decimals: u8) -> Result<Amount> {
        match (&self.revision.result, &self.revision.price) {
            (WorkResult::Interrupted | WorkResult::Failed, _) => Ok(Amount::ZERO),
            (WorkResult::Completed, Price::Token(amount)) => Ok(*amount),
            (WorkResult::Completed, Price::Usd(usd)) => usd.convert(&rate.usd_per_token, decimals),
        }
    }

    /// Whether both sides report a digest of the output, and the same.
    pub fn has_equal_digests(&self) -> bool {
        let evidence = &self.revision.evidence;
        evidence.digest.is_some() && evidence.digest == evidence.mirror_digest
    }

    /// Why the work is to be held for review, if it is: both sides report a digest and they differ.
    pub fn hold_reason(&self) -> Option<String> {
        let evidence = &self.revision.evidence;
        let (ours, mirror) = (evidence.digest?, evidence.mirror_digest?);
        let revision = self.revision.revision;
        (ours != mirror)
            .then(|| format!("output digests of revision {revision} differ: {ours} and {mirror}"))
    }
}

impl Item {
    /// Hash over what no revision may change.
    pub fn fixed(&self) -> Result<B256> {
        let body = serde_json::to_vec(self).map_err(|_| Error::Corrupt("item"))?;
        Ok(keccak256(body))
    }
}

/// A token as the contract registered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The ERC-20 contract.
    pub address: Address,
    /// Decimals of a whole token.
    pub decimals: u8,
    /// Base units per unit.
    pub unit: Unit,
}

/// What became of a record at intake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// It is owed, and its provider is known.
    Accepted {
        /// Base units.
        amount: Amount,
    },
    /// It is owed; its machine has no payout address yet.
    Unaddressed {
        /// Base units.
        amount: Amount,
    },
    /// It is kept, and will be accepted when the organisation has more money.
    Unfunded {
        /// Base units that are missing, the operator's fee included.
        missing: Amount,
    },
    /// It is kept, and nothing is owed for it: the money of its work was let go, or a cut-off takes the work for paid.
    Released {
        /// What it comes to, base units.
        amount: Amount,
    },
    /// The same record was here before.
    Duplicate,
    /// Another record was here before under the same key.
    Conflict {
        /// What differs, with both versions.
        reason: String,
    },
    /// It is not a record that the ledger can take.
    Rejected {
        /// The field at fault.
        field: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}

impl Outcome {
    /// Whether the ledger has the record now.
    pub const fn is_kept(&self) -> bool {
        !matches!(self, Self::Conflict { .. } | Self::Rejected { .. })
    }
}
