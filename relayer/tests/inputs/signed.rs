//! Statements, signatures, rows, proofs and manifests with one fault each.

use alloy::primitives::{Address, B256, U256};
use contracts::{
    eip712::{self, DepositKey},
    rows::{self, RowsError},
};
use k256::ecdsa::SigningKey;
use ledger::{
    Units,
    manifest::{Leaf, Tree, root_from_proof},
    statement::{Statement, address_of, recover, sign},
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use relayer::opinion;

use crate::{rng, share};

const FORM: &str = "not a 65-byte signature with low s and v of 27 or 28";
/// Order of the curve.
const ORDER: &str =
    "115792089237316195423570985008687907852837564279074904382605163141518161494337";

fn word(rng: &mut StdRng) -> B256 {
    rng.random::<[u8; 32]>().into()
}

fn statement(rng: &mut StdRng) -> Statement {
    let mut address = || Address::from(rng.random::<[u8; 20]>());
    let (requestor, signer, token) = (address(), address(), address());
    let key = DepositKey { requestor, signer, cosigner: Address::ZERO, token, salt: word(rng) };
    let mut provider = 0;
    let rows: Vec<_> = (0..rng.random_range(1..6))
        .map(|_| {
            provider += rng.random_range(1..1_000);
            (provider, rng.random_range(1..=rows::MAX_UNITS))
        })
        .collect();
    Statement {
        key,
        epoch: rng.random(),
        spent: Units::new(rng.random()),
        manifest: word(rng),
        rows: rows::encode(&rows).unwrap(),
    }
}

#[test]
fn a_signature_counts_for_one_statement_of_one_contract_on_one_chain() {
    let mut rng = rng(11);
    for _ in 0..share(4) {
        let key = SigningKey::from_slice(word(&mut rng).as_slice()).unwrap();
        let right = statement(&mut rng);
        let (chain, contract) = (rng.random::<u64>(), Address::from(rng.random::<[u8; 20]>()));
        let digest = right.digest(&eip712::domain(chain, contract));
        let signature = sign(&key, digest).unwrap();
        let signer = address_of(key.verifying_key());
        assert_eq!(recover(digest, &signature).unwrap(), signer);

        let mut wrong = right.clone();
        let (mut other_chain, mut other_contract) = (chain, contract);
        match rng.random_range(0..10) {
            0 => wrong.epoch = wrong.epoch.wrapping_add(1),
            1 => wrong.spent = Units::new(wrong.spent.get().wrapping_add(1)),
            2 => wrong.manifest = flip(wrong.manifest, &mut rng),
            3 => {
                let bit = rng.random_range(0..wrong.rows.len() * 8);
                wrong.rows[bit / 8] ^= 1 << (bit % 8);
            }
            4 => wrong.key.salt = flip(wrong.key.salt, &mut rng),
            5 => wrong.key.cosigner = Address::repeat_byte(1),
            6 => std::mem::swap(&mut wrong.key.requestor, &mut wrong.key.signer),
            7 => wrong.key.token = wrong.key.requestor,
            8 => other_chain = other_chain.wrapping_add(1),
            _ => other_contract = Address::repeat_byte(7),
        }
        let other = wrong.digest(&eip712::domain(other_chain, other_contract));
        assert_ne!(other, digest);
        assert_ne!(recover(other, &signature).ok(), Some(signer));
    }
}

fn flip(word: B256, rng: &mut StdRng) -> B256 {
    let bit = rng.random_range(0..256);
    word ^ B256::from(U256::from(1) << bit)
}

#[test]
fn a_signature_of_another_form_or_key_is_refused() {
    let mut rng = rng(12);
    let order: U256 = ORDER.parse().unwrap();
    for _ in 0..share(4) {
        let key = SigningKey::from_slice(word(&mut rng).as_slice()).unwrap();
        let digest = word(&mut rng);
        let right = sign(&key, digest).unwrap();
        let signer = address_of(key.verifying_key());
        let mut wrong = right.to_vec();
        match rng.random_range(0..7) {
            0 => {
                // The other signature over the same digest by the same key.
                let s = order - U256::from_be_slice(&right[32..64]);
                wrong[32..64].copy_from_slice(&s.to_be_bytes::<32>());
                wrong[64] ^= 27 ^ 28;
            }
            1 => wrong[64] = *[0, 1, 26, 29, 255].choose(&mut rng).unwrap(),
            2 => wrong.truncate(rng.random_range(0..65)),
            3 => wrong.push(0),
            4 => wrong[..32].fill(0),
            5 => wrong[32..64].fill(0),
            _ => wrong[..32].copy_from_slice(&order.to_be_bytes::<32>()),
        }
        let error = recover(digest, &wrong).expect_err("a wrong form");
        assert!(error.to_string().contains(FORM), "{error}");

        let stranger = SigningKey::from_slice(word(&mut rng).as_slice()).unwrap();
        let foreign = sign(&stranger, digest).unwrap();
        assert_ne!(recover(digest, &foreign).unwrap(), signer);
        let mut flipped = right;
        let bit = rng.random_range(0..512);
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(recover(digest, &flipped).ok(), Some(signer));
    }
}

#[test]
fn rows_with_one_fault_are_refused_for_it_on_both_sides() {
    let mut rng = rng(13);
    for _ in 0..share(6) {
        let packed = statement(&mut rng).rows;
        let good = rows::decode(&packed).unwrap();
        assert_eq!(opinion_rows(&packed), Ok(good.clone()));
        let place = rng.random_range(0..good.len());
        let (mut bad, (provider, units)) = (packed.clone(), good[place]);
        let last = place.checked_sub(1).map_or(0, |before| good[before].0);
        let row = &mut bad[place * 10..place * 10 + 10];
        let expected = match rng.random_range(0..5) {
            0 => {
                row[4..].fill(0);
                RowsError::Units(place, 0)
            }
            1 => {
                row[..4].copy_from_slice(&last.to_be_bytes());
                RowsError::Order(place, last, last)
            }
            2 => {
                row[..4].fill(0);
                RowsError::Order(place, 0, last)
            }
            3 => {
                bad.pop();
                RowsError::Length(packed.len() - 1)
            }
            _ => {
                bad.extend(&packed[place * 10..place * 10 + 10]);
                RowsError::Order(good.len(), provider, good[good.len() - 1].0)
            }
        };
        assert_eq!(rows::decode(&bad), Err(expected));
        assert!(opinion_rows(&bad).is_err());
        let mut pairs = good.clone();
        pairs[place].1 = units + rows::MAX_UNITS;
        assert_eq!(rows::encode(&pairs), Err(RowsError::Units(place, units + rows::MAX_UNITS)));
    }
}

fn opinion_rows(packed: &[u8]) -> Result<Vec<(u32, u64)>, String> {
    opinion::rows(packed)
}

fn leaves(rng: &mut StdRng) -> Vec<Leaf> {
    let leaf = |_| Leaf {
        workload: word(rng),
        provider: rng.random(),
        amount: rng.random::<i64>().into(),
        paid: None,
    };
    (0..20).map(leaf).collect()
}

#[test]
fn a_proof_with_one_fault_leads_elsewhere() {
    let mut rng = rng(14);
    for _ in 0..share(2) {
        let leaves = leaves(&mut rng);
        let tree = Tree::new(&leaves[..rng.random_range(2..leaves.len())]);
        let (first, second) = (&leaves[0], &leaves[1]);
        let right = tree.proof(first).unwrap();
        assert_eq!(root_from_proof(first, &right), tree.root());
        let mut proof = right.clone();
        let mut leaf = first.clone();
        match rng.random_range(0..7) {
            0 => drop(proof.remove(rng.random_range(0..right.len()))),
            1 => {
                let place = rng.random_range(0..right.len());
                proof[place] = flip(proof[place], &mut rng);
            }
            2 => leaf = second.clone(),
            3 => leaf.amount += 1,
            4 => leaf.provider = leaf.provider.wrapping_add(1),
            5 => leaf.workload = flip(leaf.workload, &mut rng),
            _ => proof.push(word(&mut rng)),
        }
        // Of two leaves each is the other's proof.
        if leaf == *second && proof == [first.hash()] {
            continue;
        }
        assert_ne!(root_from_proof(&leaf, &proof), tree.root());
        assert_eq!(tree.proof(&leaves[leaves.len() - 1]), None);
    }
}

#[test]
fn a_manifest_that_is_cut_or_altered_is_refused_or_judged_different() {
    let mut rng = rng(15);
    let text = manifest();
    let right = opinion::Manifest::read(&text).unwrap();
    for _ in 0..share(2) {
        let cut = rng.random_range(0..text.len());
        assert!(opinion::Manifest::read(&text[..cut]).is_err(), "{}", &text[..cut]);
        let mut altered = text.clone().into_bytes();
        let place = rng.random_range(0..altered.len());
        altered[place] = if altered[place] == b'7' { b'8' } else { b'7' };
        let Ok(altered) = String::from_utf8(altered) else { continue };
        if let Ok(read) = opinion::Manifest::read(&altered) {
            let is_name = read.organisation != right.organisation
                || read.leaves.iter().zip(&right.leaves).any(|(a, b)| a.name != b.name);
            let case = opinion::Case {
                chain_id: 1,
                contract: Address::repeat_byte(9),
                manifests: vec![read.clone()],
                ..Default::default()
            };
            // A name proves nothing by itself; it is held against the records when the statement is judged.
            assert!(
                is_name || read == right || !opinion::judge(&case).differences.is_empty(),
                "{altered}"
            );
        }
    }
}

/// A manifest of one row and two leaves, as it is published.
fn manifest() -> String {
    let key = DepositKey {
        requestor: Address::repeat_byte(1),
        signer: Address::repeat_byte(2),
        cosigner: Address::ZERO,
        token: Address::repeat_byte(3),
        salt: B256::repeat_byte(4),
    };
    let leaf =
        |byte, amount| Leaf { workload: B256::repeat_byte(byte), provider: 6, amount, paid: None };
    let leaves = [leaf(5, 70), leaf(6, -9)];
    let statement = Statement {
        key: key.clone(),
        epoch: 1,
        spent: Units::new(61),
        manifest: Tree::new(&leaves).root(),
        rows: rows::encode(&[(6, 61)]).unwrap(),
    };
    let digest = statement.digest(&eip712::domain(1, Address::repeat_byte(9)));
    let leaf = |leaf: &Leaf, id: &str| {
        format!(
            r#"{{"workload":"{}","provider":6,"amount":"{}","source":"salad","external_id":"{id}","revision":0}}"#,
            leaf.workload, leaf.amount
        )
    };
    format!(
        r#"{{"schema":"manifest/1","organisation":"acme","digest":"{digest}","deposit":"{}","requestor":"{:#x}","signer":"{:#x}","cosigner":"{:#x}","token":"{:#x}","salt":"{}","epoch":1,"spent":"61","root":"{}","rows":[{{"provider":6,"units":"61","carry_in":"0","carry_out":"0"}}],"leaves":[{},{}]}}"#,
        key.id(),
        key.requestor,
        key.signer,
        key.cosigner,
        key.token,
        key.salt,
        statement.manifest,
        leaf(&leaves[0], "a/1"),
        leaf(&leaves[1], "a/2")
    )
}
