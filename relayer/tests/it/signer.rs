//! Goal: a signer that is slow, refuses, or signs something else leaves nothing behind; a good one is as good as a file.
//! Method: a signing process of the test on loopback that holds the sender's key and misbehaves on demand.
//! What would break it: opening the slot before the signature is there and checked, ending the turn on its error.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use alloy::{
    primitives::{B256, Signature, U256},
    signers::{SignerSync, local::PrivateKeySigner},
};
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use relayer::{
    config::SignerConfig,
    keys::{Keys, RemoteKey, TxKey},
};
use serde_json::{Value, json};

use crate::sender::World;

const GOOD: u8 = 0;
const SLOW: u8 = 1;
const REFUSES: u8 = 2;
const WRONG_KEY: u8 = 3;
const HIGH_S: u8 = 4;
const WRONG_ADDRESS: u8 = 5;
const GARBLED: u8 = 6;
const ENDLESS: u8 = 7;

const ORDER: U256 = alloy::primitives::uint!(
    0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256
);

#[derive(Clone)]
struct Signer {
    key: PrivateKeySigner,
    mood: Arc<AtomicU8>,
}

async fn answer(
    State(signer): State<Signer>,
    Json(question): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    let mood = signer.mood.load(Ordering::SeqCst);
    if question["method"] == "address" {
        let other = PrivateKeySigner::random().address();
        let address = if mood == WRONG_ADDRESS { other } else { signer.key.address() };
        return Ok(Json(json!({ "address": address })));
    }
    let digest: B256 = question["digest"].as_str().unwrap().parse().unwrap();
    let signature = signer.key.sign_hash_sync(&digest).unwrap();
    let signature = match mood {
        SLOW => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            signature
        }
        REFUSES => return Err(StatusCode::FORBIDDEN),
        WRONG_KEY => PrivateKeySigner::random().sign_hash_sync(&digest).unwrap(),
        HIGH_S => Signature::new(signature.r(), ORDER - signature.s(), !signature.v()),
        GARBLED => return Ok(Json(json!({ "signature": "0x1234" }))),
        ENDLESS => return Ok(Json(json!({ "signature": "0x".to_owned() + &"ab".repeat(10_000) }))),
        _ => signature,
    };
    Ok(Json(json!({ "signature": alloy::primitives::hex::encode_prefixed(signature.as_bytes()) })))
}

async fn listen(key: PrivateKeySigner) -> (SignerConfig, Arc<AtomicU8>) {
    let mood = Arc::new(AtomicU8::new(GOOD));
    let address = key.address();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listens = listener.local_addr().unwrap();
    let router =
        Router::new().route("/", post(answer)).with_state(Signer { key, mood: mood.clone() });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (SignerConfig { listens, address, timeout_ms: 1_000 }, mood)
}

impl World {
    /// Has a process of the test hold the sender's key, and returns its mood.
    async fn sign_elsewhere(&mut self) -> Arc<AtomicU8> {
        let TxKey::Local(key) = Keys::open(&self.config).unwrap().sender else { panic!("a file") };
        let (signer, mood) = listen(key).await;
        self.config.signer = Some(signer);
        self.reopen().await;
        mood
    }
}

#[tokio::test]
async fn a_signature_that_is_late_refused_foreign_or_malleable_is_an_error_that_says_so() {
    let key = PrivateKeySigner::random();
    let (config, mood) = listen(key.clone()).await;
    let remote = TxKey::Remote(RemoteKey::new(&config).unwrap());
    let digest = B256::repeat_byte(7);
    for (bad, says) in [
        (SLOW, "did not answer in time"),
        (REFUSES, "refused with status 403"),
        (WRONG_KEY, "instead of"),
        (HIGH_S, "high s"),
        (WRONG_ADDRESS, "it signs for"),
        (GARBLED, "not a signature of 65 bytes"),
        (ENDLESS, "more than 4096 bytes"),
    ] {
        mood.store(bad, Ordering::SeqCst);
        let error = remote.sign(digest).await.unwrap_err().to_string();
        assert!(error.contains(says), "{bad}: {error}");
    }
    mood.store(GOOD, Ordering::SeqCst);
    let local = TxKey::Local(key);
    assert_eq!(remote.sign(digest).await.unwrap(), local.sign(digest).await.unwrap());
    let elsewhere = SignerConfig { listens: "192.0.2.1:80".parse().unwrap(), ..config };
    assert!(RemoteKey::new(&elsewhere).unwrap_err().to_string().contains("loopback"));
}

#[tokio::test]
async fn a_signer_that_fails_leaves_the_slot_unopened_and_the_next_turn_goes_on() {
    let mut world = World::new().await;
    let settled = world.settled().await;
    let mood = world.sign_elsewhere().await;
    world.work(0, 1).await;
    for bad in [SLOW, REFUSES, WRONG_KEY] {
        mood.store(bad, Ordering::SeqCst);
        let report = world.turn().await;
        let says =
            report.waiting.iter().any(|reason| reason.contains("signer of the sender failed"));
        assert!(report.sent == 0 && says, "{report:?}");
        assert_eq!(world.slots().await, []);
    }
    mood.store(GOOD, Ordering::SeqCst);
    assert_eq!(world.turn().await.sent, 1);

    // A replacement that cannot be signed leaves the slot with the attempt that it has.
    mood.store(WRONG_KEY, Ordering::SeqCst);
    world.now += crate::sender::VERY_LATE;
    world.turn().await;
    assert_eq!(world.slots().await[0].attempts.len(), 1);
    world.mine(1).await;
    assert_eq!(world.settled().await, settled + 1);
}

#[tokio::test]
async fn no_key_and_no_password_stands_in_what_is_printed() {
    let world = World::new().await;
    let keys = Keys::open(&world.config).unwrap();
    let TxKey::Local(key) = &keys.sender else { panic!("a file") };
    let secrets = [
        alloy::primitives::hex::encode(key.to_bytes()),
        alloy::primitives::hex::encode(keys.attester.to_bytes()),
        format!("{:?}", key.to_bytes()),
    ];
    let path = world.config.path(&world.config.files.sender);
    let printed = [
        format!("{keys:?} {:?} {:?}", keys.sender, world.live),
        {
            let open = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&path, open).unwrap();
            let error = Keys::open(&world.config).unwrap_err();
            assert!(error.to_string().contains("its mode is 0644"), "{error}");
            format!("{error:?} {error}")
        },
        {
            let owned = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, owned).unwrap();
            let password = world.config.path(&world.config.files.password);
            std::fs::write(&password, "hunter2 is wrong\n").unwrap();
            let error = Keys::open(&world.config).unwrap_err();
            format!("{error:?} {error}")
        },
    ];
    for text in printed {
        for secret in &secrets {
            assert!(!text.to_lowercase().contains(&secret.to_lowercase()), "{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// What would break it: ending all that a turn sends at the first signature that does not come.
#[tokio::test]
async fn a_signer_that_fails_does_not_keep_what_is_signed_from_being_sent_again() {
    let mut world = World::new().await;
    let settled = world.settled().await;
    let mood = world.sign_elsewhere().await;
    for (organisation, id) in [(0, 1), (1, 2)] {
        world.work(organisation, id).await;
        assert_eq!(world.turn().await.sent, 1);
    }
    world.drop_all().await;
    mood.store(WRONG_KEY, Ordering::SeqCst);
    world.now += crate::sender::VERY_LATE;
    let report = world.turn().await;
    assert!(crate::sender::says(&report, "signer of the sender failed"), "{report:?}");
    world.mine(1).await;
    assert_eq!(world.settled().await, settled + 2);
}

/// What would break it: counting turns for refusals, though nothing was replaced in them.
#[tokio::test]
async fn what_no_node_takes_waits_no_longer_for_a_signer_that_is_down() {
    let (mut world, cap) = World::behind_a_fee_cap().await;
    let settled = world.settled().await;
    let mood = world.sign_elsewhere().await;
    world.work(0, 1).await;
    let cost = world.refused().await;
    cap.store(cost / 2, Ordering::SeqCst);
    world.turn().await;
    world.now += crate::sender::LATE;
    mood.store(WRONG_KEY, Ordering::SeqCst);
    for _ in 0..6 {
        world.turn().await;
    }
    mood.store(GOOD, Ordering::SeqCst);
    world.turn().await;
    world.finish().await;
    cap.store(u64::MAX, Ordering::SeqCst);
    world.now += 3_600_000;
    assert_eq!(world.turn().await.sent, 1, "an hour after it was given up");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}
