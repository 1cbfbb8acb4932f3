//! Proofs of random manifests, verified by OpenZeppelin's `MerkleProof` in a contract.
//!
//! Needs forge's output folder in `QUITTANCE_FORGE_OUT`, which scripts/test provides: the verifying contract is
//! `ProofHarness` of `contracts/test/Vectors.t.sol`. `QUITTANCE_TEST_DEEP=1` takes ten times as many manifests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and tell what they leave out"
)]

use std::path::Path;

use alloy::{
    primitives::{Address, B256, Bytes},
    sol,
    sol_types::{SolCall, SolValue},
};
use ledger::manifest::{Leaf, Tree, root_from_proof};
use rand::{Rng, RngCore, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use revm::{
    Context, ExecuteEvm, MainBuilder, MainContext, MainnetEvm,
    context::TxEnv,
    database::{CacheDB, EmptyDB},
    handler::MainnetContext,
    primitives::TxKind,
    state::{AccountInfo, Bytecode},
};

sol! {
    function verify(bytes32[] proof, bytes32 root, bytes32 workload, uint32 provider, int128 baseUnits)
        returns (bool);
}

const HARNESS: Address = Address::repeat_byte(0x11);

struct Verifier(MainnetEvm<MainnetContext<CacheDB<EmptyDB>>>);

impl Verifier {
    fn new(forge_out: &Path) -> Self {
        let path = forge_out.join("test/Vectors.t.sol/ProofHarness.json");
        let artifact = std::fs::read(path).expect("forge's artifact of ProofHarness");
        let artifact: serde_json::Value = serde_json::from_slice(&artifact).expect("JSON");
        let code = artifact["deployedBytecode"]["object"].as_str().expect("deployed bytecode");
        let code: Bytes = code.parse().expect("linked bytecode");
        let mut database = CacheDB::new(EmptyDB::default());
        let info = AccountInfo::default().with_code(Bytecode::new_raw(code));
        database.insert_account_info(HARNESS, info);
        let context = Context::mainnet().with_db(database);
        Self(context.modify_cfg_chained(|cfg| cfg.disable_nonce_check = true).build_mainnet())
    }

    fn verifies(&mut self, leaf: &Leaf, proof: Vec<B256>, root: B256) -> bool {
        let Leaf { workload, provider, amount, .. } = leaf;
        let (workload, provider, base_units) = (*workload, *provider, *amount);
        let call = verifyCall { proof, root, workload, provider, baseUnits: base_units };
        let transaction = TxEnv {
            kind: TxKind::Call(HARNESS),
            data: call.abi_encode().into(),
            gas_limit: 16_000_000,
            ..Default::default()
        };
        let answer = self.0.transact(transaction).expect("a valid transaction").result;
        bool::abi_decode(answer.output().expect("an answer")).expect("a bool")
    }
}

fn word(rng: &mut ChaCha8Rng) -> B256 {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    B256::new(bytes)
}

fn leaves(rng: &mut ChaCha8Rng) -> Vec<Leaf> {
    let count = match rng.random_range(0..10) {
        0 => 1,
        1..=7 => rng.random_range(2..=20),
        _ => rng.random_range(21..=130),
    };
    let mut leaf = || Leaf {
        workload: if rng.random_ratio(1, 10) {
            B256::with_last_byte(rng.random_range(0..2))
        } else {
            word(rng)
        },
        provider: *[1, rng.random_range(1..50), u32::MAX].choose(rng).unwrap(),
        amount: *[0, -1, 1, i128::MAX, i128::MIN, rng.random()].choose(rng).unwrap(),
        paid: None,
    };
    (0..count).map(|_| leaf()).collect()
}

/// A leaf that differs in one bit.
fn altered(rng: &mut ChaCha8Rng, leaf: &Leaf) -> Leaf {
    let mut altered = leaf.clone();
    match rng.random_range(0..3) {
        0 => altered.workload.0[rng.random_range(0..32)] ^= 1 << rng.random_range(0..8),
        1 => altered.provider ^= 1 << rng.random_range(0..32),
        _ => altered.amount ^= 1 << rng.random_range(0..128),
    }
    altered
}

#[test]
fn every_proof_of_a_random_manifest_holds_on_chain_and_no_altered_one_does() {
    let Some(out) = std::env::var_os("QUITTANCE_FORGE_OUT") else {
        eprintln!(
            "QUITTANCE_FORGE_OUT is not set: run scripts/test to verify proofs in a contract"
        );
        return;
    };
    let mut verifier = Verifier::new(Path::new(&out));
    let deep = std::env::var_os("QUITTANCE_TEST_DEEP").is_some();
    let manifests = if deep { 100_000 } else { 10_000 };
    for seed in 0..manifests {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let leaves = leaves(&mut rng);
        let tree = Tree::new(&leaves);
        let leaf = leaves.choose(&mut rng).unwrap();
        let proof = tree.proof(leaf).expect("a proof of a leaf");
        assert_eq!(root_from_proof(leaf, &proof), tree.root(), "seed {seed}");
        assert!(verifier.verifies(leaf, proof.clone(), tree.root()), "seed {seed}: {leaf:?}");

        let other = altered(&mut rng, leaf);
        let is_leaf = leaves.iter().any(|known| known.hash() == other.hash());
        let holds = verifier.verifies(&other, proof.clone(), tree.root());
        assert!(!holds || is_leaf, "seed {seed}: {other:?}");
        if let Some(place) = (0..proof.len()).collect::<Vec<_>>().choose(&mut rng) {
            let mut broken = proof.clone();
            broken[*place].0[rng.random_range(0..32)] ^= 1 << rng.random_range(0..8);
            assert!(!verifier.verifies(leaf, broken, tree.root()), "seed {seed}");
            assert!(!verifier.verifies(leaf, proof[1..].to_vec(), tree.root()), "seed {seed}");
        }
    }
}
