//! Reorgs on a real chain: facts go with their blocks, statuses fall back, and what was sent is sent again.

use alloy::providers::Provider;
use indexer::{Endpoints, Finality, Indexer, Turn, Upstream};
use ledger::{
    Ledger,
    chain::ChainWriter,
    read::{Reader, Table},
};
use relayer::{keys::Keys, turn::Relayer};

use crate::env::{Env, rpc};

async fn index(indexer: &mut Indexer) -> Vec<Turn> {
    let mut turns = Vec::new();
    loop {
        match indexer.turn().await.unwrap() {
            Turn::Idle => return turns,
            turn => turns.push(turn),
        }
    }
}

#[tokio::test]
async fn a_settled_statement_that_a_reorg_drops_is_settled_again() {
    let env = Env::after_demo(30).await;
    let config = env.config();
    let provider = env.provider();
    let ledger =
        Ledger::open(&config.path(&config.files.database), config.identity()).await.unwrap();
    let endpoints = env.endpoints();
    let mut indexer = Indexer::new(endpoints.clone(), ledger.clone()).await.unwrap();
    let reader = Reader::new(ledger.clone());
    index(&mut indexer).await;
    let settled = reader.count(Table::Settled).await.unwrap();

    // More work, stated and sent in one turn, settled in the newest block.
    let book = ledger::book::BookWriter::new(ledger.clone());
    let organisation = &config.organisations[0].name;
    let line = format!(
        r#"{{"schema":"workload/1","source":"test","external_id":"1","organisation":"{organisation}","machine":"new","provider":"{}","kind":"render","started_at":"2026-11-20T07:00:00Z","ended_at":"2026-11-20T09:00:00Z","result":"completed","price":{{"currency":"USD","amount":"0.050000"}}}}"#,
        relayer::generate::payout_address("owner 1 of seed 1")
    );
    let parsed = relayer::intake::parse("more.jsonl", line.as_bytes(), "salad").unwrap();
    relayer::intake::take_in(&book, &parsed, &config.tariff(), 0).await.unwrap();
    book.close_until(i64::MAX, 0).await.unwrap();
    let keys = Keys::open(&config).unwrap();
    let relayer = Relayer::new(config.clone(), keys, ledger.clone(), endpoints);
    let report = relayer.turn(0, false).await.unwrap();
    assert_eq!((report.signed, report.sent), (1, 1), "{report:?}");
    rpc(&provider, "anvil_mine", "[1]").await;
    index(&mut indexer).await;
    assert_eq!(reader.count(Table::Settled).await.unwrap(), settled + 1);

    // Its block and the next are replaced by empty ones: the statement is unsettled again, and its transaction is gone.
    rpc(&provider, "evm_setAutomine", "[false]").await;
    let head = provider.get_block_number().await.unwrap();
    rpc(&provider, "anvil_rollback", "[2]").await;
    rpc(&provider, "anvil_dropAllTransactions", "[]").await;
    rpc(&provider, "anvil_mine", "[3]").await;
    let turns = index(&mut indexer).await;
    assert!(matches!(turns[0], Turn::RolledBack(fork) if fork < head), "{turns:?}");
    assert_eq!(reader.count(Table::Settled).await.unwrap(), settled);

    // The next turn finds the slot open and sends the same bytes.
    let again = relayer.turn(1, false).await.unwrap();
    assert_eq!((again.signed, again.sent), (0, 0), "{again:?}");
    rpc(&provider, "anvil_mine", "[1]").await;
    index(&mut indexer).await;
    assert_eq!(reader.count(Table::Settled).await.unwrap(), settled + 1);
}

#[tokio::test]
async fn an_indexer_that_starts_anew_comes_to_the_same_facts() {
    let env = Env::after_demo(30).await;
    let config = env.config();
    let endpoints = env.endpoints();
    let path = env.folder.path().join("anew.db");
    let ledger = Ledger::open(&path, config.identity()).await.unwrap();
    let mut indexer = Indexer::new(endpoints.clone(), ledger.clone()).await.unwrap();
    index(&mut indexer).await;
    let checkpoint = ChainWriter::new(ledger.clone()).checkpoint().await.unwrap().unwrap();
    let replay = indexer::replay::replay(&endpoints, 0, &checkpoint).await.unwrap();
    assert_eq!(replay.journal, replay.contract_journal);
    assert!(replay.journal.count > 0);
    assert_eq!(ledger::verify::facts(&ledger, &replay.blocks, u64::MAX).await.unwrap(), []);
    assert_eq!(index(&mut indexer).await, [], "nothing is left to do after a restart");
}

#[tokio::test]
async fn refuses_an_endpoint_of_another_chain() {
    let env = Env::new().await;
    let identity = ledger::Identity {
        chain_id: 1,
        contract: alloy::primitives::Address::ZERO,
        genesis: alloy::primitives::B256::ZERO,
        start_block: 0,
    };
    let ledger = Ledger::open(&env.folder.path().join("other.db"), identity).await.unwrap();
    let upstream =
        Upstream { operator: "default".into(), provider: env.provider(), hidden: Vec::new() };
    let endpoints = Endpoints::new(vec![upstream], identity.contract, Finality::Tag);
    let error = Indexer::new(endpoints, ledger).await.unwrap_err();
    let is_told = matches!(error, indexer::Error::WrongChain { expected: 1, found: 31337, .. });
    assert!(is_told, "{error}");
}
