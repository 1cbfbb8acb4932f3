//! Ids of deposits and of workloads.

use alloy::primitives::{Address, B256, address, b256, keccak256};
use contracts::eip712::DepositKey;
use ledger::manifest::Secret;
use serde_json::{Value, json};

use crate::{TOKEN, key_json, write_or_compare};

fn deposits() -> Vec<Value> {
    let hosted = DepositKey {
        requestor: address!("4e00000000000000000000000000000000000001"),
        signer: address!("a77e000000000000000000000000000000000002"),
        cosigner: Address::ZERO,
        token: TOKEN,
        salt: B256::ZERO,
    };
    let bound = DepositKey {
        signer: address!("a9e0000000000000000000000000000000000003"),
        cosigner: hosted.signer,
        salt: B256::with_last_byte(1),
        ..hosted
    };
    let ones = Address::repeat_byte(0xff);
    let edge = DepositKey {
        requestor: ones,
        signer: ones,
        cosigner: ones,
        token: ones,
        salt: B256::repeat_byte(0xff),
    };
    [DepositKey::default(), hosted, bound, edge]
        .iter()
        .map(|key| json!({ "key": key_json(key), "id": key.id() }))
        .collect()
}

/// A workload's salt, which the ledger keeps to itself.
fn salt(secret: B256, name: &[u8]) -> B256 {
    keccak256([secret.as_slice(), name].concat())
}

fn workloads() -> Vec<Value> {
    let operator = b256!("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let records = [
        ("acme", "salad", "job-1", 0),
        ("acme", "salad", "job-1", 1),
        ("acme", "salad", "job-2", 0),
        ("acme", "sala", "djob-1", 0),
        ("globex", "salad", "job-1", 0),
        ("acme", "", "", 0),
        ("", "salad", "job-1", u32::MAX),
        ("Организация", "ソース", "größe/ß 1\n\u{1f9ee}", 7),
    ];
    let vector = |(organisation, source, external_id, revision): (&str, &str, &str, u32)| {
        let secret = Secret::new(operator).of_organisation(organisation);
        let of_organisation = keccak256([operator.as_slice(), organisation.as_bytes()].concat());
        assert_eq!(serde_json::to_value(&secret).unwrap(), json!(of_organisation));
        let name = [source.as_bytes(), &[0], external_id.as_bytes(), &[0]].concat();
        let name = [name, revision.to_be_bytes().to_vec()].concat();
        json!({
            "operatorSecret": operator, "organisation": organisation,
            "organisationSecret": of_organisation, "source": source, "externalId": external_id,
            "revision": revision, "salt": salt(of_organisation, &name),
            "id": secret.workload_id(source, external_id, revision),
        })
    };
    records.into_iter().map(vector).collect()
}

#[test]
fn ids_are_the_committed_ones() {
    write_or_compare("ids", &json!({ "deposits": deposits(), "workloads": workloads() }));
}
