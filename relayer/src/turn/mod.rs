//! The relayer's turn: accept what can be accepted, state what is payable, sign it, send it, push what was credited.
//!
//! Each turn reads the ledger, decides by pure rules, commits, and only then acts. It is safe to repeat and safe to cut
//! off anywhere: the next turn, of this process or the next one, finds what is left to do in the ledger.

mod apart;
mod bisection;
mod push;
mod register;
mod send;
mod settle;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use alloy::{eips::BlockId, primitives::Address, providers::DynProvider};
use indexer::Endpoints;
use ledger::{
    Ledger, Millis, ProviderNumber,
    book::{BookWriter, Obligation},
    read::{Anchors, Reader},
};

pub use self::settle::outcome_name;
pub(crate) use self::settle::settle_input;
use self::{apart::Apart, push::Backoff, send::Since};
use crate::{
    Result,
    attester::Attester,
    config::Config,
    keys::Keys,
    manifests::Manifests,
    sender::{
        Sender, Standing,
        outcome::InVain,
        plan::{Bound, Wait},
    },
};

/// What a turn came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Workloads accepted that had waited for money.
    pub accepted: u64,
    /// Statements signed.
    pub signed: usize,
    /// Transactions sent for the first time.
    pub sent: usize,
    /// Obligations sent and not yet seen in an indexed block.
    pub in_flight: usize,
    /// What waits, and why.
    pub waiting: Vec<String>,
}

impl Report {
    /// Whether the turn found nothing to do and nothing under way.
    pub const fn is_idle(&self) -> bool {
        self.accepted == 0 && self.signed == 0 && self.sent == 0 && self.in_flight == 0
    }
}

/// Everything that a turn works with.
#[derive(Debug)]
pub struct Relayer {
    config: Config,
    reader: Reader,
    book: BookWriter,
    attester: Attester,
    sender: Sender,
    provider: DynProvider,
    endpoints: Endpoints,
    /// Number of the final block that enough operators agreed on first.
    began: OnceLock<u64>,
    /// Candidates that earlier turns found unsent.
    unsent: Mutex<BTreeSet<i64>>,
    /// Since when something waits, for people.
    since: Mutex<Since>,
    /// Credits that a token refused to pay.
    backoff: Mutex<Backoff>,
    /// What waits since credits were looked at last, and why.
    unpushed: Mutex<Vec<String>>,
    /// What transactions carried that no node took, and claims that came to nothing when they were mined.
    apart: Mutex<Apart>,
    /// What bounds the fees of statements that found no room in the last turn.
    roomless: Mutex<Option<Bound>>,
}

/// What one turn has read at its start.
struct View {
    anchors: Anchors,
    standing: Standing,
    now: Millis,
    /// The time by which deadlines are judged.
    later: Millis,
    /// Statements, claims and registrations whose slot could still take effect: nothing has finally consumed its tx nonce.
    busy: Busy,
}

/// What slots carry.
#[derive(Default)]
struct Busy {
    statements: BTreeSet<i64>,
    claims: BTreeSet<(Address, ProviderNumber)>,
    registrations: BTreeSet<Address>,
}

impl Busy {
    fn add(&mut self, obligation: &Obligation) {
        match obligation {
            Obligation::Settle(statements) => self.statements.extend(statements),
            Obligation::Claim(token, providers) => {
                self.claims.extend(providers.iter().map(|provider| (*token, *provider)));
            }
            Obligation::Register(addresses) => self.registrations.extend(addresses),
        }
    }

    fn len(&self) -> usize {
        self.statements.len() + self.claims.len() + self.registrations.len()
    }
}

/// How far the chain may be behind the host's clock before that clock is not believed, ms.
pub(crate) const MAX_CHAIN_LAG: Millis = 3_600_000;

/// The later of the host's time and that of the chain's newest block: deadlines are the chain's, whose next block may be near
/// them. A clock that is far ahead of it brings none nearer.
fn later(now: Millis, chain: Millis) -> Millis {
    now.min(chain.saturating_add(MAX_CHAIN_LAG)).max(chain)
}

impl View {
    /// The block at which calls are simulated: the one whose facts the turn decides by.
    fn block(&self) -> BlockId {
        self.anchors.checkpoint.hash.into()
    }

    fn is_frozen(&self) -> bool {
        self.standing.plan.waiting.iter().any(Wait::is_freeze)
    }

    /// How many obligations the chain has not consumed the tx nonce of, as far as it is indexed.
    fn in_flight(&self) -> usize {
        let mut busy = Busy::default();
        let indexed = self.standing.counts.indexed;
        for slot in self.standing.slots.iter().filter(|slot| slot.tx_nonce >= indexed) {
            busy.add(&slot.obligation);
        }
        busy.len()
    }
}

impl Relayer {
    /// A relayer over an open ledger.
    pub fn new(config: Config, keys: Keys, ledger: Ledger, endpoints: Endpoints) -> Self {
        let provider = endpoints.provider();
        let limits = config.sending_limits();
        let (reader, book) = (Reader::new(ledger.clone()), BookWriter::new(ledger));
        let sender =
            Sender::new(provider.clone(), keys.sender, limits, reader.clone(), book.clone());
        let manifests = Arc::new(Manifests::new(&config, keys.secret.clone()));
        let attester =
            Attester::new(keys.attester, keys.secret, manifests, reader.clone(), book.clone());
        let unsent = Mutex::default();
        let (since, backoff, unpushed) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (apart, roomless) = (Mutex::default(), Mutex::default());
        let began = OnceLock::new();
        Self {
            config,
            reader,
            book,
            attester,
            sender,
            provider,
            endpoints,
            began,
            unsent,
            since,
            backoff,
            unpushed,
            apart,
            roomless,
        }
    }

    /// Notices what was signed and is not known here; see [`Attester::notice`].
    pub async fn notice(&self, now: Millis) -> Result<usize> {
        self.attester.notice(now).await
    }

    /// The folders that it publishes into.
    pub fn manifests(&self) -> Arc<Manifests> {
        Arc::clone(self.attester.manifests())
    }

    /// One turn at time `now`. Claims are pushed only if `push` is set, as that reads every credit.
    pub async fn turn(&self, now: Millis, push: bool) -> Result<Report> {
        let mut report = Report::default();
        let Some(view) = self.view(now).await? else {
            report.waiting.push("everything waits until the first block is indexed".into());
            return Ok(report);
        };
        if let Some(reason) = self.is_behind(&view) {
            report.waiting.push(reason);
            return Ok(report);
        }
        let waiting =
            view.standing.plan.waiting.iter().map(|wait| wait.text(self.sender.address()));
        report.waiting.extend(waiting);
        let acted = self.sender.act(&view.standing, now).await?;
        if let Some((obligation, reason)) = view.standing.given_up(&acted) {
            self.apart().note(obligation, &format!("no node took it: {reason}"), now);
        }
        report.waiting.extend(acted.failed);
        self.register(&view, &mut report).await?;
        self.state(&view, &mut report).await?;
        self.settle(&view, &mut report).await?;
        if push {
            let told = report.waiting.len();
            self.push(&view, &mut report).await?;
            *self.unpushed() = report.waiting[told..].to_vec();
        } else {
            report.waiting.extend(self.unpushed().iter().cloned());
        }
        if let Some(reason) = self.sender.fill_gap(&view.standing, view.now).await? {
            self.wait(&mut report, view.now, "a transaction that fills a gap", &reason);
        }
        report.in_flight = view.in_flight();
        Ok(report)
    }

    fn apart(&self) -> MutexGuard<'_, Apart> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_in_vain(&self, InVain { obligation, refused, reason }: &InVain, now: Millis) {
        if refused.is_empty() {
            self.apart().note(obligation, reason, now);
        }
        for claim in refused {
            self.apart().note_claim(*claim, reason, now);
        }
    }

    fn unpushed(&self) -> MutexGuard<'_, Vec<String>> {
        self.unpushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing may be signed or sent yet, if that is so. A database that is older than the chain, as that of a backup is,
    /// knows neither what was paid since nor who is frozen: what was final when this process began has to be read first.
    fn is_behind(&self, view: &View) -> Option<String> {
        let Some(first) = self.endpoints.agreed_final() else {
            return Some("everything waits until the endpoints agree on a final block".into());
        };
        let read = view.anchors.finalised.map_or(0, |block| block.number);
        if self.began.get().is_none() && first < read {
            // A node that begins to sync, as one of several behind a name may, tells of blocks long past.
            return Some(format!(
                "everything waits until the endpoints agree on block {read}, which is final here; they say {first}"
            ));
        }
        let began = *self.began.get_or_init(|| first);
        (read < began).then(|| {
            format!("everything waits until the chain is read: block {read} of {began}, which was final at the start")
        })
    }

    /// Reads what the turn decides by; `None` before anything is indexed.
    async fn view(&self, now: Millis) -> Result<Option<View>> {
        let Some(anchors) = self.reader.anchors().await? else { return Ok(None) };
        self.sender.take_lease().await?;
        let counts = self.sender.counts(&anchors).await?;
        for in_vain in self.sender.resolve(&anchors, counts, now).await? {
            self.note_in_vain(&in_vain, now);
        }
        let slots = self.reader.open_slots(self.sender.address()).await?;
        let (prices, newest_ms) = self.sender.prices().await?;
        let later = later(now, newest_ms.max(anchors.checkpoint.time_ms()));
        let mut bounds = BTreeMap::new();
        for slot in &slots {
            let gas = slot.attempts.last().map_or(0, |newest| newest.gas_limit);
            let worth = self.worth(&slot.obligation).await?;
            bounds.insert(slot.id, self.bound(&worth, gas, later)?);
        }
        // What waits for room waits for the slots that there are.
        let roomless = self.roomless.lock().ok().and_then(|mut roomless| roomless.take());
        let standing = self
            .sender
            .stand(
                (counts, slots),
                (now, anchors.checkpoint.hash.into()),
                prices,
                (&bounds, roomless),
            )
            .await?;
        let mut busy = Busy::default();
        for slot in &standing.slots {
            busy.add(&slot.obligation);
        }
        Ok(Some(View { anchors, standing, now, later, busy }))
    }
}
