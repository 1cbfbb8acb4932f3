//! Signed messages: digests, what a flipped bit does to them, signatures and what is refused as one.

use std::collections::BTreeSet;

use alloy::{
    primitives::{Address, B256, Bytes, U256, address, b256, hex, keccak256},
    sol_types::SolStruct,
};
use contracts::eip712::{self, ClaimTo, DepositKey, SetPayout, Statement};
use k256::ecdsa::SigningKey;
use ledger::statement;
use serde_json::{Value, json};

use crate::{SETTLEMENT, TOKEN, key_json, private_key, read, write_or_compare};

/// Order of the group of secp256k1.
const ORDER: B256 = b256!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");

/// Where a message counts.
#[derive(Clone, Copy)]
struct Place {
    chain_id: u64,
    contract: Address,
}

const HERE: Place = Place { chain_id: 1, contract: SETTLEMENT };
const PLACES: [Place; 5] = [
    HERE,
    Place { chain_id: 137, contract: SETTLEMENT },
    Place { chain_id: 1, contract: address!("5e77fe3e27000000000000000000000000000002") },
    Place { chain_id: 31337, contract: address!("ffffffffffffffffffffffffffffffffffffffff") },
    // The highest chain id that tools which count in doubles still tell from its neighbours.
    Place {
        chain_id: (1 << 53) - 1,
        contract: address!("0000000000000000000000000000000000000101"),
    },
];

impl Place {
    fn digest(self, message: &impl SolStruct) -> B256 {
        message.eip712_signing_hash(&eip712::domain(self.chain_id, self.contract))
    }

    fn json(self, message: &impl SolStruct, fields: Value) -> Value {
        json!({
            "chainId": self.chain_id.to_string(), "settlement": self.contract, "message": fields,
            "structHash": message.eip712_hash_struct(), "digest": self.digest(message),
        })
    }
}

fn signing_key(n: u8) -> SigningKey {
    SigningKey::from_slice(private_key(n).as_slice()).unwrap()
}

/// Address of test key `n`, whose bytes are all `n`.
pub(crate) fn signer(n: u8) -> Address {
    statement::address_of(signing_key(n).verifying_key())
}

fn bound_key() -> DepositKey {
    DepositKey {
        requestor: address!("4e00000000000000000000000000000000000001"),
        signer: signer(1),
        cosigner: signer(2),
        token: TOKEN,
        salt: b256!("00000000000000000000000000000000000000000000000000000000005a1700"),
    }
}

fn rows(rows: &[(u32, u64)]) -> Bytes {
    contracts::rows::encode(rows).unwrap().into()
}

/// Three rows of a bound deposit first, on which every bit is flipped; then a statement without rows for each of the
/// first three keys, such that a contract that knows nothing settles it.
fn statements() -> Vec<(Place, Statement)> {
    let three = Statement {
        key: bound_key(),
        epoch: 7,
        spent: 1_751_000_250,
        manifest: b256!("a6f1d2c3b4a59687788796a5b4c3d2e1f00112233445566778899aabbccddeef"),
        rows: rows(&[(7, 1_500_000), (300, 250), (u32::MAX, (1 << 48) - 1)]),
    };
    let most = Statement {
        epoch: u32::MAX,
        spent: u64::MAX,
        manifest: B256::repeat_byte(0xff),
        ..three.clone()
    };
    let zero = Statement {
        key: DepositKey::default(),
        epoch: 0,
        spent: 0,
        manifest: B256::ZERO,
        rows: Bytes::new(),
    };
    let mut made: Vec<_> = PLACES.map(|place| (place, three.clone())).into();
    made.extend([(HERE, most), (HERE, zero.clone())]);
    for n in 1..=3 {
        let key = DepositKey { signer: signer(n), cosigner: Address::ZERO, ..bound_key() };
        made.push((HERE, Statement { key, epoch: 1, ..zero.clone() }));
    }
    made
}

fn statement_fields(statement: &Statement) -> Value {
    let Statement { key, epoch, spent, manifest, rows } = statement;
    json!({
        "key": key_json(key), "epoch": epoch, "spent": spent.to_string(), "manifest": manifest,
        "rows": rows,
    })
}

fn claims() -> Vec<(Place, ClaimTo)> {
    let claim = ClaimTo {
        provider: 7,
        token: TOKEN,
        to: address!("70de000000000000000000000000000000000001"),
        nonce: 3,
        deadline: 1_800_000_000,
    };
    let most = ClaimTo { provider: u32::MAX, nonce: u64::MAX, deadline: u64::MAX, ..claim };
    // What a first provider signs.
    let first = ClaimTo { provider: 1, nonce: 0, ..claim };
    let mut made: Vec<_> = PLACES.map(|place| (place, claim.clone())).into();
    made.extend([(HERE, most), (HERE, first)]);
    made
}

fn claim_fields(claim: &ClaimTo) -> Value {
    let ClaimTo { provider, token, to, nonce, deadline } = claim;
    json!({
        "provider": provider, "token": token, "to": to, "nonce": nonce.to_string(),
        "deadline": deadline.to_string(),
    })
}

fn payouts() -> Vec<(Place, SetPayout)> {
    let payout = SetPayout {
        provider: 7,
        payout: address!("70de000000000000000000000000000000000002"),
        nonce: 3,
        deadline: 1_800_000_000,
    };
    let most = SetPayout { provider: u32::MAX, nonce: u64::MAX, deadline: u64::MAX, ..payout };
    let first = SetPayout { provider: 1, nonce: 0, ..payout };
    let mut made: Vec<_> = PLACES.map(|place| (place, payout.clone())).into();
    made.extend([(HERE, most), (HERE, first)]);
    made
}

fn payout_fields(set: &SetPayout) -> Value {
    let SetPayout { provider, payout, nonce, deadline } = set;
    json!({
        "provider": provider, "payout": payout, "nonce": nonce.to_string(),
        "deadline": deadline.to_string(),
    })
}

/// Fields of a message as bytes, in the order in which their bits are flipped, and the way back.
trait Flippable: SolStruct {
    fn fields(&self) -> Vec<Vec<u8>>;
    fn of_fields(fields: &[Vec<u8>]) -> Self;
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

impl Flippable for Statement {
    fn fields(&self) -> Vec<Vec<u8>> {
        let Self { key, epoch, spent, manifest, rows } = self;
        let accounts = [key.requestor, key.signer, key.cosigner, key.token];
        let mut fields: Vec<_> = accounts.iter().map(|account| account.to_vec()).collect();
        fields.extend([key.salt.to_vec(), epoch.to_be_bytes().into(), spent.to_be_bytes().into()]);
        fields.extend([manifest.to_vec(), rows.to_vec()]);
        fields
    }

    fn of_fields(fields: &[Vec<u8>]) -> Self {
        let key = DepositKey {
            requestor: Address::from_slice(&fields[0]),
            signer: Address::from_slice(&fields[1]),
            cosigner: Address::from_slice(&fields[2]),
            token: Address::from_slice(&fields[3]),
            salt: B256::from_slice(&fields[4]),
        };
        Self {
            key,
            epoch: be32(&fields[5]),
            spent: be64(&fields[6]),
            manifest: B256::from_slice(&fields[7]),
            rows: fields[8].clone().into(),
        }
    }
}

impl Flippable for ClaimTo {
    fn fields(&self) -> Vec<Vec<u8>> {
        let Self { provider, token, to, nonce, deadline } = self;
        vec![
            provider.to_be_bytes().into(),
            token.to_vec(),
            to.to_vec(),
            nonce.to_be_bytes().into(),
            deadline.to_be_bytes().into(),
        ]
    }

    fn of_fields(fields: &[Vec<u8>]) -> Self {
        Self {
            provider: be32(&fields[0]),
            token: Address::from_slice(&fields[1]),
            to: Address::from_slice(&fields[2]),
            nonce: be64(&fields[3]),
            deadline: be64(&fields[4]),
        }
    }
}

impl Flippable for SetPayout {
    fn fields(&self) -> Vec<Vec<u8>> {
        let Self { provider, payout, nonce, deadline } = self;
        vec![
            provider.to_be_bytes().into(),
            payout.to_vec(),
            nonce.to_be_bytes().into(),
            deadline.to_be_bytes().into(),
        ]
    }

    fn of_fields(fields: &[Vec<u8>]) -> Self {
        Self {
            provider: be32(&fields[0]),
            payout: Address::from_slice(&fields[1]),
            nonce: be64(&fields[2]),
            deadline: be64(&fields[3]),
        }
    }
}

/// Flips each bit of each field, of the chain id and of the contract, most significant first. No two digests are equal.
fn flips<M: Flippable>((place, message): &(Place, M)) -> Value {
    let mut fields = message.fields();
    fields.extend([place.chain_id.to_be_bytes().into(), place.contract.to_vec()]);
    let digest = |fields: &[Vec<u8>]| {
        let [message @ .., chain_id, contract] = fields else { panic!("too few fields") };
        let contract = Address::from_slice(contract);
        Place { chain_id: be64(chain_id), contract }.digest(&M::of_fields(message))
    };
    let mut all = vec![digest(&fields)];
    assert_eq!(all[0], place.digest(message));
    for field in 0..fields.len() {
        for bit in 0..fields[field].len() * 8 {
            let mask = 0x80 >> (bit % 8);
            fields[field][bit / 8] ^= mask;
            all.push(digest(&fields));
            fields[field][bit / 8] ^= mask;
        }
    }
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "a flipped bit leaves the digest as it was"); // I7, I9
    let hash = keccak256(all[1..].concat());
    json!({ "count": all.len() - 1, "hash": hash })
}

fn digests() -> Value {
    let (statements, claims, payouts) = (statements(), claims(), payouts());
    let separator = |place: &Place| {
        json!({
            "chainId": place.chain_id.to_string(), "settlement": place.contract,
            "separator": eip712::domain(place.chain_id, place.contract).separator(),
        })
    };
    let flips = json!({
        "Statement": flips(&statements[0]), "ClaimTo": flips(&claims[0]),
        "SetPayout": flips(&payouts[0]),
    });
    json!({
        "domains": PLACES.iter().map(separator).collect::<Vec<_>>(),
        "Statement": statements.iter().map(|(place, message)| place.json(message, statement_fields(message))).collect::<Vec<_>>(),
        "ClaimTo": claims.iter().map(|(place, message)| place.json(message, claim_fields(message))).collect::<Vec<_>>(),
        "SetPayout": payouts.iter().map(|(place, message)| place.json(message, payout_fields(message))).collect::<Vec<_>>(),
        "flips": flips,
    })
}

/// Signatures of the statements without rows, of a first provider's messages, and bytes that are refused in their place.
fn signatures() -> Value {
    let statements = statements();
    let first = statements.len() - 3;
    let mut valid = Vec::new();
    let mut refused = Vec::new();
    for n in 1..=3 {
        let index = first + usize::from(n) - 1;
        let (place, message) = &statements[index];
        let digest = place.digest(message);
        let signature = statement::sign(&signing_key(n), digest).unwrap();
        valid.push(signature_json("Statement", index, (n, digest), signature));
        for (bytes, reason) in refusals(signature) {
            refused.push(json!({
                "type": "Statement", "index": index, "digest": digest, "signer": signer(n),
                "signature": Bytes::from(bytes), "reason": reason,
            }));
        }
    }
    let (place, claim) = claims().pop().unwrap();
    let digest = place.digest(&claim);
    let signature = statement::sign(&signing_key(4), digest).unwrap();
    valid.push(signature_json("ClaimTo", claims().len() - 1, (4, digest), signature));
    let (place, payout) = payouts().pop().unwrap();
    let digest = place.digest(&payout);
    let signature = statement::sign(&signing_key(4), digest).unwrap();
    valid.push(signature_json("SetPayout", payouts().len() - 1, (4, digest), signature));
    json!({ "valid": valid, "refused": refused })
}

fn signature_json(kind: &str, index: usize, (n, digest): (u8, B256), signature: [u8; 65]) -> Value {
    json!({
        "type": kind, "index": index, "privateKey": private_key(n), "signer": signer(n),
        "digest": digest, "r": B256::from_slice(&signature[..32]),
        "s": B256::from_slice(&signature[32..64]), "v": signature[64],
        "signature": Bytes::from(signature),
    })
}

/// Bytes made from a valid signature that nobody may take for one.
fn refusals(signature: [u8; 65]) -> Vec<(Vec<u8>, &'static str)> {
    let (rs, v) = (&signature[..64], signature[64]);
    let order = U256::from_be_bytes(ORDER.0);
    let s = U256::from_be_slice(&rs[32..]);
    let with = |r: &[u8], s: &[u8], v: u8| [r, s, &[v]].concat();
    let (r, s_bytes) = rs.split_at(32);
    let mut compact = rs.to_vec();
    compact[32] |= (v - 27) << 7;
    vec![
        (with(r, &(order - s).to_be_bytes::<32>(), 55 - v), "high s, the malleable twin"),
        (with(r, &(order - s).to_be_bytes::<32>(), v), "high s alone"),
        (with(r, s_bytes, v - 27), "v of 0 or 1"),
        (with(r, s_bytes, 55 - v), "the other v"),
        (with(r, s_bytes, 29), "v of 29"),
        (with(r, s_bytes, v + 8), "v of 35 or 36"),
        (compact, "64 bytes, the compact form of EIP-2098"),
        ([rs, &[v, 0]].concat(), "66 bytes"),
        (Vec::new(), "no bytes"),
        (with(&[0; 32], s_bytes, v), "r of zero"),
        (with(r, &[0; 32], v), "s of zero"),
        (with(ORDER.as_slice(), s_bytes, v), "r of the group's order"),
        ([&[v], rs].concat(), "v in front"),
    ]
}

#[test]
fn digests_are_the_committed_ones_and_no_bit_can_be_flipped() {
    write_or_compare("digests", &digests());
}

#[test]
fn signatures_are_the_committed_ones() {
    write_or_compare("signatures", &signatures());
}

#[test]
fn what_is_listed_as_refused_does_not_recover_the_signer() {
    let file = read("signatures");
    let refused = file["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 39);
    for case in refused {
        let signature = hex::decode(case["signature"].as_str().unwrap()).unwrap();
        let digest: B256 = case["digest"].as_str().unwrap().parse().unwrap();
        let signer: Address = case["signer"].as_str().unwrap().parse().unwrap();
        assert_ne!(statement::recover(digest, &signature).ok(), Some(signer), "{case}");
    }
}

#[test]
fn what_is_listed_as_valid_recovers_the_signer() {
    let file = read("signatures");
    for case in file["valid"].as_array().unwrap() {
        let signature = hex::decode(case["signature"].as_str().unwrap()).unwrap();
        let digest: B256 = case["digest"].as_str().unwrap().parse().unwrap();
        let signer: Address = case["signer"].as_str().unwrap().parse().unwrap();
        assert_eq!(statement::recover(digest, &signature).unwrap(), signer);
    }
}
