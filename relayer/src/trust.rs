//! `endpoints --clear`: trusts the endpoints of an operator again that lied.

use std::collections::BTreeSet;

use indexer::Endpoints;
use ledger::{Ledger, Millis, chain::ChainWriter};

use crate::{Error, Result};

/// Takes note that an operator's endpoints are trusted again, and why. A running server acts on it at its next look.
pub async fn clear(
    endpoints: &Endpoints,
    ledger: Ledger,
    operator: &str,
    reason: &str,
    now: Millis,
) -> Result<()> {
    if reason.trim().is_empty() {
        return Err(Error::Usage("reason is empty; say why, it is kept with the mark".into()));
    }
    let known: BTreeSet<_> = endpoints.report().into_iter().map(|known| known.operator).collect();
    if !known.contains(operator) {
        let known: Vec<_> = known.into_iter().collect();
        return Err(Error::Usage(format!(
            "there is no operator {operator:?} of an endpoint; there are: {}",
            known.join(", ")
        )));
    }
    let seconds = u64::try_from(now / 1000).unwrap_or_default();
    Ok(ChainWriter::new(ledger).mark_endpoint(operator, false, reason, seconds).await?)
}
