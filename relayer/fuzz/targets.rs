//! What must hold for any bytes from outside: one function for each parser that reads them. The fuzzer drives them with
//! bytes of its own; `cargo test` replays the committed corpus, and changes of it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each target uses one function and fails by panicking"
)]

use alloy::{
    consensus::TxEnvelope,
    eips::eip2718::{Decodable2718, Encodable2718},
    primitives::{Address, B256, LogData, Signature, U256},
    rpc::types::Log,
};
use ledger::{Amount, Decimal, statement, workload::Record};
use relayer::{
    config::Config,
    intake::{self, Parsed},
    opinion,
};

/// What holds for any bytes.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const ALL: [(&str, Target); 11] = [
    ("earnings", earnings),
    ("workloads", workloads),
    ("payees", payees),
    ("manifests", manifests),
    ("configs", configs),
    ("rows", rows),
    ("logs", logs),
    ("signatures", signatures),
    ("amounts", amounts),
    ("transactions", transactions),
    ("answers", answers),
];

/// Daily earnings.
pub fn earnings(data: &[u8]) {
    file("20261120-20261121.json", data);
}

/// `workload/1`.
pub fn workloads(data: &[u8]) {
    file("day.jsonl", data);
}

/// `payee/1`: the first line decides, so that one is put before the bytes.
pub fn payees(data: &[u8]) {
    let first = br#"{"schema":"payee/1","machine":"m","address":"0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"}"#;
    file("payees.jsonl", &[first.as_slice(), b"\n", data].concat());
}

/// Both readings agree on every record; what is taken comes back from its stored form.
fn file(name: &str, data: &[u8]) {
    let product = intake::parse(name, data, "salad");
    let second = opinion::file(name, data, "salad");
    let (product, second) = match (product, second) {
        (Ok(product), Ok(second)) => (product, second.records),
        (Err(_), Err(_)) => return,
        (product, second) => panic!("one takes the file: {} {}", product.is_ok(), second.is_ok()),
    };
    match product {
        Parsed::Payees(entries) => {
            assert_eq!(entries.len(), second.len());
            for (entry, second) in entries.iter().zip(&second) {
                match (entry, second) {
                    (Ok((machine, address)), Ok(opinion::Said::Payee(other, payout))) => {
                        assert_eq!((machine, address), (other, payout));
                    }
                    (Err(rejection), Err(_)) => assert!(!rejection.reason.is_empty()),
                    other => panic!("{other:?}"),
                }
            }
        }
        Parsed::Work { records, .. } => {
            assert_eq!(records.len(), second.len());
            for (record, second) in records.iter().zip(&second) {
                match (record, second) {
                    (Ok(record), Ok(opinion::Said::Work(work))) => same(record, work),
                    (Err(rejection), Err(_)) => assert!(!rejection.reason.is_empty()),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

fn same(record: &Record, work: &opinion::Work) {
    let item = &record.item;
    assert_eq!((&item.source, &item.external_id), (&work.source, &work.external_id));
    assert_eq!((&item.organisation, &item.machine), (&work.organisation, &work.machine));
    assert_eq!((item.stopped_ms, record.payout), (work.stopped_ms, work.payout));
    assert_eq!(record.revision.revision, work.revision);
    assert_eq!(record.hold_reason().is_some(), work.digests_differ);
    let stored = Record::from_body(&record.body().unwrap()).unwrap();
    assert_eq!(stored, *record);
    assert_eq!(stored.content().unwrap(), record.content().unwrap());
}

/// What is read of a manifest is what was written, or nothing.
pub fn manifests(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(manifest) = opinion::Manifest::read(text) else { return };
    let case = opinion::Case { manifests: vec![manifest.clone()], ..Default::default() };
    let opinion = opinion::judge(&case);
    // Without events nothing settled; a manifest can differ from itself alone.
    assert_eq!(opinion.statements, 0);
    assert!(opinion.differences.iter().all(|difference| difference.epoch == Some(manifest.epoch)));
}

/// A configuration that is taken comes back from its written form; a complaint names no address of an endpoint.
pub fn configs(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, std::path::Path::new("inst")) {
        Ok(config) => {
            let written = toml::to_string(&config).unwrap();
            let again = Config::parse(&written, std::path::Path::new("inst")).unwrap();
            assert_eq!(toml::to_string(&again).unwrap(), written);
            assert!(config.policy.fee_bps <= 10_000);
            assert!(config.tokens.iter().all(|token| !token.usd_per_token.is_zero()));
        }
        Err(error) => {
            // What an address begins with is said as advice; no address is.
            let said = error.to_string().replace("http:// or https://", "");
            assert!(!said.contains("://"), "{error}");
        }
    }
}

/// Rows are taken or refused by both, and packed rows are the only form.
pub fn rows(data: &[u8]) {
    let product = contracts::rows::decode(data);
    let second = opinion::rows(data);
    assert_eq!(product.clone().ok(), second.ok());
    if let Ok(rows) = product {
        assert_eq!(contracts::rows::encode(&rows).unwrap(), data);
    }
}

/// A log is decoded by its first topic and its data as a whole, or not at all. Bytes: number of topics, topics, data.
pub fn logs(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let count = usize::from(count % 5);
    let Some((topics, rest)) = rest.split_at_checked(count * 32) else { return };
    let topics: Vec<B256> = topics.chunks(32).map(B256::from_slice).collect();
    let contract = Address::repeat_byte(7);
    let inner = LogData::new_unchecked(topics, rest.to_vec().into());
    let log =
        Log { inner: alloy::primitives::Log { address: contract, data: inner }, ..Log::default() };
    fact(&log, contract);
}

fn fact(log: &Log, contract: Address) {
    let first = indexer::fact(log, contract);
    assert_eq!(first.is_ok(), indexer::fact(log, contract).is_ok());
    if let Ok(fact) = first {
        assert!(!log.inner.data.topics().is_empty());
        assert_eq!(Some(fact.log_index), log.log_index.or(Some(0)));
    }
}

/// A signature is taken in one form only, and leads to the address that another library finds.
pub fn signatures(data: &[u8]) {
    let Some((digest, signature)) = data.split_at_checked(32) else { return };
    let digest = B256::from_slice(digest);
    let Ok(address) = statement::recover(digest, signature) else { return };
    assert_eq!(signature.len(), 65);
    assert!(matches!(signature[64], 27 | 28));
    let half: U256 =
        "57896044618658097711785492504343953926418782139537452191302581570759080747168"
            .parse()
            .unwrap();
    assert!(U256::from_be_slice(&signature[32..64]) <= half);
    let other = Signature::from_raw(signature).unwrap().recover_address_from_prehash(&digest);
    assert_eq!(other.unwrap(), address);
}

/// Decimals and amounts are read, printed and converted alike on both sides. Bytes: decimals, price, 0, rate.
pub fn amounts(data: &[u8]) {
    let Some((decimals, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (price, rate) = text.split_once('\0').unwrap_or((text, "1"));
    if let Ok(amount) = price.parse::<Amount>() {
        assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        assert!(price.parse::<Decimal>().is_ok() || amount.base_units() >= 10_u128.pow(30));
    }
    let product = price.parse::<Decimal>();
    let second = opinion::Decimal::read(price);
    assert_eq!(product.is_ok(), second.is_some(), "{price:?}");
    let (Ok(product), Some(second)) = (product, second) else { return };
    assert_eq!(product.to_string().parse::<Decimal>().unwrap(), product);
    assert_eq!(product.is_zero(), second.is_zero());
    let (Ok(rate), Some(second_rate)) = (rate.parse::<Decimal>(), opinion::Decimal::read(rate))
    else {
        return;
    };
    let decimals = decimals % 25;
    let most = U256::from(u128::MAX);
    let converted =
        product.convert(&rate, decimals).ok().map(|amount| U256::from(amount.base_units()));
    let bought = second.buys(&second_rate, decimals).filter(|amount| *amount <= most);
    assert_eq!(converted, bought, "{price} at {rate} with {decimals} decimals");
}

/// The bytes of a transaction have one meaning and one form.
pub fn transactions(data: &[u8]) {
    let mut rest = data;
    let Ok(transaction) = TxEnvelope::decode_2718(&mut rest) else { return };
    let used = data.len() - rest.len();
    let bytes = transaction.encoded_2718();
    let again = TxEnvelope::decode_2718(&mut bytes.as_slice()).unwrap();
    assert_eq!(again.tx_hash(), transaction.tx_hash());
    assert!(bytes.len() <= used.max(bytes.len()));
}

/// Answers of an endpoint: logs.
pub fn answers(data: &[u8]) {
    let Ok(logs) = serde_json::from_slice::<Vec<Log>>(data) else { return };
    for log in &logs {
        fact(log, log.address());
        let again: Log = serde_json::from_str(&serde_json::to_string(log).unwrap()).unwrap();
        assert_eq!(again, *log);
    }
}
