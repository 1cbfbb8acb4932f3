//! The fuzzers' corpora replayed without a fuzzer, each file as it is and changed a little in many ways.

use std::{fs, panic, path::Path};

use rand::{Rng, rngs::StdRng};

use crate::{count, rng, targets};

/// Targets that open a ledger, write files or connect.
const SLOW: [&str; 4] = ["imports", "orders", "signers", "nodes"];

#[test]
fn every_target_holds_on_its_corpus_and_near_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let usual = count() / 200;
    let mut rng = rng(31);
    for (name, target) in targets::ALL {
        let changes = if SLOW.contains(&name) { usual.min(1_000) } else { usual };
        let mut paths: Vec<_> =
            fs::read_dir(folder.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{name} has no corpus");
        for path in paths {
            let data = fs::read(&path).unwrap();
            hold(name, target, &data);
            for _ in 0..changes {
                hold(name, target, &changed(&data, &mut rng));
            }
        }
    }
}

#[test]
fn the_recorded_node_is_followed_to_its_last_final_block() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/nodes");
    for name in ["good", "no-proofs", "no-receipts"] {
        assert_eq!(targets::follow(&fs::read(folder.join(name)).unwrap()), 3, "{name}");
    }
}

/// Runs a target, and shows the bytes at which it fails.
fn hold(name: &str, target: fn(&[u8]), data: &[u8]) {
    if panic::catch_unwind(|| target(data)).is_err() {
        panic!("{name} does not hold for {:?}", String::from_utf8_lossy(data));
    }
}

/// A few bytes altered, dropped, doubled or put in.
fn changed(data: &[u8], rng: &mut StdRng) -> Vec<u8> {
    const TELLING: &[u8] = b"\0\x1b\x7f\xff\"\\{}[]:,.-+eE019 \n\tuTZ";
    let mut data = data.to_vec();
    for _ in 0..rng.random_range(1..4) {
        if data.is_empty() {
            return vec![rng.random()];
        }
        let place = rng.random_range(0..data.len());
        let telling = TELLING[rng.random_range(0..TELLING.len())];
        match rng.random_range(0..6) {
            0 => data[place] ^= 1 << rng.random_range(0..8),
            1 => data[place] = telling,
            2 => drop(data.remove(place)),
            3 => data.insert(place, telling),
            4 => data.truncate(place),
            _ => {
                let end = data.len().min(place + rng.random_range(1..40));
                let again = data[place..end].to_vec();
                data.splice(place..place, again);
            }
        }
    }
    data
}
