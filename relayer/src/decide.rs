//! `decide`: what an operator says about one piece of work.

use ledger::{Millis, book::BookWriter, read::Reader, rules::Verdict};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, config::Config};

/// A decision as it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Who reported the work.
    pub source: String,
    /// The source's own id of it.
    pub external_id: String,
    /// What is decided.
    pub verdict: Verdict,
    /// Why; kept with it.
    pub reason: String,
}

/// Records a decision. A dispute is taken within the holdback after the work's end only.
pub async fn decide(
    config: &Config,
    book: &BookWriter,
    reader: &Reader,
    decision: &Decision,
    now: Millis,
) -> Result<()> {
    let Decision { source, external_id, verdict, reason } = decision;
    if reason.trim().is_empty() {
        return Err(Error::Usage("reason is empty; say why, it is kept with the decision".into()));
    }
    let Some(item) = reader.work(source, external_id).await? else {
        return Err(Error::Usage(format!(
            "there is no work {external_id:?} of source {source:?}; take its record in first"
        )));
    };
    let hours = config.policy.holdback_hours;
    let closes = item.stopped_ms.saturating_add(i64::from(hours) * 3_600_000);
    if *verdict == Verdict::Dispute && now > closes {
        return Err(Error::Usage(format!(
            "work {external_id:?} of source {source:?} could be disputed for {hours} hours after its end \
             (policy.holdback_hours); an operator can still hold what is not stated"
        )));
    }
    let times = (config.tariff().fee_bps, now);
    Ok(book.decide(item.item, *verdict, reason, times).await?)
}
