//! A JSON-RPC proxy between the server and its node that fails and lies, by seed and by rates that a test sets while it
//! runs. It speaks plain HTTP over sockets of its own, so that it can also cut connections and bodies.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy::{hex, primitives::keccak256};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// A key in the endpoint's address, as providers put it there. Nothing may print it.
pub(crate) const KEY: &str = "canary-endpoint-key-5d7f1c";
/// How long a stalled answer takes.
const STALL: Duration = Duration::from_millis(200);
/// Bytes of a body that is far too big.
const HUGE: usize = 1 << 20;

/// One way to fail or to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// A transaction is dropped, and its hash answered.
    DropSayYes,
    /// What was asked is done, and an error answered.
    DoSayNo,
    /// An error, and nothing is done.
    Refuse,
    /// Nothing for a while, then the connection is closed.
    Stall,
    /// A page for people.
    Html,
    /// JSON that ends in the middle.
    Truncated,
    /// The answer to another request.
    WrongId,
    /// A body without end.
    Huge,
    /// The connection is closed without an answer.
    Reset,
    /// 429 without a word about when to come back.
    TooMany,
    /// 429 with `Retry-After`.
    TooManyFor,
    /// 502.
    BadGateway,
    /// `null` for something that exists.
    Null,
    /// A call that returns nothing and an account without code, as from a node that lacks the state.
    Empty,
    /// The request is delivered twice.
    Twice,
    /// The head as it was some blocks ago.
    StaleHead,
    /// One log less.
    OmitLog,
    /// One log more.
    InventLog,
    /// One log otherwise.
    AlterLog,
    /// The id of another chain.
    WrongChain,
    /// The answer of a node on another fork.
    OtherFork,
}

impl Fault {
    /// Faults that any provider shows on a bad day.
    pub(crate) const WEATHER: [Self; 16] = [
        Self::DropSayYes,
        Self::DoSayNo,
        Self::Refuse,
        Self::Stall,
        Self::Html,
        Self::Truncated,
        Self::WrongId,
        Self::Huge,
        Self::Reset,
        Self::TooMany,
        Self::TooManyFor,
        Self::BadGateway,
        Self::Null,
        Self::Empty,
        Self::Twice,
        Self::StaleHead,
    ];
    /// Answers that are well-formed and false.
    pub(crate) const LIES: [Self; 5] =
        [Self::OmitLog, Self::InventLog, Self::AlterLog, Self::WrongChain, Self::OtherFork];

    /// Whether it needs an answer with logs in it.
    const fn is_of_logs(self) -> bool {
        matches!(self, Self::OmitLog | Self::InventLog | Self::AlterLog)
    }

    /// Whether it means anything for a method.
    fn concerns(self, method: &str) -> bool {
        match self {
            Self::DropSayYes => method == "eth_sendRawTransaction",
            Self::StaleHead => {
                matches!(method, "eth_blockNumber" | "eth_getBlockByNumber")
            }
            _ if self.is_of_logs() => matches!(
                method,
                "eth_getLogs" | "eth_getTransactionReceipt" | "eth_getBlockReceipts"
            ),
            Self::WrongChain => method == "eth_chainId",
            Self::Empty => matches!(method, "eth_call" | "eth_getCode"),
            Self::Null | Self::OtherFork => method != "eth_sendRawTransaction",
            _ => true,
        }
    }
}

/// How often which faults happen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mix {
    /// Of a thousand requests, so many meet a fault, if one concerns them.
    pub(crate) per_mille: u32,
    pub(crate) faults: Vec<Fault>,
}

impl Mix {
    pub(crate) fn of(per_mille: u32, faults: &[Fault]) -> Self {
        Self { per_mille, faults: faults.to_vec() }
    }
}

/// A running proxy.
pub(crate) struct Proxy {
    /// Its address, with the key.
    pub(crate) url: String,
    desk: Arc<Desk>,
    task: JoinHandle<()>,
}

/// What all connections share.
struct Desk {
    target: String,
    other_fork: Option<String>,
    client: reqwest::Client,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    mix: Mix,
    requests: u64,
    counts: BTreeMap<Fault, u64>,
}

/// What is sent back over the socket.
enum Reply {
    Http {
        status: &'static str,
        header: &'static str,
        body: Vec<u8>,
    },
    /// A body that is shorter than it says.
    Cut(Vec<u8>),
    Close,
}

impl Proxy {
    pub(crate) async fn new(target: &str, other_fork: Option<&str>, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v2/{KEY}", listener.local_addr().unwrap());
        let state = State {
            random: StdRng::seed_from_u64(seed),
            mix: Mix::default(),
            requests: 0,
            counts: BTreeMap::new(),
        };
        let desk = Arc::new(Desk {
            target: target.to_owned(),
            other_fork: other_fork.map(str::to_owned),
            client: reqwest::Client::new(),
            state: Mutex::new(state),
        });
        let shared = desk.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(shared.clone(), stream));
            }
        });
        Self { url, desk, task }
    }

    /// Changes what happens from the next request on.
    pub(crate) fn set(&self, mix: Mix) {
        self.desk.state.lock().unwrap().mix = mix;
    }

    /// Requests so far, and how many met which fault; lies about logs are those that were told.
    pub(crate) fn counts(&self) -> (u64, BTreeMap<Fault, u64>) {
        let state = self.desk.state.lock().unwrap();
        (state.requests, state.counts.clone())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers the requests of one connection.
async fn serve(desk: Arc<Desk>, stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    while let Some(body) = read_request(&mut stream).await {
        match desk.reply(&body).await {
            Reply::Http { status, header, body } => {
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{header}content-length: {}\r\n\r\n",
                    body.len()
                );
                let sent = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                if sent.is_err() {
                    return;
                }
            }
            Reply::Cut(body) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len() * 2);
                stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap_or_default();
                return;
            }
            Reply::Close => return,
        }
    }
}

/// The body of the next request, if one comes.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

impl Desk {
    /// Answers a request or a batch of requests. A batch meets one fault, drawn for its first request.
    async fn reply(&self, body: &[u8]) -> Reply {
        let request: Value = serde_json::from_slice(body).unwrap();
        let first = request.get(0).unwrap_or(&request);
        let method = first["method"].as_str().unwrap_or_default().to_owned();
        let fault = self.draw(&method);
        match fault {
            None | Some(Fault::DropSayYes | Fault::StaleHead | Fault::OtherFork) => {}
            Some(fault) => {
                if let Some(reply) = self.without_node(fault, first).await {
                    return reply;
                }
            }
        }
        let mut answer = match (&request, fault) {
            (Value::Array(requests), _) => {
                let mut answers = Vec::new();
                for request in requests {
                    answers.push(self.ask(request, fault).await);
                }
                Value::Array(answers)
            }
            _ => self.ask(&request, fault).await,
        };
        let is_done = fault.is_some_and(|fault| self.spoil(fault, &mut answer));
        let text = answer.to_string().into_bytes();
        match fault {
            Some(Fault::Truncated) => {
                Reply::Http { status: "200 OK", header: "", body: text[..text.len() / 2].to_vec() }
            }
            Some(Fault::Reset) => Reply::Cut(text[..text.len() / 2].to_vec()),
            Some(Fault::DoSayNo) if !is_done => error(first),
            _ => Reply::Http { status: "200 OK", header: "", body: text },
        }
    }

    /// Draws the fault that a request meets.
    fn draw(&self, method: &str) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        let State { random, mix, counts, .. } = &mut *state;
        let faults: Vec<_> =
            mix.faults.iter().copied().filter(|fault| fault.concerns(method)).collect();
        if random.random_range(0..1_000) >= mix.per_mille {
            return None;
        }
        let fault = faults.choose(random).copied()?;
        if !fault.is_of_logs() {
            *counts.entry(fault).or_default() += 1;
        }
        Some(fault)
    }

    /// Faults that come without asking the node.
    async fn without_node(&self, fault: Fault, request: &Value) -> Option<Reply> {
        let http = |status, header, body: &str| {
            Some(Reply::Http { status, header, body: body.as_bytes().to_vec() })
        };
        match fault {
            Fault::Refuse => Some(error(request)),
            Fault::Stall => {
                sleep(STALL).await;
                Some(Reply::Close)
            }
            Fault::Html => http("200 OK", "", "<html><body><h1>502 Bad Gateway</h1></body></html>"),
            Fault::Huge => http("200 OK", "", &" ".repeat(HUGE)),
            Fault::TooMany => http("429 Too Many Requests", "", "slow down"),
            Fault::TooManyFor => http("429 Too Many Requests", "retry-after: 1\r\n", "slow down"),
            Fault::BadGateway => {
                http("502 Bad Gateway", "", &format!("<pre>Cannot POST /v2/{KEY}</pre>"))
            }
            Fault::WrongChain => {
                let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": "0x1" });
                http("200 OK", "", &answer.to_string())
            }
            _ => None,
        }
    }

    /// Asks a node: the target, or the one on the other fork.
    async fn ask(&self, request: &Value, fault: Option<Fault>) -> Value {
        let mut request = request.clone();
        let mut target = &self.target;
        match fault {
            Some(Fault::DropSayYes) => {
                let raw = request["params"][0].as_str().unwrap_or_default();
                let hash = keccak256(hex::decode(raw).unwrap_or_default());
                return json!({ "jsonrpc": "2.0", "id": request["id"], "result": hash });
            }
            Some(Fault::StaleHead) => return self.stale(request).await,
            Some(Fault::OtherFork) => target = self.other_fork.as_ref().unwrap_or(target),
            Some(Fault::Twice) => drop(self.post(target, &request).await),
            _ => {}
        }
        if request["id"].is_null() {
            request["id"] = json!(1);
        }
        self.post(target, &request).await
    }

    async fn post(&self, target: &str, request: &Value) -> Value {
        let sent = self.client.post(target).json(request).send().await;
        sent.unwrap().json().await.unwrap()
    }

    /// The head as it was a few blocks ago.
    async fn stale(&self, mut request: Value) -> Value {
        let age = self.state.lock().unwrap().random.random_range(1..=5);
        let ask = json!({ "jsonrpc": "2.0", "id": 0, "method": "eth_blockNumber", "params": [] });
        let head = self.post(&self.target, &ask).await["result"].take();
        let head =
            u64::from_str_radix(head.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        let old = format!("{:#x}", head.saturating_sub(age));
        if request["method"] == "eth_blockNumber" {
            return json!({ "jsonrpc": "2.0", "id": request["id"], "result": old });
        }
        if request["params"][0] == "latest" {
            request["params"][0] = json!(old);
        }
        self.post(&self.target, &request).await
    }

    /// Changes an answer. Returns whether that is all that the fault does.
    fn spoil(&self, fault: Fault, answer: &mut Value) -> bool {
        let answer = if answer.is_array() { &mut answer[0] } else { answer };
        match fault {
            Fault::WrongId => answer["id"] = json!(999_999_999),
            Fault::Null => answer["result"] = Value::Null,
            Fault::Empty => answer["result"] = json!("0x"),
            _ if fault.is_of_logs() => self.spoil_logs(fault, answer),
            _ => return false,
        }
        true
    }

    fn spoil_logs(&self, fault: Fault, answer: &mut Value) {
        // Logs themselves, one tx receipt, or all of a block: each holds a list.
        let result = &mut answer["result"];
        let logs = match result {
            Value::Object(receipt) => receipt.get_mut("logs"),
            Value::Array(entries) if entries.iter().any(|entry| entry["logs"].is_array()) => {
                entries.iter_mut().find_map(|entry| match &entry["logs"] {
                    Value::Array(logs) if !logs.is_empty() => entry.get_mut("logs"),
                    _ => None,
                })
            }
            other => Some(other),
        };
        let Some(Value::Array(logs)) = logs else { return };
        if logs.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap();
        *state.counts.entry(fault).or_default() += 1;
        let index = state.random.random_range(0..logs.len());
        match fault {
            Fault::OmitLog => drop(logs.remove(index)),
            Fault::InventLog => {
                let mut log = logs.last().unwrap().clone();
                flip(&mut log);
                let number = log["logIndex"].as_str().unwrap().trim_start_matches("0x");
                let number = u64::from_str_radix(number, 16).unwrap();
                log["logIndex"] = json!(format!("{:#x}", number + 1));
                logs.push(log);
            }
            _ => flip(&mut logs[index]),
        }
    }
}

/// Turns the last digit of a log's data into another.
fn flip(log: &mut Value) {
    let mut data = log["data"].as_str().unwrap_or("0x").to_owned();
    if data.len() > 2 {
        let last = if data.ends_with('1') { '2' } else { '1' };
        data.pop();
        data.push(last);
    }
    log["data"] = json!(data);
}

fn error(request: &Value) -> Reply {
    let error = json!({ "code": -32_603, "message": format!("internal error at /v2/{KEY}") });
    let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "error": error });
    Reply::Http { status: "200 OK", header: "", body: answer.to_string().into_bytes() }
}
