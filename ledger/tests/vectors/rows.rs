//! Packed rows, well formed and not.

use alloy::primitives::{Bytes, hex};
use contracts::rows::{MAX_UNITS, RowsError, decode, encode};
use serde_json::{Value, json};

use crate::{read, write_or_compare};

fn well_formed() -> Vec<Value> {
    let many: Vec<_> = (1..=61).map(|provider| (provider * 3, u64::from(provider) << 30)).collect();
    [
        &[][..],
        &[(1, 1)],
        &[(u32::MAX, MAX_UNITS)],
        &[(7, 1_500_000), (300, 250)],
        &[(1, MAX_UNITS), (2, MAX_UNITS), (3, MAX_UNITS)],
        &[(1, 1), (2, 2), (3, 3), (4, 4)],
        &[(0x0102_0304, 0x0506_0708_090a), (0x0102_0305, 1), (0x8000_0000, 1 << 47), (u32::MAX, 1)],
        &many,
    ]
    .iter()
    .map(|rows| {
        let packed = encode(rows).unwrap();
        assert_eq!(decode(&packed).unwrap(), *rows);
        let listed: Vec<_> = rows
            .iter()
            .map(|(provider, units)| json!({ "provider": provider, "units": units.to_string() }))
            .collect();
        let total: u128 = rows.iter().map(|(_, units)| u128::from(*units)).sum();
        json!({
            "packed": Bytes::from(packed), "rows": listed, "total": total.to_string(),
            "last": rows.last().map_or(0, |(provider, _)| *provider),
        })
    })
    .collect()
}

/// Bytes that are no rows. In sevens, so that each place of a group of three is hit, and what comes before one.
fn malformed() -> Vec<Value> {
    let good: Vec<(u32, u64)> = (1..=7).map(|provider| (provider * 2, 5)).collect();
    let pack = |rows: &[(u32, u64)]| -> Vec<u8> {
        let row = |(provider, units): &(u32, u64)| {
            [&provider.to_be_bytes()[..], &units.to_be_bytes()[2..]].concat()
        };
        rows.iter().flat_map(row).collect()
    };
    let mut cases = Vec::new();
    for cut in 1..10 {
        cases.push(pack(&good)[cut..].to_vec());
    }
    cases.extend([vec![0], vec![0; 9], vec![1; 11], vec![0; 10], vec![0; 30]]);
    for place in 0..good.len() {
        let with = |row: (u32, u64)| {
            let mut rows = good.clone();
            rows[place] = row;
            pack(&rows)
        };
        let (provider, units) = good[place];
        cases.push(with((provider, 0)));
        cases.push(with((0, units)));
        cases.push(with((provider - 2, units)));
        if place + 1 < good.len() {
            cases.push(with((u32::MAX, units)));
            cases.push(with((provider + 2, units)));
        }
    }
    cases
        .into_iter()
        .map(|packed| {
            let reason = reason(&decode(&packed).unwrap_err());
            json!({ "packed": Bytes::from(packed), "reason": reason })
        })
        .collect()
}

fn reason(error: &RowsError) -> &'static str {
    match error {
        RowsError::Length(_) => "length",
        RowsError::Units(..) => "units",
        RowsError::Order(..) => "order",
    }
}

#[test]
fn rows_are_the_committed_ones() {
    write_or_compare("rows", &json!({ "wellFormed": well_formed(), "malformed": malformed() }));
}

#[test]
fn what_is_listed_as_malformed_is_refused() {
    let file = read("rows");
    let malformed = file["malformed"].as_array().unwrap();
    assert_eq!(malformed.len(), 47);
    for case in malformed {
        let packed = hex::decode(case["packed"].as_str().unwrap()).unwrap();
        assert_eq!(reason(&decode(&packed).unwrap_err()), case["reason"]);
    }
}
