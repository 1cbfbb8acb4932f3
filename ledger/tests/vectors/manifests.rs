//! Manifests: leaves, tree, proofs, and the rows that the leaves come to.

use std::collections::BTreeMap;

use alloy::primitives::{B256, keccak256};
use ledger::{
    Unit,
    manifest::{CARRY, FEE, Leaf, Secret, Tree, root_from_proof},
    rules::rows_of,
};
use serde_json::{Value, json};

use crate::write_or_compare;

fn leaf(workload: B256, provider: u32, amount: i128) -> Leaf {
    Leaf { workload, provider, amount, paid: None }
}

/// `count` leaves: over few providers, now and then taking back; carries come in, and the operator, number 1, has a fee.
fn leaves(count: u32) -> Vec<Leaf> {
    let secret = Secret::new(B256::repeat_byte(0x5e)).of_organisation("acme");
    let mut leaves = Vec::new();
    if count > 1 {
        leaves.push(leaf(FEE, 1, 123_456_789_012_345));
    }
    if count > 3 {
        leaves.insert(0, leaf(CARRY, 1, 999_999_999_999));
        leaves.push(leaf(CARRY, 2, 1));
    }
    let mut index = 0;
    while leaves.len() < count as usize {
        index += 1;
        let id = secret.workload_id("salad", &format!("job-{index}"), index % 3);
        let taken_back = index % 7 == 3;
        let amount = i128::from(index) * 987_654_321_987_654_321_987 + 13;
        let amount = if taken_back { -amount / 16 } else { amount };
        leaves.push(leaf(id, 2 + index * 5 / count, amount));
    }
    leaves.sort_by_key(|leaf| leaf.provider);
    leaves
}

fn manifest(leaves: &[Leaf], decimals: u8) -> Value {
    let unit = Unit::of_decimals(decimals).unwrap();
    let tree = Tree::new(leaves);
    let proof = |leaf: &Leaf| {
        let proof = tree.proof(leaf).unwrap();
        assert_eq!(root_from_proof(leaf, &proof), tree.root());
        proof
    };
    let proofs: Vec<_> = leaves.iter().map(proof).collect();
    let listed: Vec<_> = leaves
        .iter()
        .map(|leaf| {
            json!({
                "workload": leaf.workload, "provider": leaf.provider,
                "amount": leaf.amount.to_string(), "hash": leaf.hash(),
            })
        })
        .collect();
    let rows: Vec<_> = rows_of(leaves, unit)
        .unwrap()
        .iter()
        .map(|row| {
            json!({
                "provider": row.provider, "units": row.units.get().to_string(),
                "carry": row.carry_out.base_units().to_string(),
            })
        })
        .collect();
    json!({
        "unit": unit.base_units().to_string(), "leaves": listed, "tree": nodes(leaves),
        "root": tree.root(), "proofs": proofs, "rows": rows,
    })
}

/// All nodes of the tree from the root on, which the ledger keeps to itself, level by level from the proofs' definition:
/// node `i` has the children `2i + 1` and `2i + 2`, leaves stand at the end, the lowest hash last.
fn nodes(leaves: &[Leaf]) -> Vec<B256> {
    let mut hashes: Vec<_> = leaves.iter().map(Leaf::hash).collect();
    hashes.sort();
    let mut nodes: BTreeMap<usize, B256> = BTreeMap::new();
    let count = (2 * hashes.len()).saturating_sub(1);
    for (index, hash) in hashes.iter().enumerate() {
        nodes.insert(count - 1 - index, *hash);
    }
    for index in (0..count / 2).rev() {
        let mut pair = [nodes[&(2 * index + 1)], nodes[&(2 * index + 2)]];
        pair.sort();
        nodes.insert(index, keccak256(pair.concat()));
    }
    let nodes: Vec<_> = nodes.into_values().collect();
    assert_eq!(nodes.first().copied().unwrap_or_default(), Tree::new(leaves).root());
    nodes
}

#[test]
fn manifests_are_the_committed_ones() {
    let secret = Secret::new(B256::repeat_byte(0x5e));
    let id = |n: u32| secret.workload_id("edge", "edge", n);
    let edge = [
        leaf(id(0), 1, i128::MAX),
        leaf(id(1), 1, 1 - i128::MAX),
        leaf(id(2), 2, -5),
        leaf(id(3), 2, 4),
        leaf(id(4), u32::MAX, 999_999_999_999),
        leaf(id(5), u32::MAX, 0),
    ];
    let mut made: Vec<_> =
        [0, 1, 2, 3, 7, 8, 100].iter().map(|count| manifest(&leaves(*count), 18)).collect();
    made.push(manifest(&edge, 18));
    made.push(manifest(&[leaf(id(6), 3, 1_500_000), leaf(CARRY, 3, 0)], 6));
    write_or_compare("manifests", &json!({ "manifests": made }));
}
