//! What is hashed: workload ids, leaves, Merkle roots, deposit ids, digests.

use alloy::primitives::{Address, B256, I256, U256, keccak256};

use super::{DepositKey, Leaf};

const DOMAIN: &str =
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
const DEPOSIT_KEY: &str =
    "DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)";
const STATEMENT: &str =
    "Statement(DepositKey key,uint32 epoch,uint64 spent,bytes32 manifest,bytes rows)";

/// Id of a workload under the operator's secret.
pub(super) fn workload_id(
    secret: B256,
    organisation: &str,
    (source, external_id, revision): (&str, &str, u32),
) -> B256 {
    let own = keccak256([secret.as_slice(), organisation.as_bytes()].concat());
    let mut name = Vec::new();
    name.extend(source.bytes());
    name.push(0);
    name.extend(external_id.bytes());
    name.push(0);
    name.extend(revision.to_be_bytes());
    let salt = keccak256([own.as_slice(), &name].concat());
    keccak256([salt.as_slice(), &name].concat())
}

/// Root of OpenZeppelin's standard tree over the leaves; zero without any.
///
/// Seen from the front, the tree is a queue: the two hindmost nodes are hashed into the one before them. Leaves stand in it
/// in descending order.
pub(super) fn root(leaves: &[Leaf]) -> B256 {
    let mut hashes: Vec<B256> = leaves.iter().map(leaf_hash).collect();
    hashes.sort();
    let mut nodes: std::collections::VecDeque<B256> = hashes.into();
    while nodes.len() > 1 {
        let (a, b) = (nodes.pop_front().unwrap_or_default(), nodes.pop_front().unwrap_or_default());
        nodes.push_back(keccak256([a.min(b), a.max(b)].concat()));
    }
    nodes.pop_front().unwrap_or_default()
}

fn leaf_hash(leaf: &Leaf) -> B256 {
    let words = [leaf.workload, number(leaf.provider.into()), leaf.amount.into_raw().into()];
    keccak256(keccak256(words.concat()))
}

/// Id of a deposit.
pub(super) fn deposit_id(key: &DepositKey) -> B256 {
    let words = [
        keccak256(DEPOSIT_KEY),
        key.requestor.into_word(),
        key.signer.into_word(),
        key.cosigner.into_word(),
        key.token.into_word(),
        key.salt,
    ];
    keccak256(words.concat())
}

/// What the keys of a deposit sign, up to the chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    /// Id of the deposit.
    pub deposit: B256,
    /// Its epoch.
    pub epoch: u32,
    /// Total spent, units.
    pub spent: u64,
    /// Merkle root.
    pub root: B256,
    /// Packed rows.
    pub rows: &'a [u8],
}

/// EIP-712 digest of a statement for one contract on one chain.
pub(super) fn digest(chain_id: u64, contract: Address, signed: &Signed<'_>) -> B256 {
    let domain = [
        keccak256(DOMAIN),
        keccak256("Quittance"),
        keccak256("1"),
        number(chain_id),
        contract.into_word(),
    ];
    let statement = [
        keccak256([STATEMENT, DEPOSIT_KEY].concat()),
        signed.deposit,
        number(signed.epoch.into()),
        number(signed.spent),
        signed.root,
        keccak256(signed.rows),
    ];
    let (domain, statement) = (keccak256(domain.concat()), keccak256(statement.concat()));
    keccak256([[0x19, 0x01].as_slice(), domain.as_slice(), statement.as_slice()].concat())
}

fn number(number: u64) -> B256 {
    U256::from(number).into()
}

/// Reads packed rows: provider and units, strictly ascending, above zero.
pub fn rows(packed: &[u8]) -> Result<Vec<(u32, u64)>, String> {
    let mut rows: Vec<(u32, u64)> = Vec::new();
    for row in packed.chunks(10) {
        if row.len() < 10 {
            return Err(format!("{} bytes are no whole number of rows", packed.len()));
        }
        let big_endian = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let provider = u32::try_from(big_endian(&row[..4])).unwrap_or_default();
        let units = big_endian(&row[4..]);
        if units == 0 {
            return Err(format!("the row of provider {provider} pays nothing"));
        }
        if provider <= rows.last().map_or(0, |last| last.0) {
            return Err(format!("provider {provider} does not ascend"));
        }
        rows.push((provider, units));
    }
    Ok(rows)
}

/// Packs rows as they are signed.
pub(super) fn pack(rows: &[(u32, u64)]) -> Vec<u8> {
    let pack = |(provider, units): &(u32, u64)| {
        let mut row = provider.to_be_bytes().to_vec();
        row.extend(&units.to_be_bytes()[2..]);
        row
    };
    rows.iter().flat_map(pack).collect()
}

/// Whole units and what is left of a sum of base units, which must not be negative.
pub(super) fn split(sum: I256, unit: U256) -> (u64, U256) {
    let sum = U256::try_from(sum).unwrap_or_default();
    (u64::try_from(sum / unit).unwrap_or(u64::MAX), sum % unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_that_of_the_documents() {
        let id = workload_id(B256::repeat_byte(0x11), "acme", ("salad", "a/1", 0));
        assert_eq!(
            id.to_string(),
            "0xed5647108399bcddec1027fae38a802df7fc40a7ef9e5c04b069953040c04f5f"
        );
        let amount = I256::try_from(320_000).unwrap();
        let leaf = Leaf { workload: id, provider: 7, amount, name: None };
        assert_eq!(
            leaf_hash(&leaf).to_string(),
            "0x6ef0f3c917874370adbf545fb2191acef0528837851191f83afbe22c096ae0df"
        );
    }
}
