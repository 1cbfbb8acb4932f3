//! The journal over one event of each kind. `contracts/test/Vectors.t.sol` makes the contract emit the same.

use alloy::{
    primitives::{Address, B256, LogData, U256, address, keccak256},
    sol_types::{SolEvent, SolStruct},
};
use contracts::{Settlement, eip712::DepositKey, journal::Journal, rows};
use serde_json::{Value, json};

use crate::{SETTLEMENT, TOKEN, key_json, messages::signer, read, write_or_compare};

const REQUESTOR: Address = address!("4e00000000000000000000000000000000000001");
const FIRST: Address = address!("70de000000000000000000000000000000000001");
const SECOND: Address = address!("70de000000000000000000000000000000000002");
const THIRD: Address = address!("70de000000000000000000000000000000000003");
const MANIFEST: B256 = B256::repeat_byte(0xab);
const NOW: u32 = 1_700_000_000;

struct Event {
    name: &'static str,
    args: Value,
    log: LogData,
}

fn event<E: SolEvent>(name: &'static str, event: &E, args: Value) -> Event {
    Event { name, args, log: event.encode_log_data() }
}

fn events() -> Vec<Event> {
    let key = DepositKey {
        requestor: REQUESTOR,
        signer: signer(1),
        cosigner: Address::ZERO,
        token: TOKEN,
        salt: B256::ZERO,
    };
    let id = key.id();
    let packed = rows::encode(&[(1, 250), (2, 100)]).unwrap();
    let statement = contracts::eip712::Statement {
        key: key.clone(),
        epoch: 3,
        spent: 0,
        manifest: MANIFEST,
        rows: Vec::new().into(),
    };
    let digest = statement.eip712_signing_hash(&contracts::eip712::domain(1, SETTLEMENT));
    let ends = NOW + 7 * 24 * 60 * 60;
    vec![
        event(
            "TokenRegistered",
            &Settlement::TokenRegistered { token: TOKEN, decimals: 18, unit: 1_000_000_000_000 },
            json!({ "token": TOKEN, "decimals": 18, "unit": "1000000000000" }),
        ),
        event(
            "Registered",
            &Settlement::Registered { provider: 1, payout: FIRST },
            json!({ "provider": 1, "payout": FIRST }),
        ),
        event(
            "Registered",
            &Settlement::Registered { provider: 2, payout: SECOND },
            json!({ "provider": 2, "payout": SECOND }),
        ),
        event(
            "Deposited",
            &Settlement::Deposited { id, key: key.clone().into(), from: REQUESTOR, units: 1000 },
            json!({ "id": id, "key": key_json(&key), "from": REQUESTOR, "units": "1000" }),
        ),
        event(
            "Thawed",
            &Settlement::Thawed { id, units: 400, ends },
            json!({ "id": id, "units": "400", "ends": ends }),
        ),
        event(
            "Settled",
            &Settlement::Settled {
                id,
                epoch: 1,
                spent: 350,
                manifest: MANIFEST,
                rows: packed.clone().into(),
            },
            json!({
                "id": id, "epoch": 1, "spent": "350", "manifest": MANIFEST,
                "rows": alloy::primitives::Bytes::from(packed),
            }),
        ),
        event(
            "Skipped",
            &Settlement::Skipped { id, digest, reason: 1 },
            json!({ "id": id, "digest": digest, "reason": 1 }),
        ),
        event(
            "Claimed",
            &Settlement::Claimed {
                provider: 1,
                token: TOKEN,
                to: FIRST,
                units: 250,
                claimNonce: 0,
            },
            json!({ "provider": 1, "token": TOKEN, "to": FIRST, "units": "250", "claimNonce": "0" }),
        ),
        event(
            "ClaimFailed",
            &Settlement::ClaimFailed { provider: 2, token: TOKEN, units: 100 },
            json!({ "provider": 2, "token": TOKEN, "units": "100" }),
        ),
        event(
            "PayoutSet",
            &Settlement::PayoutSet { provider: 2, payout: THIRD, claimNonce: 1 },
            json!({ "provider": 2, "payout": THIRD, "claimNonce": "1" }),
        ),
        event(
            "Withdrawn",
            &Settlement::Withdrawn { id, to: THIRD, units: 400 },
            json!({ "id": id, "to": THIRD, "units": "400" }),
        ),
    ]
}

#[test]
fn journals_are_the_committed_ones() {
    let mut journal = Journal::default();
    let mut made = Vec::new();
    for Event { name, args, log } in events() {
        journal = journal.fold(&log);
        let raw: Vec<u8> =
            log.topics().iter().flatten().copied().chain(log.data.to_vec()).collect();
        made.push(json!({
            "name": name, "args": args, "topics": log.topics(), "data": log.data,
            "entry": keccak256(raw), "journal": journal.word(),
        }));
    }
    write_or_compare("journal", &json!({ "settlement": SETTLEMENT, "events": made }));
}

#[test]
fn every_word_of_the_journal_reads_back_and_counts() {
    let file = read("journal");
    for (index, event) in file["events"].as_array().unwrap().iter().enumerate() {
        let word: B256 = event["journal"].as_str().unwrap().parse().unwrap();
        let journal = Journal::from_word(word);
        assert_eq!(journal.count, index as u64 + 1);
        assert_eq!(journal.word(), word);
        assert_eq!(U256::from_be_bytes(word.0) & U256::from(u64::MAX), U256::from(journal.count));
    }
}
