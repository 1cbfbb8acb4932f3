//! What goes over the wire: one transport that watches an endpoint, and one that chooses among several.

use std::{
    collections::BTreeSet,
    fmt,
    future::{Future, poll_fn},
    iter::successors,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use alloy::{
    eips::eip2718::Encodable2718,
    primitives::{B256, Bytes, U64, U256, keccak256},
    rpc::{
        json_rpc::{
            ErrorPayload, RequestPacket, Response, ResponsePacket, ResponsePayload,
            SerializedRequest,
        },
        types::{Block, FeeHistory, Transaction, TransactionReceipt},
    },
    transports::{
        BoxTransport, HttpError, RpcError, TransportError, TransportErrorKind, TransportFut,
        TransportResult,
    },
};
use futures_util::future::join_all;
use ledger::point::{self, Side};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use tokio::time::timeout;
use tower::Service;

use super::{
    Endpoints, SHORT, agreement,
    health::{Health, Outcome},
    price,
};
use crate::endpoint::without_url;

/// Longest that an answer is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Longest that the other endpoints are waited for when one has taken a transaction.
const MOMENT: Duration = Duration::from_secs(1);
/// What is said of an endpoint that took longer.
pub(crate) const TIMED_OUT: &str = "it did not answer in time";
/// How often a read that brought nothing, or garbage, is asked again where another endpoint can answer.
const AGAIN: usize = 7;
/// How often where there is no other.
const AGAIN_ALONE: usize = 12;
/// Pause before it is asked again; twice as long before each further time.
const BREATH: Duration = Duration::from_millis(10);
/// Longest of these pauses.
const LONGEST_BREATH: Duration = Duration::from_millis(160);
/// JSON-RPC's own code of an error inside the server.
pub(crate) const INTERNAL_ERROR: i64 = -32603;
/// Requests to which `null` is an answer: that there is no such thing.
const MAY_BE_NULL: [&str; 5] = [
    "eth_getBlockByHash",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getTransactionByHash",
    "eth_getTransactionReceipt",
];
/// What a ballot says that tells of no such thing.
const NOTHING: B256 = B256::ZERO;
/// Most of an answer's text that is kept in an error.
const SHOWN: usize = 200;

/// The way to one endpoint. Every request passes here: it is bounded in time, its answer belongs to it, and the endpoint's
/// health follows from it.
#[derive(Clone)]
pub(crate) struct Wire {
    operator: Arc<str>,
    transport: BoxTransport,
    hidden: Arc<[String]>,
    health: Arc<Mutex<Health>>,
    /// Whether there is no other endpoint that could answer.
    is_alone: bool,
}

impl fmt::Debug for Wire {
    /// Without the transport, which may hold the endpoint's address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("operator", &self.operator).finish_non_exhaustive()
    }
}

impl Wire {
    pub(crate) fn new(
        operator: Arc<str>,
        transport: BoxTransport,
        hidden: Vec<String>,
        is_alone: bool,
    ) -> Self {
        Self { operator, transport, hidden: hidden.into(), health: Arc::default(), is_alone }
    }

    pub(crate) const fn is_alone(&self) -> bool {
        self.is_alone
    }

    pub(crate) fn operator(&self) -> &str {
        &self.operator
    }

    /// Looks at the endpoint's health, or changes it.
    pub(crate) fn health<T>(&self, look: impl FnOnce(&mut Health) -> T) -> T {
        look(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks, and asks again if it was a read that came to nothing: a turn of many reads would hardly ever come to its end
    /// through an endpoint that fails at every other one.
    async fn request(self, packet: RequestPacket) -> TransportResult<ResponsePacket> {
        let name = format!("rpc {}", method(&packet));
        let began = point::now();
        let mut breaths = self.breaths();
        loop {
            let answer = self.ask(&name, packet.clone()).await;
            let outcome = outcome(&name, &answer);
            let may_ask_again =
                !is_send(&packet) && point::now().duration_since(began) < self.persistence();
            let breath = breaths.next().filter(|_| may_ask_again);
            let pause = breath.and_then(|breath| self.pause(breath, &outcome, &packet, &answer));
            // Others who would ask heed a pause while it is waited out here.
            if pause.is_none() || matches!(outcome, Outcome::RateLimited(_)) {
                self.health(|health| health.note(outcome, point::now()));
            }
            let Some(pause) = pause else { return answer };
            point::pause(pause).await;
        }
    }

    /// Pauses before a read is asked again, as many as there may be.
    fn breaths(&self) -> impl Iterator<Item = Duration> + use<> {
        let longer = |breath: &Duration| Some((*breath * 2).min(LONGEST_BREATH));
        let times = if self.is_alone { AGAIN_ALONE } else { AGAIN };
        successors(Some(BREATH), longer).take(times)
    }

    /// How long after it was asked first a read may be asked again: not long where another endpoint can answer.
    const fn persistence(&self) -> Duration {
        if self.is_alone { PATIENCE } else { SHORT }
    }

    /// How long to wait before a read is asked again, if that may bring more than this answer did. From one endpoint alone,
    /// nothing better is to be had than what it answers next: its short pauses are waited out, and its answers have to be such.
    fn pause(
        &self,
        breath: Duration,
        outcome: &Outcome,
        packet: &RequestPacket,
        answer: &TransportResult<ResponsePacket>,
    ) -> Option<Duration> {
        match outcome {
            Outcome::RateLimited(patience) => {
                let pause = self.health(|health| health.patience(*patience)).max(breath);
                (self.is_alone && pause <= SHORT).then_some(pause)
            }
            _ if came_to_nothing(answer) => Some(breath),
            _ if self.is_alone && problem(packet, answer).is_some() => Some(breath),
            _ => None,
        }
    }

    async fn ask(&self, name: &str, packet: RequestPacket) -> TransportResult<ResponsePacket> {
        point::reach(name, Side::Before).await;
        let asked: Vec<_> = packet.requests().iter().map(|request| request.id().clone()).collect();
        let answer = timeout(PATIENCE, self.transport.clone().call(packet)).await;
        point::reach(name, Side::After).await;
        let Ok(answer) = answer else { return Err(failure(TIMED_OUT)) };
        let answer = self.readable(answer.map_err(|error| presentable(error, &self.hidden))?);
        let answered: Vec<_> = answer.responses().iter().map(|answer| &answer.id).collect();
        let is_complete =
            answered.len() == asked.len() && asked.iter().all(|id| answered.contains(&id));
        if is_complete { Ok(answer) } else { Err(failure("its answer is to another request")) }
    }

    /// The answer, without what its errors tell of the endpoint's address.
    fn readable(&self, mut answer: ResponsePacket) -> ResponsePacket {
        let responses = match &mut answer {
            ResponsePacket::Single(response) => std::slice::from_mut(response),
            ResponsePacket::Batch(responses) => responses,
        };
        for response in responses {
            if let ResponsePayload::Failure(error) = &mut response.payload {
                error.message = without(&error.message, &self.hidden).into();
                error.data.take_if(|data| tells(data.get(), &self.hidden));
            }
        }
        answer
    }
}

impl Service<RequestPacket> for Wire {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.transport.poll_ready(context)
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        Box::pin(self.clone().request(packet))
    }
}

/// Chooses the endpoint for each request of the relayer.
///
/// What is read comes from the first endpoint that agrees on the final block; if it fails, refuses, or its answer is empty or
/// no answer to that request, from the next one that agrees, and from no other. What follows from the state of a named block,
/// how many transactions an account has sent, and which block has which transactions is read from all of them, and enough
/// operators have to say so; of prices, each number is the one in the middle. What is sent goes to all, once each; one success is
/// success.
#[derive(Clone, Debug)]
pub(crate) struct Chooser(pub(crate) Endpoints);

impl Chooser {
    async fn request(self, packet: RequestPacket) -> TransportResult<ResponsePacket> {
        if is_send(&packet) { self.send(packet).await } else { self.read(packet).await }
    }

    /// Reads, and waits out an endpoint's short pause if that is all that is missing.
    async fn read(self, packet: RequestPacket) -> TransportResult<ResponsePacket> {
        if self.0.is_alone() {
            // What it asks for in answer to this request is waited out on the way to it.
            self.0.wait_out().await;
            return self.read_now(&packet).await;
        }
        let mut answer = self.read_now(&packet).await;
        for _ in 0..AGAIN {
            if is_answered(&answer) || !self.0.wait_out().await {
                break;
            }
            answer = self.read_now(&packet).await;
        }
        answer
    }

    async fn read_now(&self, packet: &RequestPacket) -> TransportResult<ResponsePacket> {
        if self.0.needed() > 1 {
            if asks_for_price(packet) {
                return self.price(packet).await;
            }
            if let Some(question) = Question::of(packet) {
                return self.vote(question, packet).await;
            }
        }
        let mut last = None;
        for wire in self.0.agreeing().await {
            let answer = wire.clone().request(packet.clone()).await;
            if let Some(problem) = problem(packet, &answer) {
                let outcome = Outcome::Failed(problem);
                wire.health(|health| health.note(outcome, point::now()));
            } else if is_answered(&answer) {
                return answer;
            }
            last = Some(answer);
        }
        last.unwrap_or_else(|| Err(failure(&self.0.why_none_agrees())))
    }

    /// What enough operators answer.
    async fn vote(
        &self,
        question: Question,
        packet: &RequestPacket,
    ) -> TransportResult<ResponsePacket> {
        let ((wires, answers), needed) = (self.ask_all(packet).await, self.0.needed());
        let said: Vec<_> = answers.iter().map(|answer| ballot(question, packet, answer)).collect();
        let votes = wires.iter().zip(&said);
        let votes = votes.filter_map(|(wire, said)| Some((wire.operator(), (*said)?)));
        let winner = match question {
            Question::State | Question::Block => agreement::agreed(votes, needed),
            Question::Past => {
                let votes: Vec<_> = votes.collect();
                let first = votes.first().map(|(_, said)| *said);
                agreement::agreed(votes, needed).or(first)
            }
            Question::Receipt => receipt_of(votes, needed),
            Question::Count => {
                let counts = votes.filter_map(|(operator, said)| {
                    Some((operator, u64::try_from(U256::from_be_bytes(said.0)).ok()?))
                });
                agreement::reached(counts, needed).map(|count| U256::from(count).into())
            }
        };
        let is_failure = winner.is_none();
        let mut answers = answers.into_iter().zip(said);
        let found =
            answers.find(|(_, said)| if is_failure { said.is_none() } else { *said == winner });
        found.map_or_else(|| self.disagree(packet), |(answer, _)| answer)
    }

    /// What each endpoint answers that agrees on the final block.
    async fn ask_all(
        &self,
        packet: &RequestPacket,
    ) -> (Vec<Wire>, Vec<TransportResult<ResponsePacket>>) {
        let wires = self.0.agreeing().await;
        let asked = wires.iter().map(|wire| wire.clone().request(packet.clone()));
        let answers = join_all(asked).await;
        (wires, answers)
    }

    /// What enough operators say of prices, number by number; where too few do, what one that does not tell says. That a node does
    /// not serve them leads to other prices, and what cannot be read, maybe of one alone, leads nowhere.
    async fn price(&self, packet: &RequestPacket) -> TransportResult<ResponsePacket> {
        let ((wires, answers), needed) = (self.ask_all(packet).await, self.0.needed());
        if let Some(priced) = priced(packet, &wires, &answers, needed) {
            return Ok(priced);
        }
        let (refused, unread): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .filter(|answer| result_of(packet, answer).is_none())
            .partition(|answer| weight(answer) == Weight::Refused);
        refused.into_iter().chain(unread).next().unwrap_or_else(|| self.disagree(packet))
    }

    fn disagree(&self, packet: &RequestPacket) -> TransportResult<ResponsePacket> {
        Err(failure(&self.0.no_agreement(&method(packet)).to_string()))
    }

    /// Sends to all, and has the first answer by which the transaction is there.
    async fn send(self, packet: RequestPacket) -> TransportResult<ResponsePacket> {
        let wires = self.0.reachable().await;
        let mut asked: Vec<TransportFut<'static>> =
            wires.into_iter().map(|mut wire| wire.call(packet.clone())).collect();
        let mut refusal = None;
        while !asked.is_empty() {
            let answer = first(&mut asked).await;
            if weight(&answer) == Weight::Taken {
                leave(asked).await;
                return answer;
            }
            if refusal.as_ref().is_none_or(|known| weight(&answer) > weight(known)) {
                refusal = Some(answer);
            }
        }
        refusal.unwrap_or_else(|| Err(failure("there is no endpoint to send to")))
    }
}

/// How much what came of sending a transaction says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Nothing came.
    Silence,
    /// It was refused for a reason that others may not have.
    Refused,
    /// It is there, by this answer or from before.
    Taken,
}

fn weight(answer: &TransportResult<ResponsePacket>) -> Weight {
    let Ok(answer) = answer else { return Weight::Silence };
    let mut errors = answer.responses().iter().filter_map(|answer| answer.payload.as_error());
    if errors.all(is_known) { Weight::Taken } else { Weight::Refused }
}

/// The first answer, taken out of what is waited for, which keeps its order.
async fn first(asked: &mut Vec<TransportFut<'static>>) -> TransportResult<ResponsePacket> {
    poll_fn(|context| {
        let mut waiting = asked.iter_mut().enumerate();
        let answered = waiting.find_map(|(index, answer)| match answer.as_mut().poll(context) {
            Poll::Ready(answer) => Some((index, answer)),
            Poll::Pending => None,
        });
        let Some((index, answer)) = answered else { return Poll::Pending };
        drop(asked.remove(index));
        Poll::Ready(answer)
    })
    .await
}

/// Gives those that one more success adds nothing to a moment, then lets them go on by themselves: a turn of many broadcasts
/// would wait for a silent endpoint at each.
async fn leave(asked: Vec<TransportFut<'static>>) {
    let mut rest = join_all(asked);
    if timeout(MOMENT, &mut rest).await.is_err() {
        let _left = tokio::spawn(rest);
    }
}

impl Service<RequestPacket> for Chooser {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        Box::pin(self.clone().request(packet))
    }
}

/// Whether there is an answer in what came back: a result, or the contract's refusal of a call. Other errors tell of the
/// endpoint, not of the chain.
fn is_answered(answer: &TransportResult<ResponsePacket>) -> bool {
    answer.as_ref().is_ok_and(|answer| {
        let mut errors = answer.responses().iter().filter_map(|answer| answer.payload.as_error());
        errors.all(is_refusal)
    })
}

/// Whether an error is what came of the call itself, and not of a limit or of a block that the endpoint does not have.
pub fn is_refusal(error: &ErrorPayload) -> bool {
    let text = error.message.to_lowercase();
    let words =
        ["revert", "out of gas", "outofgas", "gas required exceeds", "intrinsic gas", "evm error"];
    words.iter().any(|words| text.contains(words)) || error.as_revert_data().is_some()
}

/// Whether a refusal of a transaction says that it is there already. Nodes agree on no code, hence the words.
pub fn is_known(error: &ErrorPayload) -> bool {
    let text = error.message.to_lowercase();
    let words = ["already known", "already imported", "alreadyknown", "existing tx with same hash"];
    words.iter().any(|words| text.contains(words)) || text.starts_with("known transaction")
}

/// What more than one operator is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Something that follows from the state of a block that is named by its hash, and from nothing else.
    State,
    /// How many transactions an account has sent by now, of which not everybody has seen the newest.
    Count,
    /// Which block stands at a height, and which transactions it has.
    Block,
    /// Something that follows from the state of a block at a height, which many do not keep. Where too few do, what the first
    /// of them says is taken: it leads to a block whose transactions are voted on.
    Past,
    /// Where a transaction was mined and what it cost, which many do not keep. Where too few do and nobody contradicts, it is
    /// taken: that the block has the transaction is voted on.
    Receipt,
}

impl Question {
    fn of(packet: &RequestPacket) -> Option<Self> {
        let request = packet.as_single()?;
        let params = params(request)?;
        let block = &params[1];
        let is_hash = block["blockHash"].is_string()
            || block.as_str().is_some_and(|text| text.len() == 2 + 2 * B256::len_bytes());
        match request.method() {
            "eth_call" | "eth_getBalance" | "eth_getCode" | "eth_getTransactionCount"
                if is_hash =>
            {
                Some(Self::State)
            }
            "eth_getTransactionCount" if block == "latest" => Some(Self::Count),
            "eth_getTransactionCount" if is_height(block) => Some(Self::Past),
            "eth_getBlockByNumber" if is_height(&params[0]) => Some(Self::Block),
            "eth_getTransactionReceipt" => Some(Self::Receipt),
            _ => None,
        }
    }
}

/// What an answer says, if it says anything: a number itself, the hash of anything longer. How a refusal is worded differs
/// from node to node.
fn ballot(
    question: Question,
    packet: &RequestPacket,
    answer: &TransportResult<ResponsePacket>,
) -> Option<B256> {
    let Some(result) = result_of(packet, answer) else {
        let is_refusal = is_answered(answer) && problem(packet, answer).is_none();
        return is_refusal.then(|| keccak256("refused"));
    };
    match question {
        Question::Block => return contents(result.get()),
        Question::Receipt => return account(result.get()),
        Question::State | Question::Count | Question::Past => {}
    }
    let number = serde_json::from_str::<U64>(result.get()).ok();
    let said = number.map(|number| U256::from(number).into());
    Some(said.unwrap_or_else(|| keccak256(result.get().to_lowercase())))
}

/// What was answered to the only request, if it is an answer to it and no error.
fn result_of<'a>(
    packet: &RequestPacket,
    answer: &'a TransportResult<ResponsePacket>,
) -> Option<&'a RawValue> {
    if !is_answered(answer) || problem(packet, answer).is_some() {
        return None;
    }
    Some(answer.as_ref().ok()?.responses().first()?.payload.as_success()?)
}

/// Whether a block is named by its height.
fn is_height(block: &Value) -> bool {
    block
        .as_str()
        .is_some_and(|text| text.starts_with("0x") && text.len() < 2 + 2 * B256::len_bytes())
}

/// By what answers about blocks are compared: the block's hash and those of its transactions, each computed where its bytes
/// are told and can be read.
fn contents(result: &str) -> Option<B256> {
    let block: Value = serde_json::from_str(result).ok()?;
    if block.is_null() {
        return Some(NOTHING);
    }
    let mut hashes: Vec<B256> = vec![serde_json::from_value(block["hash"].clone()).ok()?];
    for tx in block["transactions"].as_array()? {
        let told = serde_json::from_value(tx.get("hash").unwrap_or(tx).clone()).ok()?;
        let read = serde_json::from_value::<Transaction>(tx.clone());
        hashes.push(read.map_or(told, |tx| keccak256(tx.inner.into_inner().encoded_2718())));
    }
    Some(keccak256(hashes.concat()))
}

/// By what answers about tx receipts are compared: what the relayer reads of them.
fn account(result: &str) -> Option<B256> {
    let receipt: Option<TransactionReceipt> = serde_json::from_str(result).ok()?;
    let Some(receipt) = receipt else { return Some(NOTHING) };
    let (number, hash) = receipt.block_number.zip(receipt.block_hash)?;
    let words = [
        U256::from(number).into(),
        hash,
        receipt.transaction_hash,
        U256::from(receipt.gas_used).into(),
        U256::from(receipt.effective_gas_price).into(),
        U256::from(u8::from(receipt.status())).into(),
    ];
    Some(keccak256(words.map(|word: B256| word.0).concat()))
}

/// The tx receipt that enough operators tell of, or that nobody contradicts who has one. Whoever has none has told nothing.
fn receipt_of<'a>(votes: impl Iterator<Item = (&'a str, B256)>, needed: usize) -> Option<B256> {
    let votes: Vec<_> = votes.collect();
    let told: Vec<_> = votes.iter().copied().filter(|(_, said)| *said != NOTHING).collect();
    let agreed = agreement::agreed(told.iter().copied(), needed);
    let operators: BTreeSet<_> = votes.iter().map(|(operator, _)| *operator).collect();
    if agreed.is_some() || operators.len() < needed {
        return agreed;
    }
    match told.first() {
        Some((_, first)) => told.iter().all(|(_, said)| said == first).then_some(*first),
        None => Some(NOTHING),
    }
}

/// What enough operators say of prices, number by number.
fn priced(
    packet: &RequestPacket,
    wires: &[Wire],
    answers: &[TransportResult<ResponsePacket>],
    needed: usize,
) -> Option<ResponsePacket> {
    let said = wires.iter().zip(answers).filter_map(|(wire, answer)| {
        Some((wire.operator(), serde_json::from_str(result_of(packet, answer)?.get()).ok()?))
    });
    let price = price::middle(&method(packet), &said.collect::<Vec<_>>(), needed)?;
    let payload = ResponsePayload::Success(serde_json::value::to_raw_value(&price).ok()?);
    let id = packet.requests().first()?.id().clone();
    Some(ResponsePacket::Single(Response { id, payload }))
}

/// What is wrong with an answer that is not an error: it is empty though there is something to answer, for a node that lacks
/// the state returns nothing from a call of a contract, or answers `null`; or it is not what is answered to such a request.
fn problem(packet: &RequestPacket, answer: &TransportResult<ResponsePacket>) -> Option<String> {
    let answers = answer.as_ref().ok()?.responses();
    packet.requests().iter().find_map(|request| {
        let answer = answers.iter().find(|answer| answer.id == *request.id())?;
        let method = request.method();
        let result = answer.payload.as_success()?.get();
        let is_empty = (result == "null"
            && (!MAY_BE_NULL.contains(&method) || asks_for_newest(request)))
            || (result == "\"0x\"" && method == "eth_call");
        if is_empty {
            return Some(format!("its answer to {method} is empty"));
        }
        (!is_answer_to(method, result)).then(|| format!("its answer to {method} is not one"))
    })
}

/// Whether it is asked what gas costs by now, which everybody tells by its own newest block.
fn asks_for_price(packet: &RequestPacket) -> bool {
    packet.as_single().is_some_and(|request| {
        matches!(request.method(), "eth_feeHistory" | "eth_maxPriorityFeePerGas")
            || asks_for_newest(request)
    })
}

/// Whether it is the newest block that is asked for, of which there always is one.
fn asks_for_newest(request: &SerializedRequest) -> bool {
    let is_newest = |params: Value| params[0] == "latest";
    request.method() == "eth_getBlockByNumber" && params(request).is_some_and(is_newest)
}

fn params(request: &SerializedRequest) -> Option<Value> {
    serde_json::from_str(request.params().map_or("[]", |params| params.get())).ok()
}

/// Whether a result can be read as the relayer reads it.
fn is_answer_to(method: &str, result: &str) -> bool {
    fn reads<T: DeserializeOwned>(result: &str) -> bool {
        serde_json::from_str::<T>(result).is_ok()
    }
    match method {
        "eth_blockNumber" | "eth_chainId" | "eth_estimateGas" | "eth_getTransactionCount" => {
            reads::<U64>(result)
        }
        "eth_gasPrice" | "eth_getBalance" | "eth_getStorageAt" | "eth_maxPriorityFeePerGas" => {
            reads::<U256>(result)
        }
        "eth_call" | "eth_getCode" => reads::<Bytes>(result),
        "eth_feeHistory" => reads::<FeeHistory>(result),
        // Of transactions in a block, some may be of a type that is not read here.
        "eth_getBlockByHash" | "eth_getBlockByNumber" => reads::<Option<Block<Value>>>(result),
        "eth_getTransactionByHash" => reads::<Option<Transaction>>(result),
        "eth_getTransactionReceipt" => reads::<Option<TransactionReceipt>>(result),
        _ => true,
    }
}

/// Whether there is no answer in what came back, and the next try may bring one soon.
fn came_to_nothing(answer: &TransportResult<ResponsePacket>) -> bool {
    match answer {
        Ok(answer) => answer
            .responses()
            .iter()
            .filter_map(|answer| answer.payload.as_error())
            .any(|error| error.code == INTERNAL_ERROR && !is_refusal(error)),
        Err(RpcError::Transport(TransportErrorKind::HttpError(error))) => error.status >= 500,
        Err(RpcError::Transport(TransportErrorKind::Custom(error))) => {
            error.to_string() != TIMED_OUT
        }
        Err(_) => false,
    }
}

/// Name of what is asked; of a batch, of its first request.
fn method(packet: &RequestPacket) -> String {
    packet.requests().first().map_or_else(|| "nothing".into(), |request| request.method().into())
}

fn is_send(packet: &RequestPacket) -> bool {
    packet.requests().iter().any(|request| request.method().starts_with("eth_sendRaw"))
}

pub(crate) fn failure(reason: &str) -> TransportError {
    TransportErrorKind::custom_str(reason)
}

/// The error without the endpoint's address, and with no more of what came back than a line.
fn presentable(error: TransportError, hidden: &[String]) -> TransportError {
    let without_addresses = |text: &str| without_addresses(&without(text, hidden));
    match without_url(error) {
        RpcError::DeserError { .. } => failure("its answer is not JSON-RPC"),
        RpcError::Transport(TransportErrorKind::HttpError(HttpError { status, body })) => {
            TransportErrorKind::http_error(status, without_addresses(&body))
        }
        RpcError::Transport(TransportErrorKind::HttpErrorWithRetryAfter { error, retry_after }) => {
            let body = without_addresses(&error.body);
            TransportErrorKind::http_error_with_retry_after(error.status, body, Some(retry_after))
        }
        other => other,
    }
}

fn tells(text: &str, hidden: &[String]) -> bool {
    hidden.iter().any(|part| text.contains(part.as_str()))
}

/// The text with every part of an address in it taken out.
fn without(text: &str, hidden: &[String]) -> String {
    hidden.iter().fold(text.to_owned(), |text, part| text.replace(part.as_str(), "(hidden)"))
}

/// The beginning of a text, with every address in it taken out: one may be the endpoint's own, with its key.
fn without_addresses(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN).collect();
    let words = shown.split_whitespace();
    let words = words.map(|word| if word.contains("://") { "(an address)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// What an answer says of the endpoint's health.
fn outcome(name: &str, answer: &TransportResult<ResponsePacket>) -> Outcome {
    match answer {
        Ok(answer) if name == "rpc eth_getLogs" && refuses_range(answer) => Outcome::Answered,
        Ok(answer) if wants_patience(answer) => Outcome::RateLimited(None),
        Ok(_) => Outcome::Answered,
        Err(RpcError::Transport(TransportErrorKind::HttpError(error))) if error.status == 429 => {
            Outcome::RateLimited(None)
        }
        Err(RpcError::Transport(TransportErrorKind::HttpErrorWithRetryAfter {
            error,
            retry_after,
        })) if matches!(error.status, 429 | 503) => Outcome::RateLimited(Some(*retry_after)),
        Err(RpcError::ErrorResp(payload)) if asks_for_patience(payload) => {
            Outcome::RateLimited(None)
        }
        Err(RpcError::ErrorResp(_)) => Outcome::Answered,
        Err(error) => Outcome::Failed(without_addresses(&error.to_string())),
    }
}

/// Whether an answer asks for patience, without saying for how much.
fn wants_patience(answer: &ResponsePacket) -> bool {
    answer.responses().iter().filter_map(|answer| answer.payload.as_error()).any(asks_for_patience)
}

/// Whether an error says to come back later, and nothing about what was asked.
pub fn asks_for_patience(error: &ErrorPayload) -> bool {
    let message = error.message.to_lowercase();
    let says_so = ["rate limit", "too many requests", "throughput", "requests per second"];
    matches!(error.code, 429 | -32005) || says_so.iter().any(|text| message.contains(text))
}

/// Whether a refusal is about the width of a log range rather than about how often is asked.
fn refuses_range(answer: &ResponsePacket) -> bool {
    answer.responses().iter().any(|answer| {
        let Some(error) = answer.payload.as_error() else { return false };
        let message = error.message.to_lowercase();
        ["range", "block", "result", "logs", "response size"]
            .iter()
            .any(|text| message.contains(text))
    })
}

/// Waits for all of them at once.
pub(crate) async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    join_all(futures).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_transaction_is_unknown_is_not_taken_for_its_being_known() {
        for (message, is_so) in [
            ("already known", true),
            ("Known transaction: 5f0c", true),
            ("transaction already imported", true),
            ("unknown transaction type", false),
            ("replacement transaction underpriced", false),
        ] {
            let error = ErrorPayload { code: -32_000, message: message.into(), data: None };
            assert_eq!(is_known(&error), is_so, "{message}");
        }
    }

    #[test]
    fn a_tx_receipt_that_too_few_keep_is_taken_unless_another_contradicts_it() {
        const ONE: B256 = B256::repeat_byte(1);
        const OTHER: B256 = B256::repeat_byte(2);
        let told = |votes: &[(&'static str, B256)]| receipt_of(votes.iter().copied(), 2);
        assert_eq!(told(&[("a", OTHER), ("b", ONE), ("c", ONE)]), Some(ONE), "outvoted");
        assert_eq!(told(&[("a", NOTHING), ("b", ONE), ("c", NOTHING)]), Some(ONE), "pruned");
        assert_eq!(told(&[("a", OTHER), ("b", ONE), ("c", NOTHING)]), None, "contradicted");
        assert_eq!(told(&[("a", NOTHING), ("b", NOTHING)]), Some(NOTHING), "nobody has it");
        assert_eq!(told(&[("a", ONE), ("a", ONE)]), None, "one operator answers");
        assert_eq!(told(&[]), None);
    }
}
