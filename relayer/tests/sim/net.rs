//! The network between relayer and chain: a transport that answers in process, with faults.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use alloy::rpc::json_rpc::{
    ErrorPayload, RequestPacket, Response, ResponsePacket, ResponsePayload, SerializedRequest,
};
use alloy::{
    consensus::Transaction,
    primitives::{B256, Bytes},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::client::RpcClient,
    transports::{HttpError, RpcError, TransportError, TransportErrorKind, TransportFut},
};
use ledger::point::Side;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, value::RawValue};
use tower::Service;

use crate::{
    chain::{Chain, Tx},
    faults::Mix,
    rpc::{self, Answer, View, failure},
    trace::Trace,
    witness::Witness,
};

/// Where the running turn is to be cut, if it is.
#[derive(Debug, Default)]
struct Cut {
    /// Places to pass before the cut.
    countdown: Option<u32>,
    /// The place of the cut, whenever the run comes to it.
    at: Option<String>,
    fired: Option<String>,
    waker: Option<Waker>,
}

/// One node of the network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    /// Blocks that it lacks, for as many requests.
    pub(crate) behind: usize,
    pub(crate) for_requests: u32,
    /// Another branch than the canonical one, which it has meanwhile.
    fork: Option<View>,
    wrong_chain_for: u32,
}

/// Everything outside the process: chain, network, and the record of what happened.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) chain: Chain,
    pub(crate) trace: Trace,
    pub(crate) mix: Mix,
    /// Whether faults of the network strike.
    pub(crate) is_faulty: bool,
    pub(crate) nodes: Vec<Node>,
    /// Transactions on their way.
    pub(crate) late: Vec<Tx>,
    /// Attempts of the relayer that some node has had in its hands.
    pub(crate) broadcast: Vec<B256>,
    /// The node that may lie: one of three.
    liar: Option<usize>,
    rng: ChaCha8Rng,
    cut: Cut,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    outside: Arc<Mutex<Outside>>,
    witness: Witness,
    /// Held by the broadcast that the witness looks at.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Net {
    pub(crate) fn new(chain: Chain, mix: Mix, nodes: usize, seed: u64, witness: Witness) -> Self {
        let outside = Outside {
            chain,
            trace: Trace::default(),
            mix,
            is_faulty: false,
            nodes: vec![Node::default(); nodes],
            late: Vec::new(),
            broadcast: Vec::new(),
            liar: (nodes == 3).then(|| usize::try_from(seed % 3).expect("below 3")),
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x6e65_7477_6f72_6b00),
            cut: Cut::default(),
        };
        Self { outside: Arc::new(Mutex::new(outside)), witness, turn: Arc::default() }
    }

    pub(crate) fn outside(&self) -> MutexGuard<'_, Outside> {
        self.outside.lock().expect("nobody panics with the lock")
    }

    /// A provider that talks to one node.
    pub(crate) fn provider(&self, node: usize) -> DynProvider {
        let client = RpcClient::new(Wire { net: self.clone(), node }, true);
        ProviderBuilder::new().disable_recommended_fillers().connect_client(client).erased()
    }

    /// Cuts the next run after so many places, on one side or the other of a commit or a request.
    pub(crate) fn cut_after(&self, places: Option<u32>) {
        self.outside().cut = Cut { countdown: places, ..Cut::default() };
    }

    /// Cuts the next run at a place, if it comes to it.
    pub(crate) fn cut_at(&self, place: String) {
        self.outside().cut = Cut { at: Some(place), ..Cut::default() };
    }

    /// Hears of a place; true if the run ends there.
    pub(crate) fn pass(&self, name: &str, side: Side) -> bool {
        let mut outside = self.outside();
        let side_name = if side == Side::Before { "before" } else { "after" };
        if outside.cut.fired.is_some() {
            return true;
        }
        outside.trace.detail(|| format!("    {side_name} {name}"));
        let is_end = match &mut outside.cut.countdown {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let is_here = |at: &String| *at == format!("{side_name} {name}");
        let is_end = is_end || outside.cut.at.as_ref().is_some_and(is_here);
        if is_end {
            outside.cut.fired = Some(format!("{side_name} {name}"));
            if let Some(waker) = outside.cut.waker.take() {
                waker.wake();
            }
        }
        is_end
    }

    /// Runs a future to its end, or to the cut: then says where that was.
    pub(crate) async fn until_cut<T>(&self, run: impl Future<Output = T>) -> Result<T, String> {
        let mut run = std::pin::pin!(run);
        std::future::poll_fn(|context| {
            self.outside().cut.waker = Some(context.waker().clone());
            match run.as_mut().poll(context) {
                Poll::Ready(value) => Poll::Ready(Ok(value)),
                Poll::Pending => match &self.outside().cut.fired {
                    Some(place) => Poll::Ready(Err(place.clone())),
                    None => Poll::Pending,
                },
            }
        })
        .await
    }

    async fn request(
        &self,
        node: usize,
        request: SerializedRequest,
    ) -> Result<Response, TransportError> {
        let method = request.method().to_owned();
        let params: Value = request
            .params()
            .and_then(|params| serde_json::from_str(params.get()).ok())
            .unwrap_or_default();
        if method == "eth_sendRawTransaction" {
            self.look_at_broadcast(&params).await;
        }
        let answered = self.outside().carry_out(node, &method, &params);
        let payload = match answered? {
            Ok(value) => ResponsePayload::Success(raw(&value)),
            Err(failure) => ResponsePayload::Failure(ErrorPayload {
                code: failure.code,
                message: failure.message.into(),
                data: failure.data.map(|data| raw(&Value::String(data.to_string()))),
            }),
        };
        Ok(Response { id: request.id().clone(), payload })
    }

    /// Lets the witness look. Broadcasts to several nodes at once follow each other as they came, and none leaves after the
    /// cut, however long the witness's look takes: the trace must not depend on it.
    async fn look_at_broadcast(&self, params: &Value) {
        tokio::task::yield_now().await;
        let _turn = self.turn.lock().await;
        if let Some(problem) = self.witness.check_broadcast(params).await {
            self.outside().trace.fail(problem);
        }
        if self.outside().cut.fired.is_some() {
            std::future::pending().await
        }
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("JSON")
}

impl Outside {
    /// Whether the run that begins next is to be cut.
    pub(crate) const fn will_be_cut(&self) -> bool {
        self.cut.countdown.is_some() || self.cut.at.is_some()
    }

    /// The node's answer, or what the transport makes of its absence.
    fn carry_out(
        &mut self,
        node: usize,
        method: &str,
        params: &Value,
    ) -> Result<Answer, TransportError> {
        self.trace.counts.requests += 1;
        let answered = self.answered(node, method, params);
        let text = match &answered {
            Ok(Ok(value)) => format!("= {:016x}", digest(value)),
            Ok(Err(failure)) => format!("! {}", failure.message),
            Err(error) => format!("? {error}"),
        };
        self.trace.line(format!("  rpc {node} {method} {:016x} {text}", digest(params)));
        self.trace.detail(|| format!("    {params} -> {answered:?}"));
        answered
    }

    fn answered(
        &mut self,
        node: usize,
        method: &str,
        params: &Value,
    ) -> Result<Answer, TransportError> {
        let is_send = method == "eth_sendRawTransaction";
        if self.strikes(|mix| mix.lost) {
            self.trace.mark("a request was lost");
            return Err(TransportErrorKind::custom_str("connection refused"));
        }
        if self.strikes(|mix| mix.throttled) {
            self.trace.mark("a request met a rate limit");
            return Err(http(429, "too many requests"));
        }
        if self.strikes(|mix| mix.stale) {
            let head = self.chain.blocks.len() - 1;
            self.nodes[node].behind = self.rng.random_range(1..=8).min(head);
            self.nodes[node].for_requests = self.rng.random_range(1..=60);
            self.trace.mark("a node fell behind");
        }
        if self.strikes(|mix| mix.fork) {
            self.fork(node);
        }
        if self.strikes(|mix| mix.wrong_chain) {
            self.nodes[node].wrong_chain_for = self.rng.random_range(1..=20);
        }
        if is_send {
            return self.send(params);
        }
        let view = self.view(node);
        let mut answer = rpc::answer(&view, &self.chain.pool, method, params);
        // One of three nodes may lie; of one alone, everything has to be believed.
        if self.liar == Some(node)
            && matches!(method, "eth_getLogs" | "eth_getBlockReceipts" | "eth_getStorageAt")
            && self.strikes(|mix| mix.lie)
            && let Ok(value) = &mut answer
        {
            self.lie(method, value);
        }
        if self.nodes[node].wrong_chain_for > 0 && method == "eth_chainId" {
            self.trace.mark("a node named another chain");
            return Ok(Ok(Value::String("0x1".into())));
        }
        if self.strikes(|mix| mix.unheard) {
            self.trace.mark("an answer was lost");
            return Err(TransportErrorKind::custom_str("timed out"));
        }
        if self.strikes(|mix| mix.garbled) {
            self.trace.mark("an answer was garbled");
            return Err(http(502, "<html>bad gateway</html>"));
        }
        let is_there = answer.as_ref().is_ok_and(|value| !value.is_null());
        if is_there && may_be_null(method) && self.strikes(|mix| mix.null) {
            self.trace.mark("null hid what is there");
            return Ok(Ok(Value::Null));
        }
        Ok(answer)
    }

    /// Puts a node on a branch of its own for a while.
    fn fork(&mut self, node: usize) {
        let room = self.chain.height() - self.chain.finalised;
        if room < 2 {
            return;
        }
        let depth = self.rng.random_range(1..room.min(7));
        let mut other = self.chain.clone();
        other.roll_back(depth);
        for _ in 0..=depth {
            let (time, base_fee) = (other.head().header.timestamp + 13, other.next_base_fee());
            other.mine(&[], time, base_fee);
        }
        self.nodes[node].fork = Some(View::of(&other));
        self.nodes[node].for_requests = self.rng.random_range(1..=40);
        self.trace.mark("a node was on another fork");
    }

    /// Spoils what a liar says of logs and of the journal.
    fn lie(&mut self, method: &str, value: &mut Value) {
        let lists: Vec<&mut Vec<Value>> = match method {
            "eth_getLogs" => value.as_array_mut().into_iter().collect(),
            "eth_getBlockReceipts" => value
                .as_array_mut()
                .into_iter()
                .flatten()
                .filter_map(|receipt| receipt["logs"].as_array_mut())
                .collect(),
            "eth_getStorageAt" => {
                *value = Value::String(B256::repeat_byte(self.rng.random()).to_string());
                return self.trace.mark("a node lied about the journal");
            }
            _ => return,
        };
        let Some(logs) = lists.into_iter().find(|logs| !logs.is_empty()) else { return };
        let at = self.rng.random_range(0..logs.len());
        self.trace.mark(match self.rng.random_range(0..4) {
            0 => {
                logs.remove(at);
                "a node left a log out"
            }
            1 => {
                let mut invented = logs[logs.len() - 1].clone();
                invented["logIndex"] = Value::String("0x99".into());
                logs.push(invented);
                "a node invented a log"
            }
            2 if logs.len() > 1 => {
                logs.swap(0, 1);
                "a node told logs in another order"
            }
            _ => {
                let data = logs[at]["data"].as_str().unwrap_or("0x").to_owned();
                let end = if data.ends_with('0') { '1' } else { '0' };
                let kept = &data[..data.len().saturating_sub(1)];
                logs[at]["data"] = Value::String(format!("{kept}{end}"));
                "a node altered a log"
            }
        });
    }

    /// What the node has now; it catches up when it was asked often enough.
    fn view(&mut self, node: usize) -> View {
        let view = View::of(&self.chain);
        let node = &mut self.nodes[node];
        node.wrong_chain_for = node.wrong_chain_for.saturating_sub(1);
        node.for_requests = node.for_requests.saturating_sub(1);
        if node.for_requests == 0 {
            (node.behind, node.fork) = (0, None);
        }
        if let Some(fork) = &node.fork {
            return fork.clone();
        }
        view.behind(node.behind)
    }

    fn send(&mut self, params: &Value) -> Result<Answer, TransportError> {
        let bytes: Option<Bytes> =
            params.get(0).and_then(|raw| serde_json::from_value(raw.clone()).ok());
        let Some(bytes) = bytes else { return Ok(Err(failure(-32602, "no bytes"))) };
        let hash = alloy::primitives::keccak256(&bytes);
        let known = self.chain.seen.get(&hash).cloned();
        let tx = match known.map_or_else(|| rpc::decode(&bytes), Ok) {
            Ok(tx) => tx,
            Err(failure) => return Ok(Err(failure)),
        };
        if !self.broadcast.contains(&hash) {
            let sent = self.broadcast.iter().filter_map(|hash| self.chain.seen.get(hash));
            let is_replacement = sent
                .into_iter()
                .any(|sent| (sent.signer(), sent.nonce()) == (tx.signer(), tx.nonce()));
            self.trace.mark(match (tx.to() == Some(tx.signer()), is_replacement) {
                (true, _) => "a cancellation was sent",
                (false, true) => "a replacement was sent",
                (false, false) => "a first attempt was sent",
            });
            self.broadcast.push(hash);
        }
        if self.strikes(|mix| mix.says_yes) {
            self.trace.mark("a node said yes and dropped the transaction");
            return Ok(Ok(Value::String(hash.to_string())));
        }
        if self.strikes(|mix| mix.late) {
            self.trace.mark("a transaction arrived late");
            self.late.push(tx);
            return Err(TransportErrorKind::custom_str("timed out"));
        }
        if self.strikes(|mix| mix.twice) {
            self.trace.mark("a transaction arrived twice");
            if let Err(refusal) = self.chain.submit(tx.clone()) {
                self.trace.line(format!("  the first copy: {}", refusal.message()));
            }
        }
        let answer = self.chain.submit(tx);
        if self.strikes(|mix| mix.says_no) {
            self.trace.mark("a node took the transaction and said no");
            return match self.rng.random_range(0..3) {
                0 => Err(TransportErrorKind::custom_str("timed out")),
                1 => Ok(Err(failure(-32000, "nonce too low"))),
                _ => Ok(Err(failure(-32000, "internal error"))),
            };
        }
        Ok(match answer {
            Ok(hash) => Ok(Value::String(hash.to_string())),
            Err(refusal) => {
                self.trace.mark(match refusal {
                    crate::chain::Refusal::Known => "sent again what the pool knew",
                    crate::chain::Refusal::NonceTooLow => "sent again what was mined",
                    crate::chain::Refusal::Underpriced => "an older attempt was refused",
                    crate::chain::Refusal::NoMoney => "the pool refused for want of gas money",
                });
                Err(failure(-32000, refusal.message()))
            }
        })
    }

    fn strikes(&mut self, rate: impl Fn(&Mix) -> u32) -> bool {
        let strikes = self.is_faulty && Mix::strikes(rate(&self.mix), &mut self.rng);
        self.trace.counts.faults += u64::from(strikes);
        strikes
    }
}

fn may_be_null(method: &str) -> bool {
    matches!(
        method,
        "eth_getBlockByNumber"
            | "eth_getBlockByHash"
            | "eth_getBlockReceipts"
            | "eth_getTransactionByHash"
            | "eth_getTransactionReceipt"
    )
}

fn http(status: u16, body: &str) -> TransportError {
    RpcError::Transport(TransportErrorKind::HttpError(HttpError { status, body: body.into() }))
}

fn digest(value: &Value) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(value.to_string().as_bytes());
    hasher.finish()
}

/// One end of a connection to one node.
#[derive(Debug, Clone)]
struct Wire {
    net: Net,
    node: usize,
}

impl Service<RequestPacket> for Wire {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let Self { net, node } = self.clone();
        Box::pin(async move {
            Ok(match packet {
                RequestPacket::Single(request) => {
                    ResponsePacket::Single(net.request(node, request).await?)
                }
                RequestPacket::Batch(requests) => {
                    let mut answers = Vec::with_capacity(requests.len());
                    for request in requests {
                        answers.push(net.request(node, request).await?);
                    }
                    ResponsePacket::Batch(answers)
                }
            })
        })
    }
}
