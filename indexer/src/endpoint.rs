//! One RPC endpoint, asked only for what the indexer needs, with answers checked for form.

use std::ptr;

use alloy::{
    eips::{BlockId, BlockNumberOrTag},
    primitives::{Address, B256, Bloom, U256},
    providers::{DynProvider, Provider, RootProvider},
    rpc::{
        client::RpcClient,
        types::{self, Filter, Log},
    },
    transports::{RpcError, TransportErrorKind, TransportResult},
};
use ledger::chain::Block;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    endpoints::{HeaderHash, Health, Wire, wire},
    proof,
};

/// Which blocks count as final. Belongs to the chain profile, chosen once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finality {
    /// The node's own `finalized` tag.
    Tag,
    /// So many blocks below the head, for chains without the tag.
    Depth(u64),
}

/// A header, as far as something is checked against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) block: Block,
    pub(crate) state_root: B256,
    pub(crate) receipts_root: B256,
    pub(crate) bloom: Bloom,
}

/// Where an endpoint stands.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) latest: Header,
    /// Number of the newest block that is final to it; `None` if it knows none, as one that has just started may not.
    pub(crate) finalised: Option<u64>,
    /// That block, if it came with the answer.
    pub(crate) final_header: Option<Header>,
}

/// One RPC endpoint and the contract that is followed through it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    wire: Wire,
    provider: DynProvider,
    contract: Address,
    finality: Finality,
    header_hash: HeaderHash,
}

impl Endpoint {
    pub(crate) fn new(
        wire: Wire,
        (contract, finality): (Address, Finality),
        header_hash: HeaderHash,
    ) -> Self {
        let provider = RootProvider::new(RpcClient::new(wire.clone(), false)).erased();
        Self { wire, provider, contract, finality, header_hash }
    }

    pub(crate) fn operator(&self) -> &str {
        self.wire.operator()
    }

    pub(crate) const fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(crate) fn computes_hashes(&self) -> bool {
        self.header_hash == HeaderHash::Computed
    }

    pub(crate) fn health<T>(&self, look: impl FnOnce(&mut Health) -> T) -> T {
        self.wire.health(look)
    }

    /// Whether both are one endpoint, whose health its clones share.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let health = |endpoint: &Self| endpoint.health(|health| ptr::from_ref::<Health>(health));
        health(self) == health(other)
    }

    pub(crate) const fn contract(&self) -> Address {
        self.contract
    }

    pub(crate) const fn provider(&self) -> &DynProvider {
        &self.provider
    }

    /// Checks, once until it fails, that it serves the chain.
    pub(crate) async fn identify(&self, expected: u64, genesis: B256) -> Result<()> {
        if self.health(|health| health.is_identified) {
            return Ok(());
        }
        let found = self.provider.get_chain_id().await.map_err(self.failed("eth_chainId"))?;
        if found != expected {
            return Err(Error::WrongChain { operator: self.operator().into(), expected, found });
        }
        // Asked for by its number: what an endpoint calls earliest is the oldest block that it has kept. One that has no
        // block 0 has a bad moment; it tells nothing about its chain.
        let first = self.block_there(0.into()).await?.block.hash;
        if first != genesis {
            let (operator, expected) = (self.operator().into(), genesis);
            return Err(Error::WrongGenesis { operator, expected, found: first });
        }
        self.health(|health| health.is_identified = true);
        Ok(())
    }

    /// Where it stands now.
    pub(crate) async fn look(&self) -> Result<Look> {
        let mut latest = self.block_there(BlockNumberOrTag::Latest).await?;
        let (finalised, final_header) = match self.finality {
            Finality::Depth(depth) => (Some(latest.block.number.saturating_sub(depth)), None),
            Finality::Tag => {
                let header = self.block(BlockNumberOrTag::Finalized).await?;
                (header.as_ref().map(|header| header.block.number), header)
            }
        };
        // Where blocks are final at once, one may have come while it was asked.
        if let Some(header) = &final_header
            && header.block.number > latest.block.number
        {
            latest = header.clone();
        }
        Ok(Look { latest, finalised, final_header })
    }

    /// The block at a height, if it has one.
    pub(crate) async fn block(&self, number: BlockNumberOrTag) -> Result<Option<Header>> {
        let block = self.find(|| self.provider.get_block_by_number(number)).await;
        let block = block.map_err(self.failed("eth_getBlockByNumber"))?;
        let Some(block) = block else { return Ok(None) };
        let header = self.header(&block.header)?;
        match number {
            BlockNumberOrTag::Number(number) if number != header.block.number => {
                Err(self
                    .inconsistent(format!("asked for block {number}, got {}", header.block.number)))
            }
            _ => Ok(Some(header)),
        }
    }

    /// What is asked for of a block. Where there is no other endpoint to ask, that it has no such thing has to be said twice:
    /// of the nodes behind one address, the next one may have it.
    pub(crate) async fn find<T, A>(&self, ask: impl Fn() -> A) -> TransportResult<Option<T>>
    where
        A: IntoFuture<Output = TransportResult<Option<T>>>,
    {
        match ask().await {
            Ok(None) if self.wire.is_alone() => ask().await,
            found => found,
        }
    }

    /// The block at a height that it must have.
    pub(crate) async fn block_there(&self, number: BlockNumberOrTag) -> Result<Header> {
        let block = self.block(number).await?;
        block.ok_or_else(|| self.no_block(number.to_string()))
    }

    /// The block at a height, or nothing whatever the reason, which is kept.
    pub(crate) async fn block_if_any(&self, number: BlockNumberOrTag) -> Option<Header> {
        match self.block(number).await {
            Ok(header) => header,
            Err(error) => {
                self.distrust(&error);
                None
            }
        }
    }

    /// The block with a hash that is known.
    pub(crate) async fn block_by_hash(&self, hash: B256) -> Result<Header> {
        let block = self.find(|| self.provider.get_block_by_hash(hash)).await;
        let block = block.map_err(self.failed("eth_getBlockByHash"))?;
        let block = block.ok_or_else(|| self.no_block(hash.to_string()))?;
        let header = self.header(&block.header)?;
        if header.block.hash == hash {
            return Ok(header);
        }
        Err(self.inconsistent(format!("asked for block {hash}, got {}", header.block.hash)))
    }

    /// The contract's logs of one block, ordered.
    pub(crate) async fn logs_of(&self, block: &Block) -> Result<Vec<Log>> {
        let filter = Filter::new().address(self.contract).at_block_hash(block.hash);
        let logs = match self.logs(&filter).await {
            // Anybody can fill a block with more of them than are served at once. Its tx receipts hold them all.
            Err(error) if range_refusal(&error).is_some() => {
                match proof::logs_in_receipts(self, block.hash).await {
                    Ok(Some(logs)) => self.ordered(logs)?,
                    _ => return Err(error),
                }
            }
            served => served?,
        };
        let place = (Some(block.hash), Some(block.number));
        match logs.iter().find(|log| (log.block_hash, log.block_number) != place) {
            None => Ok(logs),
            Some(log) => Err(self.inconsistent(format!(
                "asked for logs of block {} with hash {}, got one of {:?} with hash {:?}",
                block.number, block.hash, log.block_number, log.block_hash
            ))),
        }
    }

    /// The contract's logs of the blocks `from` to `to`, ordered.
    pub(crate) async fn logs_between(&self, from: u64, to: u64) -> Result<Vec<Log>> {
        let filter = Filter::new().address(self.contract).from_block(from).to_block(to);
        let logs = self.logs(&filter).await?;
        let is_outside = |log: &&Log| !log.block_number.is_some_and(|n| (from..=to).contains(&n));
        match logs.iter().find(is_outside) {
            None => Ok(logs),
            Some(log) => Err(self.inconsistent(format!(
                "asked for logs of blocks {from} to {to}, got one of {:?}",
                log.block_number
            ))),
        }
    }

    async fn logs(&self, filter: &Filter) -> Result<Vec<Log>> {
        let logs = self.provider.get_logs(filter).await.map_err(self.failed("eth_getLogs"))?;
        self.ordered(logs)
    }

    /// The logs, if they are the contract's, in order and complete.
    fn ordered(&self, logs: Vec<Log>) -> Result<Vec<Log>> {
        let places: Vec<_> = logs.iter().map(|log| (log.block_number, log.log_index)).collect();
        if !places.is_sorted_by(|a, b| a < b) {
            return Err(self.inconsistent("logs are out of order or repeated".into()));
        }
        let is_bad = |log: &&Log| {
            log.removed
                || log.address() != self.contract
                || log.block_hash.is_none()
                || log.log_index.is_none()
                || log.transaction_hash.is_none()
        };
        match logs.iter().find(is_bad) {
            None => Ok(logs),
            Some(log) => Err(self.inconsistent(format!("a log that was not asked for: {log:?}"))),
        }
    }

    /// Takes note that a range of so many blocks was refused, if that is what the error says.
    pub(crate) fn narrow(&self, error: &Error, asked: u64) -> bool {
        let Some(hint) = range_refusal(error) else { return false };
        self.health(|health| health.narrow(asked, hint));
        true
    }

    /// Narrows ranges after one that did not get through, to what its refusal names or to half. What others refused of the same
    /// range may have narrowed it already.
    pub(crate) fn narrow_after(&self, error: &Error, asked: u64) {
        if self.health(|health| health.span()) >= asked && !self.narrow(error, asked) {
            self.health(|health| health.narrow(asked, None));
        }
    }

    /// A word of the contract's storage in the state of a block, or nothing whatever the reason.
    pub(crate) async fn word_if_any(&self, block: B256, slot: U256) -> Option<U256> {
        let call = self.provider.get_storage_at(self.contract, slot).block_id(BlockId::hash(block));
        call.await.ok()
    }

    /// A header, whose hash is computed if the chain profile does not say that it cannot be. Heights and times that the ledger
    /// cannot hold are of no chain.
    fn header(&self, header: &types::Header) -> Result<Header> {
        // Times are milliseconds there.
        let numbers = [
            ("number", header.inner.number, i64::MAX.unsigned_abs()),
            ("time", header.inner.timestamp, i64::MAX.unsigned_abs() / 1000),
        ];
        if let Some((field, number, most)) = numbers.iter().find(|(_, number, most)| number > most)
        {
            let hash = header.hash;
            return Err(self.inconsistent(format!(
                "the {field} of its block {hash} is {number}, of a chain it is at most {most}"
            )));
        }
        if self.header_hash == HeaderHash::Computed {
            let computed = header.inner.hash_slow();
            if computed != header.hash {
                return Err(self.inconsistent(format!(
                    "the fields of block {} hash to {computed}, not to {}",
                    header.inner.number, header.hash
                )));
            }
        }
        Ok(Header {
            block: Block {
                number: header.inner.number,
                hash: header.hash,
                parent: header.inner.parent_hash,
                time: header.inner.timestamp,
            },
            state_root: header.inner.state_root,
            receipts_root: header.inner.receipts_root,
            bloom: header.inner.logs_bloom,
        })
    }

    /// Names the request that failed, and takes the endpoint's address out of the failure.
    pub(crate) fn failed(
        &self,
        request: &'static str,
    ) -> impl FnOnce(RpcError<TransportErrorKind>) -> Error {
        let operator = self.operator().to_owned();
        move |source| Error::Endpoint { operator, request, source: Box::new(without_url(source)) }
    }

    pub(crate) fn inconsistent(&self, problem: String) -> Error {
        Error::Inconsistent { operator: self.operator().to_owned(), problem }
    }

    /// Its block is not the one that the others have at that height.
    pub(crate) fn departs(&self, theirs: &Block, agreed: &Block) -> Error {
        let (number, theirs, agreed) = (theirs.number, told(theirs, agreed), told(agreed, theirs));
        self.inconsistent(format!("its block {number} is {theirs}, the others agree on {agreed}"))
    }

    /// What it has above the checkpoint does not follow the checkpoint.
    pub(crate) fn breaks_off(&self, checkpoint: B256, next: &Block) -> Error {
        let (number, parent) = (next.number, next.parent);
        self.inconsistent(format!(
            "block {number} follows {parent}, the checkpoint is {checkpoint}"
        ))
    }

    pub(crate) fn no_block(&self, block: String) -> Error {
        Error::NoBlock { operator: self.operator().to_owned(), block }
    }
}

/// A block's hash, with what else is told of it where that is what tells it from another.
pub(crate) fn told(block: &Block, other: &Block) -> String {
    let Block { hash, parent, time, .. } = block;
    if *hash != other.hash {
        return hash.to_string();
    }
    format!("{hash} after {parent} at {time}")
}

/// Whether an error refuses a range of blocks for its width or for what is in it, and which width it names.
#[allow(clippy::option_option, reason = "whether, and if so with which hint, if any")]
pub(crate) fn range_refusal(error: &Error) -> Option<Option<u64>> {
    let Error::Endpoint { source, .. } = error else { return None };
    let message = match &**source {
        RpcError::ErrorResp(payload) => payload.message.to_lowercase(),
        RpcError::Transport(TransportErrorKind::HttpError(error))
            if matches!(error.status, 400 | 413) =>
        {
            error.body.to_lowercase()
        }
        // A range that takes too long is too wide as well.
        RpcError::Transport(TransportErrorKind::Custom(inner))
            if inner.to_string().contains(wire::TIMED_OUT) =>
        {
            return Some(None);
        }
        _ => return None,
    };
    let is_about_width = ["range", "block", "result", "logs", "response size", "too many", "limit"]
        .iter()
        .any(|text| message.contains(text));
    is_about_width.then(|| width_in(&message))
}

/// The width that a refusal names: the one between two heights in brackets, or the number after a word of limit.
fn width_in(message: &str) -> Option<u64> {
    let heights: Vec<u64> = message
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .collect();
    if let [from, to] = heights[..] {
        return to.checked_sub(from).and_then(|blocks| blocks.checked_add(1));
    }
    let mut words = message.split(|c: char| !c.is_ascii_alphanumeric() && c != ',');
    words.find(|word| {
        ["limit", "limited", "max", "maximum", "most", "up", "exceed", "exceeds", "than"]
            .contains(word)
    })?;
    words.find_map(|word| word.replace(',', "").parse().ok())
}

/// The error without the endpoint's address, which often holds a key.
pub fn without_url(error: RpcError<TransportErrorKind>) -> RpcError<TransportErrorKind> {
    let RpcError::Transport(TransportErrorKind::Custom(inner)) = error else { return error };
    let inner = match inner.downcast::<reqwest::Error>() {
        Ok(error) => Box::new(error.without_url()),
        Err(other) => other,
    };
    RpcError::Transport(TransportErrorKind::Custom(inner))
}

#[cfg(test)]
mod tests {
    use alloy::providers::ProviderBuilder;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{Endpoints, Upstream, chain_of};

    #[test]
    fn the_width_that_a_refusal_names_is_found() {
        for (message, width) in [
            ("query returned more than 10000 results", Some(10_000)),
            ("block range is too wide", None),
            ("requested range exceeds the limit 500", Some(500)),
            ("eth_getLogs is limited to a 1,024 block range", Some(1_024)),
            ("you can make requests with up to a 2000 block range", Some(2_000)),
            ("this block range should work: [0x10, 0x1f]", Some(16)),
        ] {
            assert_eq!(width_in(message), width, "{message}");
        }
    }

    /// A server that gives the same answer to everything, and its address, with a key in it.
    async fn gateway(status: &str, body: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v2/API-KEY", listener.local_addr().unwrap());
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                drop(client.read(&mut [0; 4096]).await);
                drop(client.write_all(answer.as_bytes()).await);
            }
        });
        url
    }

    #[tokio::test]
    async fn an_answer_that_repeats_the_address_is_told_without_it() {
        let error = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32000,"message":"no plan for API-KEY","data":"API-KEY"}}"#;
        for (status, body) in
            [("404 Not Found", "<pre>Cannot POST /v2/API-KEY</pre>"), ("200 OK", error)]
        {
            let url = gateway(status, body).await.parse().unwrap();
            let provider = ProviderBuilder::new().connect_http(url).erased();
            let hidden = vec!["API-KEY".into()];
            let upstream = Upstream { operator: "somebody".into(), provider, hidden };
            let endpoints = Endpoints::new(vec![upstream], Address::ZERO, Finality::Tag);
            let error = endpoints.members()[0].provider().get_chain_id().await.unwrap_err();
            let shown = format!("{error:?} {error} {:?}", endpoints.report());
            assert!(!shown.contains("API-KEY") && shown.contains("(hidden)"), "{shown}");
        }
    }

    #[tokio::test]
    async fn failures_do_not_tell_the_address_of_the_endpoint() {
        let url = "http://127.0.0.1:1/v2/API-KEY".parse().unwrap();
        let provider = ProviderBuilder::new().connect_http(url).erased();
        let upstream =
            Upstream { operator: "somebody".into(), provider, hidden: vec!["API-KEY".into()] };
        let endpoints = Endpoints::new(vec![upstream], Address::ZERO, Finality::Tag);
        let endpoint = &endpoints.members()[0];
        for error in [
            endpoint.identify(1, B256::ZERO).await.unwrap_err(),
            endpoint.logs_between(0, 1).await.unwrap_err(),
            endpoints.look().await.unwrap_err(),
        ] {
            assert!(!chain_of(&error).contains("API-KEY"), "{}", chain_of(&error));
            assert!(error.is_transient());
        }
        let shown = format!("{endpoints:?} {endpoint:?} {:?}", endpoints.report());
        assert!(!shown.contains("API-KEY") && shown.contains("somebody"), "{shown}");
        let error = endpoints.provider().get_chain_id().await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("API-KEY"), "{error:?}");
    }
}
