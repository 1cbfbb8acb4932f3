//! Several endpoints of several operators, of which none is believed.
//!
//! The hash of the final block is voted on, by operators, and so many of them must agree. What follows from that hash is checked
//! here: headers by their own hash, logs by the receipts root or the contract's journal. What nothing proves is voted on as
//! well: logs of old blocks, state, prices. Endpoints that are lost make progress slower or stop it; they never lower the
//! number of operators that must agree.

mod agreement;
mod health;
mod price;
pub(crate) mod wire;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, U256, keccak256},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::{client::RpcClient, types::Log},
    transports::RpcError,
};
use ledger::{chain::Block, point};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::health::State;
pub use self::wire::{asks_for_patience, is_known, is_refusal};
pub(crate) use self::{health::Health, wire::Wire};
use self::{
    health::{Outcome, TOLERATED_LAG},
    wire::{Chooser, all},
};
use crate::{
    Error, Finality, Result,
    endpoint::{Endpoint, Header, Look, told},
    history,
};

/// How long what a look at all endpoints found is good for choosing one of them.
const FRESH: Duration = Duration::from_secs(30);
/// Longest pause of an endpoint that a request waits out.
const SHORT: Duration = Duration::from_secs(2);

/// One endpoint and who runs it.
#[derive(Clone)]
pub struct Upstream {
    /// Name of its operator, for people. Two endpoints of one operator are one vote.
    pub operator: String,
    /// The way to it.
    pub provider: DynProvider,
    /// Parts of its address that nobody may read, such as a key in its path: they are taken out of whatever it answers.
    pub hidden: Vec<String>,
}

impl fmt::Debug for Upstream {
    /// Without the provider, which may hold the endpoint's address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("operator", &self.operator).finish_non_exhaustive()
    }
}

/// Whether the hash of a header can be computed from its fields, which a chain of unusual headers may prevent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderHash {
    /// It is, and a header with another one is refused.
    #[default]
    Computed,
    /// It is taken from the endpoint and proves nothing: enough operators have to tell the same parent and time with it, and
    /// neither state nor tx receipts are checked against a header.
    Trusted,
}

/// What the endpoints are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Operators that must agree on the final block; a majority of them if not said.
    pub agreement: Option<usize>,
    /// Whether hashes of headers are computed.
    pub header_hash: HeaderHash,
    /// Deepest reorg that is followed, blocks.
    pub max_reorg_depth: u64,
    /// How long the final block may stand still before that is an alarm.
    pub finality_alarm: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            agreement: None,
            header_hash: HeaderHash::Computed,
            max_reorg_depth: 64,
            finality_alarm: Duration::from_secs(30 * 60),
        }
    }
}

/// Several endpoints and the contract that is followed through them. Cheap to clone; clones share what they learn.
///
/// An endpoint must serve `eth_chainId`, `eth_getBlockByNumber`, `eth_getBlockByHash`, `eth_getLogs` and
/// `eth_getStorageAt` by block hash, with headers whose fields hash to their hash and whose bloom is theirs. Where it
/// serves `eth_getBlockReceipts` and `eth_getProof`, logs and journal are proved by them.
#[derive(Clone)]
pub struct Endpoints {
    members: Arc<[Endpoint]>,
    contract: Address,
    finality: Finality,
    settings: Settings,
    /// Chain id and hash of block 0 that they have to serve, once known.
    chain: Arc<OnceLock<(u64, B256)>>,
    surveyed: Arc<Mutex<Option<Instant>>>,
    /// Number of the final block that enough operators agreed on last.
    finalised: Arc<Mutex<Option<u64>>>,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operators: Vec<_> = self.members.iter().map(Endpoint::operator).collect();
        f.debug_struct("Endpoints").field("operators", &operators).finish_non_exhaustive()
    }
}

/// What a look at all endpoints found.
#[derive(Debug, Clone)]
pub(crate) struct Survey {
    /// The final block that enough operators agree on.
    pub(crate) finalised: Header,
    /// Endpoints that have it, the preferred one first, with their newest blocks.
    pub(crate) agreeing: Vec<(Endpoint, Header)>,
}

/// What is served of some blocks of which too few operators serve the same.
#[derive(Debug)]
pub(crate) struct Unagreed {
    /// Logs, with the operators that serve them.
    pub(crate) served: Vec<(String, Vec<Log>)>,
    /// What kept the others from serving any.
    pub(crate) refusals: Vec<Error>,
}

/// What is known of an endpoint, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointReport {
    /// Its operator.
    pub operator: String,
    /// How far it can be relied on.
    pub state: State,
    /// Number of its newest block.
    pub latest: Option<u64>,
    /// Number of the newest block that it calls final.
    pub finalised: Option<u64>,
    /// Blocks behind what enough operators have.
    pub lag: u64,
    /// Why it counts as lying or as of another chain, or what it failed at last.
    pub reason: Option<String>,
}

impl Endpoints {
    /// Endpoints for the contract, the preferred one first, held to the default settings.
    pub fn new(upstreams: Vec<Upstream>, contract: Address, finality: Finality) -> Self {
        let (settings, is_alone) = (Settings::default(), upstreams.len() == 1);
        let member = |upstream: Upstream| {
            let transport = upstream.provider.client().transport().clone();
            let wire = Wire::new(upstream.operator.into(), transport, upstream.hidden, is_alone);
            Endpoint::new(wire, (contract, finality), settings.header_hash)
        };
        Self {
            members: upstreams.into_iter().map(member).collect(),
            contract,
            finality,
            settings,
            chain: Arc::default(),
            surveyed: Arc::default(),
            finalised: Arc::default(),
        }
    }

    /// The same endpoints, held to other settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        let member = |member: &Endpoint| {
            Endpoint::new(
                member.wire().clone(),
                (self.contract, self.finality),
                settings.header_hash,
            )
        };
        self.members = self.members.iter().map(member).collect();
        self.settings = settings;
        self
    }

    /// Names the chain that all of them have to serve. The first name counts.
    pub fn expect_chain(&self, id: u64, genesis: B256) {
        self.chain.get_or_init(|| (id, genesis));
    }

    /// The contract that is followed.
    pub const fn contract(&self) -> Address {
        self.contract
    }

    /// What they are held to.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Number of operators.
    pub fn operators(&self) -> usize {
        let names: BTreeSet<_> = self.members.iter().map(Endpoint::operator).collect();
        names.len()
    }

    /// Operators that must agree on the final block.
    pub fn needed(&self) -> usize {
        self.settings.agreement.unwrap_or(self.operators() / 2 + 1)
    }

    /// Number of the final block that enough operators agreed on when they were looked at last; `None` before they have.
    pub fn agreed_final(&self) -> Option<u64> {
        *self.finalised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A provider that chooses an endpoint for each request. What is read comes from endpoints that agree on the final
    /// block only; what is sent goes to all of them, once. A read that comes to nothing is asked again a few times.
    pub fn provider(&self) -> DynProvider {
        let client = RpcClient::new(Chooser(self.clone()), false);
        ProviderBuilder::new().connect_client(client).erased()
    }

    /// What is known of each.
    pub fn report(&self) -> Vec<EndpointReport> {
        let report = |member: &Endpoint| {
            let health = member.health(|health| health.clone());
            EndpointReport {
                operator: member.operator().to_owned(),
                state: health.state(),
                latest: health.latest.map(|block| block.number),
                finalised: health.finalised,
                lag: health.lag,
                reason: health.lie.or(health.wrong_chain).or(health.last_error),
            }
        };
        self.members.iter().map(report).collect()
    }

    /// Checks that enough operators serve the chain that is expected. Says which other one an endpoint serves if that is
    /// what is wrong.
    pub(crate) async fn identify(&self) -> Result<()> {
        let Some((id, genesis)) = self.chain.get().copied() else { return Ok(()) };
        let checks = self.members.iter().map(|member| member.identify(id, genesis));
        let mut good = BTreeSet::new();
        let mut problem = None;
        for (member, check) in self.members.iter().zip(all(checks).await) {
            match check {
                Ok(()) => {
                    good.insert(member.operator());
                }
                Err(error) => {
                    member.distrust(&error);
                    problem.get_or_insert(error);
                }
            }
        }
        match problem {
            Some(error) if good.len() < self.needed() => Err(error),
            _ => Ok(()),
        }
    }

    /// Asks an operator's endpoints nothing more, for what they did.
    pub fn distrust(&self, operator: &str, lie: &str) {
        for member in self.members.iter().filter(|member| member.operator() == operator) {
            member.health(|health| health.lie = Some(lie.to_owned()));
        }
    }

    /// Looks at all of them again, whatever comes of it.
    pub async fn look(&self) -> Result<()> {
        self.survey().await.map(|_| ())
    }

    /// Whether there is one endpoint only.
    pub(crate) fn is_alone(&self) -> bool {
        self.members.len() == 1
    }

    pub(crate) fn members(&self) -> &[Endpoint] {
        &self.members
    }

    /// Looks at all endpoints: their newest blocks, and the final block that enough operators agree on.
    pub(crate) async fn survey(&self) -> Result<Survey> {
        self.look_for_strays().await;
        self.wait_out().await;
        let looks = all(self.due().into_iter().map(|member| self.look_at(member))).await;
        let looks: Vec<(Endpoint, Look)> = looks.into_iter().flatten().collect();
        *self.surveyed.lock().unwrap_or_else(PoisonError::into_inner) = Some(point::now());
        self.note_lags(&looks);
        let claims = looks.iter();
        let claims = claims.filter_map(|(member, look)| Some((member.operator(), look.finalised?)));
        let Some(number) = self.reached(claims) else {
            return Err(self.no_agreement("on a final block"));
        };
        let votes = all(looks.iter().map(|(member, look)| vote(member, look, number))).await;
        let finalised = self.agreed_header(looks.iter().map(|(member, _)| member).zip(&votes));
        let mut agreeing = Vec::new();
        for ((member, look), vote) in looks.into_iter().zip(votes) {
            let agreed = vote.as_ref().zip(finalised.as_ref());
            let agreed = agreed.map(|(vote, header)| (vote.block, header.block));
            let agrees =
                agreed.is_some_and(|(vote, header)| self.ballot(&vote) == self.ballot(&header));
            member.health(|health| health.agrees = Some(agrees));
            match agreed {
                Some((vote, header)) if !agrees && look.finalised >= Some(number) => {
                    let (theirs, winner) = (told(&vote, &header), told(&header, &vote));
                    member.lied(format!(
                        "it called block {number} {theirs} final; the other operators agree on {winner}"
                    ));
                }
                _ if agrees => agreeing.push((member, look.latest)),
                _ => {}
            }
        }
        let Some(finalised) = finalised else {
            return Err(self.no_agreement(&format!("on block {number}")));
        };
        *self.finalised.lock().unwrap_or_else(PoisonError::into_inner) = Some(number);
        // Those that do not trail come first, in the operator's order.
        agreeing.sort_by_key(|(member, _)| member.health(|health| health.lag > TOLERATED_LAG));
        Ok(Survey { finalised, agreeing })
    }

    /// The block at a height that is final, as enough operators agree.
    pub(crate) async fn agreed_at(&self, number: u64) -> Result<Header> {
        let members = self.due();
        let headers = all(members.iter().map(|member| member.block_if_any(number.into()))).await;
        let found = self.agreed_header(members.iter().zip(&headers));
        found.ok_or_else(|| self.no_agreement(&format!("on block {number}")))
    }

    /// The header that enough operators have.
    fn agreed_header<'a>(
        &self,
        votes: impl Iterator<Item = (&'a Endpoint, &'a Option<Header>)> + Clone,
    ) -> Option<Header> {
        let named = votes.filter_map(|(member, vote)| Some((member.operator(), vote.as_ref()?)));
        let ballots = named.clone().map(|(operator, vote)| (operator, self.ballot(&vote.block)));
        let winner = self.agreed(ballots)?;
        let mut headers = named.map(|(_, header)| header);
        headers.find(|header| self.ballot(&header.block) == winner).cloned()
    }

    /// By what a block is voted on. Where its hash is not computed, that says nothing of what else is used of its header.
    pub(crate) fn ballot(&self, block: &Block) -> B256 {
        let Block { number, hash, parent, time } = block;
        match self.settings.header_hash {
            HeaderHash::Computed => *hash,
            HeaderHash::Trusted => keccak256(
                [&number.to_be_bytes(), hash.as_slice(), parent.as_slice(), &time.to_be_bytes()]
                    .concat(),
            ),
        }
    }

    /// The hash that enough operators name, each of which speaks through its endpoints.
    pub(crate) fn agreed<'a>(
        &self,
        votes: impl IntoIterator<Item = (&'a str, B256)>,
    ) -> Option<B256> {
        agreement::agreed(votes, self.needed())
    }

    /// The greatest number that as many operators reach as have to agree.
    pub(crate) fn reached<'a>(
        &self,
        claims: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Option<u64> {
        agreement::reached(claims, self.needed())
    }

    /// Digest of the contract's logs of a block, as enough operators serve them.
    pub(crate) async fn agreed_logs(&self, block: &Block) -> std::result::Result<B256, Unagreed> {
        let members = self.due();
        let served = all(members.iter().map(|member| member.logs_of(block))).await;
        self.agreed_digest(&members, served)
    }

    /// Digest of the contract's logs of final blocks, as enough operators serve them.
    pub(crate) async fn agreed_range(
        &self,
        (from, to): (u64, u64),
    ) -> std::result::Result<B256, Unagreed> {
        let members = self.due();
        let served = all(members.iter().map(|member| member.logs_between(from, to))).await;
        self.agreed_digest(&members, served)
    }

    /// Digest of the logs that enough operators serve.
    fn agreed_digest(
        &self,
        members: &[Endpoint],
        served: Vec<Result<Vec<Log>>>,
    ) -> std::result::Result<B256, Unagreed> {
        let mut unagreed = Unagreed { served: Vec::new(), refusals: Vec::new() };
        for (member, logs) in members.iter().zip(served) {
            match logs {
                Ok(logs) => unagreed.served.push((member.operator().to_owned(), logs)),
                Err(error) => unagreed.refusals.push(error),
            }
        }
        let named = unagreed.served.iter();
        let named = named.map(|(operator, logs)| (operator.as_str(), history::digest(logs)));
        self.agreed(named).ok_or(unagreed)
    }

    /// A word of the contract's storage in the state of a block, as enough operators say.
    pub(crate) async fn agreed_storage(&self, block: B256, slot: U256) -> Option<U256> {
        let members = self.due();
        let words = all(members.iter().map(|member| member.word_if_any(block, slot))).await;
        let named = members.iter().zip(words);
        let named = named.filter_map(|(member, word)| Some((member.operator(), word?.into())));
        self.agreed(named).map(Into::into)
    }

    /// Endpoints that may be asked now. If all that can be trusted are to be left alone for failing, they are asked all the
    /// same; those that asked for patience are not.
    pub(crate) fn due(&self) -> Vec<Endpoint> {
        let now = point::now();
        let pick = |wanted: &dyn Fn(&Health) -> bool| {
            let members = self.members.iter();
            members.filter(|member| member.health(|health| wanted(health))).cloned().collect()
        };
        let due: Vec<Endpoint> = pick(&|health| health.is_due(now));
        if self.are_enough(&due) {
            return due;
        }
        pick(&|health| health.is_due(now) || (health.is_trusted() && health.state() == State::Down))
    }

    /// Whether endpoints are of as many operators as have to agree.
    pub(crate) fn are_enough<'a>(&self, endpoints: impl IntoIterator<Item = &'a Endpoint>) -> bool {
        let operators: BTreeSet<_> = endpoints.into_iter().map(Endpoint::operator).collect();
        operators.len() >= self.needed()
    }

    /// Waits until the first endpoint may be asked again that asked for patience, if too few may be asked before and it is
    /// soon. Whether it waited.
    pub(crate) async fn wait_out(&self) -> bool {
        let now = point::now();
        let ends = self.members.iter().filter_map(|member| member.health(|h| h.patience_ends()));
        let Some(end) = ends.min().filter(|_| !self.are_enough(&self.due())) else { return false };
        let pause = end.saturating_duration_since(now);
        if pause > SHORT {
            return false;
        }
        point::pause(pause).await;
        true
    }

    /// Trusts endpoints of another chain again that serve the right one by now.
    async fn look_for_strays(&self) {
        let Some((id, genesis)) = self.chain.get().copied() else { return };
        let now = point::now();
        let strays = self.members.iter();
        let strays = strays.filter(|member| member.health(|h| h.is_worth_another_look(now)));
        all(strays.map(async |member| match member.identify(id, genesis).await {
            Ok(()) => member.health(|health| health.wrong_chain = None),
            Err(error) => member.distrust(&error),
        }))
        .await;
    }

    async fn look_at(&self, member: Endpoint) -> Option<(Endpoint, Look)> {
        let looked = async {
            if let Some((id, genesis)) = self.chain.get() {
                member.identify(*id, *genesis).await?;
            }
            member.look().await
        };
        match looked.await {
            Ok(look) => Some((member, look)),
            Err(error) => {
                member.distrust(&error);
                None
            }
        }
    }

    fn note_lags(&self, looks: &[(Endpoint, Look)]) {
        let claims =
            looks.iter().map(|(member, look)| (member.operator(), look.latest.block.number));
        let reached = self.reached(claims).unwrap_or_default();
        for (member, look) in looks {
            member.health(|health| {
                health.latest = Some(look.latest.block);
                health.finalised = look.finalised;
                if look.finalised.is_none() {
                    health.last_error = Some("it names no final block".into());
                }
                health.lag = reached.saturating_sub(look.latest.block.number);
            });
        }
    }

    /// Ways to the endpoints that agree on the final block, the preferred one first.
    pub(crate) async fn agreeing(&self) -> Vec<Wire> {
        let is_alone = self.is_alone();
        if !is_alone && !self.is_fresh() {
            // What it found is in the endpoints' health; what it did not find leaves nobody to ask.
            if let Err(error) = self.survey().await {
                tracing::debug!("{error}");
            }
        }
        let mut agreeing: Vec<_> = self
            .due()
            .into_iter()
            .filter(|member| is_alone || member.health(|health| health.agrees == Some(true)))
            .collect();
        agreeing.sort_by_key(|member| member.health(|health| health.state() != State::Ok));
        agreeing.iter().map(|member| member.wire().clone()).collect()
    }

    /// Ways to all endpoints of the right chain: a transaction is no secret, and a liar may pass it on.
    pub(crate) async fn reachable(&self) -> Vec<Wire> {
        if !self.is_alone() && !self.is_fresh() {
            self.agreeing().await;
        }
        let is_of_chain = |member: &&Endpoint| member.health(|health| health.wrong_chain.is_none());
        self.members.iter().filter(is_of_chain).map(|member| member.wire().clone()).collect()
    }

    fn is_fresh(&self) -> bool {
        let surveyed = *self.surveyed.lock().unwrap_or_else(PoisonError::into_inner);
        surveyed.is_some_and(|at| point::now().saturating_duration_since(at) < FRESH)
    }

    pub(crate) fn why_none_agrees(&self) -> String {
        self.no_agreement("on the final block").to_string()
    }

    pub(crate) fn no_agreement(&self, on: &str) -> Error {
        let said = self.report().into_iter().map(|report| {
            let reason = report.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!("{} is {}{reason}", report.operator, report.state)
        });
        Error::NoAgreement {
            needed: self.needed(),
            operators: self.operators(),
            on: on.to_owned(),
            said: said.collect::<Vec<_>>().join("; "),
        }
    }
}

/// What an endpoint has at a height: what it called final there, or what it has been asked for.
async fn vote(member: &Endpoint, look: &Look, number: u64) -> Option<Header> {
    match &look.final_header {
        Some(header) if header.block.number == number => Some(header.clone()),
        _ if look.latest.block.number < number => None,
        _ => member.block_if_any(number.into()).await,
    }
}

impl Endpoint {
    /// Takes note that it contradicted what is known.
    pub(crate) fn lied(&self, reason: String) {
        tracing::warn!(operator = self.operator(), "endpoint lies: {reason}");
        self.health(|health| health.lie = Some(reason));
    }

    /// Takes note of an answer that nothing is concluded from.
    pub(crate) fn distrust(&self, error: &Error) {
        match error {
            Error::Endpoint { request, source, .. }
                if matches!(**source, RpcError::DeserError { .. } | RpcError::NullResp) =>
            {
                let outcome = Outcome::Failed(format!("its answer to {request} is malformed"));
                self.health(|health| health.note(outcome, Instant::now()));
            }
            // The wire has taken note already, or it deserved the refusal.
            Error::Endpoint { .. } => {}
            Error::WrongChain { .. } | Error::WrongGenesis { .. } => {
                let outcome = Outcome::Failed(error.to_string());
                self.health(|health| {
                    health.wrong_chain = Some(error.to_string());
                    health.note(outcome, point::now());
                });
            }
            _ => {
                let outcome = Outcome::Failed(error.to_string());
                self.health(|health| health.note(outcome, point::now()));
            }
        }
    }
}
