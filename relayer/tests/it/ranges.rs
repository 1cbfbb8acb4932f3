//! Goal: an endpoint that serves short log ranges only is caught up with all the same.
//! Method: a proxy before the chain that refuses ranges of more than four blocks.
//! What would break it: a fixed range, or a range that never narrows.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use alloy::providers::{Provider, ProviderBuilder};
use indexer::{Endpoints, Indexer, Turn, Upstream};
use ledger::{Ledger, chain::ChainWriter};
use serde_json::Value;

use crate::{
    env::Env,
    proxy::{proxy, refusal},
};

const WIDEST: u64 = 4;

/// Whether a request is for the logs of too many blocks.
fn is_too_wide(request: &Value) -> bool {
    let number = |field: &str| {
        let text = request["params"][0][field].as_str()?.trim_start_matches("0x");
        u64::from_str_radix(text, 16).ok()
    };
    let range = number("fromBlock").zip(number("toBlock"));
    request["method"] == "eth_getLogs" && range.is_some_and(|(from, to)| to - from >= WIDEST)
}

#[tokio::test]
async fn an_endpoint_that_refuses_wide_ranges_is_asked_for_narrow_ones() {
    let env = Env::after_demo(30).await;
    let refused = Arc::new(AtomicU32::new(0));
    let count = refused.clone();
    let url = proxy(&env.anvil.url, move |request| {
        is_too_wide(request).then(|| {
            count.fetch_add(1, Ordering::Relaxed);
            refusal("block range is too wide")
        })
    })
    .await;

    let config = env.config();
    let provider = ProviderBuilder::new().connect_http(url.parse().unwrap()).erased();
    let upstream = Upstream { operator: "narrow".into(), provider, hidden: Vec::new() };
    let endpoints = Endpoints::new(vec![upstream], config.chain.contract, config.chain.finality);
    let ledger =
        Ledger::open(&env.folder.path().join("narrow.db"), config.identity()).await.unwrap();
    let mut indexer = Indexer::new(endpoints, ledger.clone()).await.unwrap();
    for turn in 0.. {
        assert!(turn < 200, "still not caught up");
        match indexer.turn().await {
            Ok(Turn::Idle) => break,
            Ok(_) => {}
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
    assert!(refused.load(Ordering::Relaxed) >= 3);
    let checkpoint = ChainWriter::new(ledger.clone()).checkpoint().await.unwrap().unwrap();
    let replay = indexer::replay::replay(&env.endpoints(), 0, &checkpoint).await.unwrap();
    assert!(replay.journal.count > 0);
    assert_eq!(ledger::verify::facts(&ledger, &replay.blocks, u64::MAX).await.unwrap(), []);
}
