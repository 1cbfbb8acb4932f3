//! Manifests: what a statement pays for, one leaf per workload, under one Merkle root.
//!
//! The tree is OpenZeppelin's standard tree (`@openzeppelin/merkle-tree`): a leaf is hashed twice over its ABI encoding
//! `(bytes32 workload, uint32 provider, int128 baseUnits)`, leaves are sorted by hash, pairs are sorted before hashing.

use std::fmt;

use alloy::{
    primitives::{B256, keccak256},
    sol_types::SolValue,
};
use serde::{Deserialize, Serialize};

use crate::ProviderNumber;

/// Leaf id of a provider's carry brought into a statement.
pub const CARRY: B256 = B256::ZERO;
/// Leaf id of the operator's fee.
pub const FEE: B256 = B256::with_last_byte(1);

/// An item and the revision of it that a leaf pays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paid {
    /// Row id of the item.
    pub item: i64,
    /// Revision whose record the leaf names.
    pub revision: u32,
    /// What statements had settled of the item when the leaf was stated, base units; `None` if that is not told.
    pub settled: Option<i128>,
}

/// One workload's line in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Salted id of the workload, or [`CARRY`], or [`FEE`].
    pub workload: B256,
    /// Provider that it is paid to.
    pub provider: ProviderNumber,
    /// Base units; negative where a revision takes back what was paid.
    pub amount: i128,
    /// The item behind the id; `None` for a carry or a fee.
    pub paid: Option<Paid>,
}

impl Leaf {
    /// Hash of the leaf in the tree.
    pub fn hash(&self) -> B256 {
        keccak256(keccak256((self.workload, self.provider, self.amount).abi_encode()))
    }
}

/// The Merkle tree over leaf hashes, as an array in which node `i` has the children `2i + 1` and `2i + 2`.
#[derive(Debug, Clone)]
pub struct Tree(Vec<B256>);

impl Tree {
    /// The tree over `leaves`.
    pub fn new(leaves: &[Leaf]) -> Self {
        let mut hashes: Vec<_> = leaves.iter().map(Leaf::hash).collect();
        hashes.sort_unstable();
        let inner = hashes.len().saturating_sub(1);
        let mut nodes = vec![B256::ZERO; inner];
        nodes.extend(hashes.into_iter().rev());
        for index in (0..inner).rev() {
            nodes[index] = hash_pair(nodes[2 * index + 1], nodes[2 * index + 2]);
        }
        Self(nodes)
    }

    /// The root; zero for a manifest without leaves.
    pub fn root(&self) -> B256 {
        self.0.first().copied().unwrap_or_default()
    }

    /// Sibling hashes from the leaf up to the root, or `None` if the leaf is not in the tree.
    pub fn proof(&self, leaf: &Leaf) -> Option<Vec<B256>> {
        let hash = leaf.hash();
        let first_leaf = self.0.len() / 2;
        let mut index = first_leaf + self.0[first_leaf..].iter().position(|node| *node == hash)?;
        let mut proof = Vec::new();
        while index > 0 {
            let sibling = if index % 2 == 1 { index + 1 } else { index - 1 };
            proof.push(self.0[sibling]);
            index = (index - 1) / 2;
        }
        Some(proof)
    }
}

/// The root that `leaf` and `proof` lead to.
pub fn root_from_proof(leaf: &Leaf, proof: &[B256]) -> B256 {
    proof.iter().fold(leaf.hash(), |node, sibling| hash_pair(node, *sibling))
}

fn hash_pair(a: B256, b: B256) -> B256 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    keccak256([low, high].concat())
}

/// A secret from which workload ids are salted, so that a published proof betrays no other workload.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(B256);

impl Secret {
    /// A secret of 32 random bytes.
    pub const fn new(bytes: B256) -> Self {
        Self(bytes)
    }

    /// The secret of one organisation, derived from the operator's.
    #[must_use]
    pub fn of_organisation(&self, organisation: &str) -> Self {
        Self(keccak256([self.0.as_slice(), organisation.as_bytes()].concat()))
    }

    /// A seal over a text that only who has the secret can make. What it derives from is no organisation's secret: no name
    /// holds the byte 0xff, which is never part of a text.
    pub fn seal(&self, text: &[u8]) -> B256 {
        let key = keccak256([self.0.as_slice(), b"\xffseal"].concat());
        keccak256([key.as_slice(), text].concat())
    }

    /// Id of a workload: the same for the same record after any loss of data, and unpredictable without the secret.
    pub fn workload_id(&self, source: &str, external_id: &str, revision: u32) -> B256 {
        let name = [source.as_bytes(), &[0], external_id.as_bytes(), &[0], &revision.to_be_bytes()]
            .concat();
        let salt = keccak256([self.0.as_slice(), &name].concat());
        keccak256([salt.as_slice(), &name].concat())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(index: u8) -> Leaf {
        let amount = i128::from(index) - 3;
        Leaf { workload: B256::repeat_byte(index), provider: u32::from(index), amount, paid: None }
    }

    #[test]
    fn a_foreign_leaf_has_no_proof() {
        let tree = Tree::new(&[leaf(1), leaf(2)]);
        assert_eq!(tree.proof(&leaf(3)), None);
        assert_eq!(Tree::new(&[]).proof(&leaf(1)), None);
    }

    #[test]
    fn an_altered_leaf_does_not_lead_to_the_root() {
        let tree = Tree::new(&[leaf(1), leaf(2), leaf(3)]);
        let proof = tree.proof(&leaf(2)).unwrap();
        let altered = Leaf { amount: 5, ..leaf(2) };
        assert_ne!(root_from_proof(&altered, &proof), tree.root());
    }

    #[test]
    fn every_leaf_leads_to_the_root() {
        for count in 1..40 {
            let leaves: Vec<_> = (1..=count).map(leaf).collect();
            let tree = Tree::new(&leaves);
            for leaf in &leaves {
                let proof = tree.proof(leaf).unwrap();
                assert_eq!(root_from_proof(leaf, &proof), tree.root());
            }
        }
    }

    #[test]
    fn ids_differ_by_every_part_and_by_secret() {
        let secret = Secret::new(B256::repeat_byte(7));
        let ids = [
            secret.workload_id("a", "b", 0),
            secret.workload_id("a", "b", 1),
            secret.workload_id("a", "c", 0),
            secret.workload_id("ab", "", 0),
            secret.of_organisation("x").workload_id("a", "b", 0),
        ];
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id));
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new(B256::repeat_byte(7))), "Secret(..)");
    }
}
