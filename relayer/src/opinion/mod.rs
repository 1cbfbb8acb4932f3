//! A second opinion: what each statement should have paid, computed from the workload files, the chain's events and the
//! published manifests alone.
//!
//! Maps and 256-bit integers, no database, nothing asynchronous. It shares no rule, no parser and no hash with the ledger:
//! this module imports nothing of the project, and a test holds it to that. Where both are wrong, they are wrong apart.

mod books;
mod hash;
mod json;
mod judge;
mod manifest;
mod money;
mod open;
mod records;
mod statement;

use std::{collections::BTreeMap, fmt};

use alloy::primitives::{Address, B256, I256};
use serde::Serialize;

pub use self::{
    books::{Decision, Verdict, WorkloadFile},
    hash::rows,
    json::Json,
    manifest::Manifest,
    money::Decimal,
    records::{File, Price, Said, Work, file},
};

/// Everything that an opinion rests on.
#[derive(Clone, Default)]
pub struct Case {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The Settlement contract.
    pub contract: Address,
    /// The operator's secret behind workload ids.
    pub secret: B256,
    /// Where the fee is paid; without it there is none.
    pub operator: Option<Address>,
    /// Fees that were in force, ten-thousandths; none means no fee.
    pub fee_bps: Vec<u16>,
    /// USD per whole token that were in force, by token.
    pub rates: BTreeMap<Address, Vec<Decimal>>,
    /// Who pays, from which deposits.
    pub organisations: Vec<Organisation>,
    /// The workload files, in the order in which they were taken in.
    pub files: Vec<WorkloadFile>,
    /// Holds and releases, in order.
    pub decisions: Vec<Decision>,
    /// The contract's events, in order.
    pub events: Vec<Event>,
    /// Every manifest that was published.
    pub manifests: Vec<Manifest>,
    /// Everything that ended by then, ms, was ordered to be paid; `None` if all was.
    pub closed_until: Option<i64>,
    /// Whether everything payable has had its time, so that what is payable and unpaid is a difference.
    pub is_over: bool,
}

impl fmt::Debug for Case {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("contract", &self.contract).finish_non_exhaustive()
    }
}

/// An organisation and the deposits that pay for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organisation {
    /// Its name in the records.
    pub name: String,
    /// The token that it pays in.
    pub token: Address,
    /// Ids of its deposits.
    pub deposits: Vec<B256>,
}

/// What a deposit's id is the hash of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "fields are those of the contract's struct")]
pub struct DepositKey {
    pub requestor: Address,
    pub signer: Address,
    pub cosigner: Address,
    pub token: Address,
    pub salt: B256,
}

impl DepositKey {
    /// Id of the deposit.
    pub fn id(&self) -> B256 {
        hash::deposit_id(self)
    }
}

/// An event of the contract, as far as it moves money or numbers providers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the events in the Solidity interfaces")]
pub enum Event {
    TokenRegistered { token: Address, decimals: u8 },
    Registered { provider: u32, payout: Address },
    Deposited { key: DepositKey, units: u64 },
    Withdrawn { deposit: B256, units: u64 },
    Settled { deposit: B256, epoch: u32, spent: u64, root: B256, rows: Vec<u8> },
    Claimed { provider: u32, token: Address, units: u64 },
}

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Id of the workload; 0 for a carry, 1 for the fee.
    pub workload: B256,
    /// Who is paid.
    pub provider: u32,
    /// Base units.
    pub amount: I256,
    /// Source, external id and revision.
    pub name: Option<(String, String, u32)>,
}

/// The opinion.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Opinion {
    /// Settled statements that were judged.
    pub statements: u64,
    /// Workloads that the files name, each under its highest revision.
    pub workloads: u64,
    /// Workloads that are paid exactly.
    pub paid: u64,
    /// Workloads that are not, each with the reason.
    pub open: Vec<OpenWork>,
    /// Money by token.
    pub totals: BTreeMap<Address, Total>,
    /// What is not as it should be.
    pub differences: Vec<Difference>,
}

/// A workload that is not paid exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenWork {
    /// Source and external id.
    pub workload: String,
    /// Base units that are due, negative if too much was paid.
    #[serde(serialize_with = "text")]
    pub due: I256,
    /// Why.
    pub reason: String,
}

/// Money of one token, base units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Total {
    /// Deposited.
    #[serde(serialize_with = "text")]
    pub deposited: I256,
    /// Withdrawn by requestors.
    #[serde(serialize_with = "text")]
    pub withdrawn: I256,
    /// Left in deposits.
    #[serde(serialize_with = "text")]
    pub in_deposits: I256,
    /// Paid for workloads, Σ leaves.
    #[serde(serialize_with = "text")]
    pub work: I256,
    /// Paid to the operator, Σ leaves.
    #[serde(serialize_with = "text")]
    pub fee: I256,
    /// Remainders that deposits still owe.
    #[serde(serialize_with = "text")]
    pub carried: I256,
    /// Credited by judged statements, Σ rows.
    #[serde(serialize_with = "text")]
    pub credited: I256,
    /// Paid to wallets.
    #[serde(serialize_with = "text")]
    pub claimed: I256,
}

fn text<S: serde::Serializer>(number: &I256, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Difference {
    /// The deposit concerned.
    pub deposit: Option<B256>,
    /// The epoch of its statement.
    pub epoch: Option<u32>,
    /// The workload concerned.
    pub workload: Option<String>,
    /// What is wrong, and what it should be.
    pub problem: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(deposit) = self.deposit {
            write!(f, "deposit {deposit}, ")?;
        }
        if let Some(epoch) = self.epoch {
            write!(f, "epoch {epoch}, ")?;
        }
        if let Some(workload) = &self.workload {
            write!(f, "workload {workload}, ")?;
        }
        f.write_str(&self.problem)
    }
}

impl Opinion {
    /// Most lines of open workloads that people are shown.
    const SHOWN: usize = 20;

    /// For people.
    pub fn text(&self) -> String {
        let Self { statements, workloads, paid, open, .. } = self;
        let mut text = format!(
            "second opinion: {statements} statements judged; of {workloads} workloads {paid} are paid, {} open",
            open.len()
        );
        for (token, total) in &self.totals {
            let Total { work, fee, credited, carried, claimed, .. } = total;
            text.push_str(&format!(
                "\n{token} (base units)\n  leaves of work {work} + fee {fee} = credited {credited} + carried {carried}; claimed {claimed}"
            ));
        }
        for OpenWork { workload, due, reason } in open.iter().take(Self::SHOWN) {
            text.push_str(&format!("\n  open: {workload}, {due} base units: {reason}"));
        }
        if open.len() > Self::SHOWN {
            text.push_str(&format!("\n  and {} more", open.len() - Self::SHOWN));
        }
        if self.differences.is_empty() {
            return text + "\nno differences";
        }
        text.push_str("\nDIFFERENCES");
        for difference in &self.differences {
            text.push_str(&format!("\n  {difference}"));
        }
        text
    }
}

/// Judges every settled statement, and the whole.
pub fn judge(case: &Case) -> Opinion {
    judge::judge(case)
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_of_the_project_is_imported() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/opinion");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for crate_name in ["crate", "ledger", "contracts", "indexer", "relayer"] {
                let path = [crate_name, "::"].concat();
                assert!(!text.contains(&path), "{path}");
            }
            files += 1;
        }
        assert!(files >= 9, "{files}");
    }
}
