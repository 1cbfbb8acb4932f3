//! An RPC endpoint, asked only for what the indexer needs, with answers checked for form.

use alloy::{
    eips::BlockNumberOrTag,
    primitives::{Address, B256},
    providers::{DynProvider, Provider},
    rpc::types::{Filter, Header, Log},
    transports::{RpcError, TransportErrorKind},
};
use ledger::chain::Block;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which blocks count as final. Belongs to the chain profile, chosen once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finality {
    /// The node's own `finalized` tag.
    Tag,
    /// So many blocks below the head, for chains without the tag.
    Depth(u64),
}

/// One RPC endpoint and the contract that is followed through it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    provider: DynProvider,
    contract: Address,
    finality: Finality,
}

impl Endpoint {
    /// An endpoint for the contract.
    pub const fn new(provider: DynProvider, contract: Address, finality: Finality) -> Self {
        Self { provider, contract, finality }
    }

    /// The contract that is followed.
    pub const fn contract(&self) -> Address {
        self.contract
    }

    /// The provider behind it.
    pub const fn provider(&self) -> &DynProvider {
        &self.provider
    }

    /// Chain id that the endpoint serves.
    pub async fn chain_id(&self) -> Result<u64> {
        self.provider.get_chain_id().await.map_err(failed("eth_chainId"))
    }

    /// The newest block.
    pub async fn latest(&self) -> Result<Block> {
        self.block(BlockNumberOrTag::Latest).await?.ok_or_else(|| Error::NoBlock("latest".into()))
    }

    /// Number of the newest final block, given the newest block's.
    pub async fn finalised(&self, latest: u64) -> Result<u64> {
        match self.finality {
            Finality::Depth(depth) => Ok(latest.saturating_sub(depth)),
            Finality::Tag => {
                let block = self.block(BlockNumberOrTag::Finalized).await?;
                Ok(block.map_or(0, |block| block.number))
            }
        }
    }

    /// The block at a height, if the endpoint has one.
    pub async fn block(&self, number: BlockNumberOrTag) -> Result<Option<Block>> {
        let block = self
            .provider
            .get_block_by_number(number)
            .await
            .map_err(failed("eth_getBlockByNumber"))?;
        Ok(block.map(|block| from_header(&block.header)))
    }

    /// The block with a hash, which the endpoint has just named.
    pub async fn block_by_hash(&self, hash: B256) -> Result<Block> {
        let block =
            self.provider.get_block_by_hash(hash).await.map_err(failed("eth_getBlockByHash"))?;
        let block = block.map(|block| from_header(&block.header));
        let block = block.ok_or_else(|| Error::NoBlock(hash.to_string()))?;
        if block.hash == hash {
            return Ok(block);
        }
        Err(Error::Inconsistent(format!("asked for block {hash}, got {}", block.hash)))
    }

    /// The contract's logs of one block, ordered.
    pub async fn logs_of(&self, block: &Block) -> Result<Vec<Log>> {
        let filter = Filter::new().address(self.contract).at_block_hash(block.hash);
        let logs = self.logs(&filter).await?;
        match logs.iter().find(|log| log.block_hash != Some(block.hash)) {
            None => Ok(logs),
            Some(log) => Err(Error::Inconsistent(format!(
                "asked for logs of block {}, got one of {:?}",
                block.hash, log.block_hash
            ))),
        }
    }

    /// The contract's logs of the blocks `from` to `to`, ordered.
    pub async fn logs_between(&self, from: u64, to: u64) -> Result<Vec<Log>> {
        let filter = Filter::new().address(self.contract).from_block(from).to_block(to);
        let logs = self.logs(&filter).await?;
        let is_outside = |log: &&Log| !log.block_number.is_some_and(|n| (from..=to).contains(&n));
        match logs.iter().find(is_outside) {
            None => Ok(logs),
            Some(log) => Err(Error::Inconsistent(format!(
                "asked for logs of blocks {from} to {to}, got one of {:?}",
                log.block_number
            ))),
        }
    }

    async fn logs(&self, filter: &Filter) -> Result<Vec<Log>> {
        let logs = self.provider.get_logs(filter).await.map_err(failed("eth_getLogs"))?;
        let places: Vec<_> = logs.iter().map(|log| (log.block_number, log.log_index)).collect();
        if !places.is_sorted_by(|a, b| a < b) {
            return Err(Error::Inconsistent("logs are out of order or repeated".into()));
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
            Some(log) => Err(Error::Inconsistent(format!("a log that was not asked for: {log:?}"))),
        }
    }
}

/// A header as the ledger needs it.
const fn from_header(header: &Header) -> Block {
    Block {
        number: header.inner.number,
        hash: header.hash,
        parent: header.inner.parent_hash,
        time: header.inner.timestamp,
    }
}

/// Names the request that failed, and takes the endpoint's address out of the failure.
pub(crate) fn failed(request: &'static str) -> impl FnOnce(RpcError<TransportErrorKind>) -> Error {
    move |source| Error::Endpoint { request, source: Box::new(without_url(source)) }
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

    use super::*;
    use crate::{chain_of, replay::journal_at};

    #[tokio::test]
    async fn failures_do_not_tell_the_address_of_the_endpoint() {
        let url = "http://127.0.0.1:1/v2/API-KEY".parse().unwrap();
        let provider = ProviderBuilder::new().connect_http(url).erased();
        let endpoint = Endpoint::new(provider, Address::ZERO, Finality::Tag);
        for error in [
            endpoint.chain_id().await.unwrap_err(),
            endpoint.logs_between(0, 1).await.unwrap_err(),
            journal_at(&endpoint, B256::ZERO).await.unwrap_err(),
        ] {
            assert!(!chain_of(&error).contains("API-KEY"), "{}", chain_of(&error));
            assert!(error.is_transient());
        }
    }
}
