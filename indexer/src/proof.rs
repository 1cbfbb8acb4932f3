//! What is proved against a header's hash: tx receipts by their root, the contract's storage by its state root.

use alloy::{
    consensus::{
        Eip658Value, Receipt, ReceiptWithBloom, RlpEncodableReceipt, TrieAccount,
        proofs::ordered_trie_root_encoded,
    },
    eips::BlockId,
    primitives::{Address, B256, BloomInput, Bytes, KECCAK256_EMPTY, U64, U256, keccak256},
    providers::Provider,
    rlp,
    rpc::{
        json_rpc::ErrorPayload,
        types::{EIP1186AccountProofResponse, Log},
    },
    transports::TransportError,
    trie::{Nibbles, proof::verify_proof},
};
use contracts::journal::Journal;
use ledger::chain::Block;
use serde::Deserialize;

use crate::{
    Endpoints, Error, HeaderHash, Result, chain_of,
    endpoint::{Endpoint, Header},
    endpoints::wire,
};

const RECEIPTS: &str = "eth_getBlockReceipts";
const PROOF: &str = "eth_getProof";

/// A tx receipt, as far as its place in the receipts root goes. Of any type: what is unknown of a type is not in here, and
/// then the root does not match.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TxReceipt {
    #[serde(default, rename = "type")]
    kind: Option<U64>,
    #[serde(default)]
    status: Option<U64>,
    #[serde(default)]
    root: Option<B256>,
    cumulative_gas_used: U64,
    transaction_hash: B256,
    logs: Vec<Log>,
}

impl TxReceipt {
    /// As the receipts root has it (EIP-2718).
    fn encoded(&self) -> Vec<u8> {
        let status = match (self.status, self.root) {
            (None, Some(root)) => Eip658Value::PostState(root),
            (status, _) => Eip658Value::Eip658(status.is_some_and(|status| !status.is_zero())),
        };
        let receipt = Receipt {
            status,
            cumulative_gas_used: self.cumulative_gas_used.to(),
            logs: self.logs.iter().map(|log| log.inner.clone()).collect(),
        };
        let receipt = ReceiptWithBloom::from(receipt);
        let mut encoded = Vec::new();
        match self.kind {
            Some(kind) if !kind.is_zero() => encoded.push(kind.to::<u64>().to_le_bytes()[0]),
            _ => {}
        }
        receipt.receipt.rlp_encode_with_bloom(&receipt.logs_bloom, &mut encoded);
        encoded
    }

    /// Whether its type is one of Ethereum's, whose encoding is known.
    fn is_known(&self) -> bool {
        self.kind.is_none_or(|kind| kind <= U64::from(4))
    }
}

/// What a block's tx receipts say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Receipts {
    /// The contract's logs, in order, proved by the receipts root.
    Proved(Vec<Log>),
    /// The endpoint does not serve tx receipts by block, or the block has some of a type whose encoding is unknown, or one beside
    /// the root with logs of the contract.
    Unproved,
}

/// The contract's logs of a block from its tx receipts, if these can be had and checked.
pub(crate) async fn logs_by_receipts(endpoint: &Endpoint, header: &Header) -> Result<Receipts> {
    // Of a header whose hash is not computed, the root is one endpoint's word as well.
    if !endpoint.computes_hashes() {
        return Ok(Receipts::Unproved);
    }
    let hash = header.block.hash;
    let Some(receipts) = tx_receipts(endpoint, hash).await? else {
        return Ok(Receipts::Unproved);
    };
    if !have_root(&receipts, header) {
        // A node that has the header and not yet what is in the block, as one behind a balancer may.
        if without_state_sync(&receipts, header).next().is_none() {
            return Err(endpoint.no_block(hash.to_string()));
        }
        if receipts.iter().all(TxReceipt::is_known) {
            return Err(
                endpoint.unverified(header, "its tx receipts do not have the root of its header")
            );
        }
        return Ok(Receipts::Unproved);
    }
    let is_ours = |log: &&Log| log.inner.address == endpoint.contract();
    let beside_root =
        receipts.iter().filter(|receipt| receipt.transaction_hash == state_sync(header));
    if beside_root.flat_map(|receipt| &receipt.logs).any(|log| is_ours(&log)) {
        return Ok(Receipts::Unproved);
    }
    let mut logs = Vec::new();
    // A log's place in its block follows from the tx receipts; what the endpoint says of it is not looked at.
    let mut index = 0;
    for receipt in without_state_sync(&receipts, header) {
        for log in &receipt.logs {
            if is_ours(&log) {
                logs.push(Log {
                    block_hash: Some(hash),
                    block_number: Some(header.block.number),
                    block_timestamp: None,
                    transaction_hash: Some(receipt.transaction_hash),
                    transaction_index: None,
                    log_index: Some(index),
                    removed: false,
                    inner: log.inner.clone(),
                });
            }
            index += 1;
        }
    }
    Ok(Receipts::Proved(logs))
}

/// The contract's logs of a block as its tx receipts tell them, which nothing proves; `None` if these are not served.
pub(crate) async fn logs_in_receipts(endpoint: &Endpoint, block: B256) -> Result<Option<Vec<Log>>> {
    let Some(receipts) = tx_receipts(endpoint, block).await? else { return Ok(None) };
    let logs = receipts.into_iter().flat_map(|receipt| receipt.logs);
    Ok(Some(logs.filter(|log| log.inner.address == endpoint.contract()).collect()))
}

/// A block's tx receipts; `None` if the endpoint serves none by block.
async fn tx_receipts(endpoint: &Endpoint, block: B256) -> Result<Option<Vec<TxReceipt>>> {
    if !endpoint.health(|health| health.serves(RECEIPTS)) {
        return Ok(None);
    }
    let params = (BlockId::hash(block),);
    let ask =
        || endpoint.provider().client().request::<_, Option<Vec<TxReceipt>>>(RECEIPTS, params);
    match endpoint.find(ask).await {
        Ok(Some(receipts)) => Ok(Some(receipts)),
        Ok(None) => Err(endpoint.no_block(block.to_string())),
        Err(error) if is_unserved(&error) => {
            note_unknown(endpoint, RECEIPTS, &error);
            Ok(None)
        }
        Err(error) => Err(endpoint.failed(RECEIPTS)(error)),
    }
}

/// Whether the tx receipts, with or without Polygon's own one, come to the receipts root of the header.
fn have_root(receipts: &[TxReceipt], header: &Header) -> bool {
    root(receipts) == header.receipts_root || {
        let without: Vec<_> = without_state_sync(receipts, header).cloned().collect();
        without.len() < receipts.len() && root(&without) == header.receipts_root
    }
}

fn root(receipts: &[TxReceipt]) -> B256 {
    let encoded: Vec<_> = receipts.iter().map(TxReceipt::encoded).collect();
    ordered_trie_root_encoded(&encoded)
}

/// Hash of the transaction that there is none of: Polygon's nodes name it for what the block took over from Ethereum. It is
/// derived from the block, so that it is told from all others.
fn state_sync(header: &Header) -> B256 {
    let Block { number, hash, .. } = &header.block;
    let key = [b"matic-bor-receipt-".as_slice(), &number.to_be_bytes(), hash.as_slice()];
    keccak256(key.concat())
}

/// Whether some of a block's logs are said to be of what it took over from Ethereum, of which neither its receipts root nor its
/// bloom knows: nothing but the journal tells these.
pub(crate) fn are_of_state_sync(logs: &[Log], header: &Header) -> bool {
    let derived = state_sync(header);
    logs.iter().any(|log| log.transaction_hash == Some(derived))
}

/// The tx receipts without the one that Polygon's nodes append for what the block took over from Ethereum: it belongs to no
/// transaction and is not in the root.
fn without_state_sync<'a>(
    receipts: &'a [TxReceipt],
    header: &Header,
) -> impl Iterator<Item = &'a TxReceipt> {
    let derived = state_sync(header);
    receipts.iter().filter(move |receipt| receipt.transaction_hash != derived)
}

/// Storage words of the contract at a block, proved by its state root; `None` if the endpoint serves no proofs of it.
pub(crate) async fn storage(
    endpoint: &Endpoint,
    header: &Header,
    slots: &[B256],
) -> Result<Option<Vec<U256>>> {
    if !endpoint.health(|health| health.serves(PROOF)) {
        return Ok(None);
    }
    let contract = endpoint.contract();
    let hash = header.block.hash;
    let answer = endpoint
        .provider()
        .client()
        .request::<_, EIP1186AccountProofResponse>(PROOF, (contract, slots, BlockId::hash(hash)))
        .await;
    let proof = match answer {
        Ok(proof) => proof,
        Err(error) if is_unserved(&error) => {
            note_unknown(endpoint, PROOF, &error);
            return Ok(None);
        }
        Err(error) => return Err(endpoint.failed(PROOF)(error)),
    };
    let words = proved_words(&proof, (contract, header.state_root), slots);
    words.map(Some).ok_or_else(|| {
        endpoint.unverified(header, "its storage proof does not lead to its state root")
    })
}

/// The words at the slots, if the proof leads from the state root to each of them.
fn proved_words(
    proof: &EIP1186AccountProofResponse,
    (contract, state_root): (Address, B256),
    slots: &[B256],
) -> Option<Vec<U256>> {
    let account = TrieAccount {
        nonce: proof.nonce,
        balance: proof.balance,
        storage_root: proof.storage_hash,
        code_hash: proof.code_hash,
    };
    let key = keccak256(contract);
    if account.nonce == 0
        && account.balance.is_zero()
        && [KECCAK256_EMPTY, B256::ZERO].contains(&account.code_hash)
        && is_proved(state_root, key, None, &proof.account_proof)
    {
        // The contract is not there yet.
        return Some(vec![U256::ZERO; slots.len()]);
    }
    is_proved(state_root, key, Some(rlp::encode(account)), &proof.account_proof).then_some(())?;
    let word = |slot: &B256| {
        let entry = proof.storage_proof.iter().find(|entry| entry.key.as_b256() == *slot)?;
        let value = (!entry.value.is_zero()).then(|| rlp::encode(entry.value));
        is_proved(proof.storage_hash, keccak256(slot), value, &entry.proof).then_some(entry.value)
    };
    slots.iter().map(word).collect()
}

fn is_proved(root: B256, key: B256, value: Option<Vec<u8>>, proof: &[Bytes]) -> bool {
    verify_proof(root, Nibbles::unpack(key), value, proof).is_ok()
}

/// Whether a refusal says that no proof is to be had of this block: any but a failure of the moment, since nodes word it in
/// many ways (pruned, outside of a window, not available). Nothing is believed for it.
fn is_unserved(error: &TransportError) -> bool {
    let Some(payload) = error.as_error_resp() else { return false };
    let is_of_the_moment =
        payload.code == wire::INTERNAL_ERROR && !says(payload, &["missing trie node", "pruned"]);
    !is_of_the_moment && !wire::asks_for_patience(payload)
}

/// Takes note of a request that is not served for any block, if the refusal says so.
fn note_unknown(endpoint: &Endpoint, request: &'static str, error: &TransportError) {
    let Some(payload) = error.as_error_resp() else { return };
    let texts = ["not supported", "unsupported", "method not found", "does not exist"];
    if matches!(payload.code, -32601 | -32004) || says(payload, &texts) {
        endpoint.health(|health| health.does_not_serve(request));
    }
}

fn says(payload: &ErrorPayload, texts: &[&str]) -> bool {
    let message = payload.message.to_lowercase();
    texts.iter().any(|text| message.contains(text))
}

/// The contract's journal in the state of an agreed block: as the endpoint that is asked or any other proves it, or else as enough
/// operators say. Nothing if neither is to be had, which is so for old blocks where no endpoint keeps their state.
pub(crate) async fn journal(
    endpoints: &Endpoints,
    endpoint: &Endpoint,
    header: &Header,
) -> Result<Option<Journal>> {
    if endpoints.settings().header_hash == HeaderHash::Computed {
        let slots = [B256::ZERO];
        let words = match storage(endpoint, header, &slots).await? {
            None => storage_by_another(endpoints, endpoint, header, &slots).await,
            words => words,
        };
        if let Some(words) = words {
            return Ok(words.first().map(|word| Journal::from_word((*word).into())));
        }
    }
    let word = endpoints.agreed_storage(header.block.hash, U256::ZERO).await;
    Ok(word.map(|word| Journal::from_word(word.into())))
}

/// Storage words of the contract at an agreed block, which the first other endpoint proves that can. What proves nothing counts as
/// nothing, so that nobody keeps the rest from being asked.
async fn storage_by_another(
    endpoints: &Endpoints,
    endpoint: &Endpoint,
    header: &Header,
    slots: &[B256],
) -> Option<Vec<U256>> {
    for other in endpoints.due().iter().filter(|other| !other.is(endpoint)) {
        match storage(other, header, slots).await {
            Ok(None) => {}
            Ok(words) => return words,
            Err(error) => tracing::debug!("{}", chain_of(&error)),
        }
    }
    None
}

/// Whether something that an endpoint serves of a block does not verify when it is asked for the block by its hash, while what
/// another one serves does.
pub(crate) async fn is_belied(endpoint: &Endpoint, other: &Endpoint, hash: B256) -> bool {
    let Ok(header) = endpoint.block_by_hash(hash).await else { return false };
    let is_untrue = |error: Option<Error>| matches!(error, Some(Error::Unverified { .. }));
    let words = [B256::ZERO];
    (is_untrue(logs_by_receipts(endpoint, &header).await.err())
        && matches!(logs_by_receipts(other, &header).await, Ok(Receipts::Proved(_))))
        || (is_untrue(storage(endpoint, &header, &words).await.err())
            && matches!(storage(other, &header, &words).await, Ok(Some(_))))
}

/// The contract's logs of a block, proved by its bloom or its tx receipts where that can be done.
pub(crate) async fn logs(endpoint: &Endpoint, header: &Header) -> Result<Vec<Log>> {
    let served = endpoint.logs_of(&header.block).await?;
    if are_of_state_sync(&served, header) {
        return Ok(served);
    }
    Ok(proved_logs(endpoint, header).await?.unwrap_or(served))
}

/// The contract's logs of a block as its bloom or its tx receipts prove them; nothing where that cannot be done.
pub(crate) async fn proved_logs(endpoint: &Endpoint, header: &Header) -> Result<Option<Vec<Log>>> {
    if !endpoint.computes_hashes() {
        return Ok(None);
    }
    if !header.bloom.contains_input(BloomInput::Raw(endpoint.contract().as_slice())) {
        return Ok(Some(Vec::new()));
    }
    Ok(match logs_by_receipts(endpoint, header).await? {
        Receipts::Proved(logs) => Some(logs),
        Receipts::Unproved => None,
    })
}

impl Endpoint {
    /// It served something that its own header contradicts.
    pub(crate) fn unverified(&self, header: &Header, problem: &str) -> Error {
        Error::Unverified {
            operator: self.operator().to_owned(),
            block: header.block.number,
            hash: header.block.hash,
            problem: problem.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::{
        primitives::Bloom,
        rpc::types::{EIP1186StorageProof, serde_helpers::JsonStorageKey},
        trie::{HashBuilder, proof::ProofRetainer},
    };
    use serde_json::{Value, json};

    use super::*;

    fn receipt(kind: u64, gas: u64, tx: B256) -> TxReceipt {
        let read: Value = json!({
            "type": format!("{kind:#x}"), "status": "0x1", "cumulativeGasUsed": format!("{gas:#x}"),
            "transactionHash": tx, "logs": [],
        });
        serde_json::from_value(read).unwrap()
    }

    fn header(receipts_root: B256) -> Header {
        let (hash, parent) = (B256::repeat_byte(5), B256::repeat_byte(4));
        let block = Block { number: 77, hash, parent, time: 0 };
        Header { block, state_root: B256::ZERO, receipts_root, bloom: Bloom::ZERO }
    }

    fn two() -> Vec<TxReceipt> {
        vec![receipt(2, 21_000, B256::repeat_byte(1)), receipt(0, 63_000, B256::repeat_byte(2))]
    }

    #[test]
    fn tx_receipts_altered_missing_or_in_another_order_do_not_have_the_root() {
        let good = two();
        let header = header(root(&good));
        let mut altered = two();
        altered[0].status = Some(U64::ZERO);
        let reordered = vec![good[1].clone(), good[0].clone()];
        for bad in [altered, vec![good[0].clone()], reordered] {
            assert!(!have_root(&bad, &header), "{bad:?}");
        }
        assert!(have_root(&good, &header));
    }

    #[test]
    fn the_tx_receipt_that_polygon_appends_is_outside_the_root_and_no_other_is() {
        let mut receipts = two();
        let header = header(root(&receipts));
        // keccak256("matic-bor-receipt-" ++ number as eight bytes ++ block hash), as Bor derives it.
        let mut key = b"matic-bor-receipt-".to_vec();
        key.extend([0, 0, 0, 0, 0, 0, 0, 77]);
        key.extend([5; 32]);
        receipts.push(receipt(0, 0, keccak256(key)));
        assert!(have_root(&receipts, &header));
        assert_eq!(without_state_sync(&receipts, &header).count(), 2);

        receipts[2].transaction_hash = B256::repeat_byte(3);
        assert!(!have_root(&receipts, &header), "an invented one is not put aside");
    }

    const CONTRACT: Address = Address::repeat_byte(0xcc);

    /// The root of these leaves, and what leads from it to a key.
    fn trie(leaves: &[(B256, Vec<u8>)], key: B256) -> (B256, Vec<Bytes>) {
        let (mut leaves, key) = (leaves.to_vec(), Nibbles::unpack(key));
        leaves.sort();
        let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::new(vec![key]));
        for (at, value) in &leaves {
            builder.add_leaf(Nibbles::unpack(at), value);
        }
        let root = builder.root();
        let nodes = builder.take_proof_nodes().matching_nodes_sorted(&key);
        (root, nodes.into_iter().map(|(_, node)| node).collect())
    }

    fn slot(number: u8) -> B256 {
        B256::with_last_byte(number)
    }

    /// Words of a storage, those of the slots 0 to 39, and one that is told of slot 0.
    fn storage_of(words: u64, told: u64) -> (B256, Vec<(B256, Vec<u8>)>, EIP1186StorageProof) {
        let leaf = |number: u8| (keccak256(slot(number)), rlp::encode(words + u64::from(number)));
        let leaves: Vec<_> = (0..40).map(leaf).collect();
        let (root, proof) = trie(&leaves, keccak256(slot(0)));
        let key = JsonStorageKey::Hash(slot(0));
        (root, leaves, EIP1186StorageProof { key, value: U256::from(told), proof })
    }

    /// The state root of an account with that storage among others, and its proof.
    fn account_of(storage: (B256, EIP1186StorageProof)) -> (B256, EIP1186AccountProofResponse) {
        let (storage_root, storage_proof) = storage;
        let account = TrieAccount { nonce: 1, storage_root, ..TrieAccount::default() };
        let mut leaves = vec![(keccak256(CONTRACT), rlp::encode(account))];
        let others = (1..40).map(Address::repeat_byte);
        leaves.extend(others.map(|other| (keccak256(other), rlp::encode(TrieAccount::default()))));
        let (root, account_proof) = trie(&leaves, keccak256(CONTRACT));
        let proof = EIP1186AccountProofResponse {
            address: CONTRACT,
            balance: U256::ZERO,
            code_hash: account.code_hash,
            nonce: 1,
            storage_hash: storage_root,
            account_proof,
            storage_proof: vec![storage_proof],
        };
        (root, proof)
    }

    #[test]
    fn a_proof_that_is_empty_cut_altered_or_of_another_key_or_value_proves_nothing() {
        let (root, leaves, EIP1186StorageProof { proof, .. }) = storage_of(1_000, 1_000);
        let (key, value) = (keccak256(slot(0)), rlp::encode(1_000_u64));
        let proves = |value: Option<&[u8]>, proof: &[Bytes]| {
            is_proved(root, key, value.map(<[u8]>::to_vec), proof)
        };
        assert!(proof.len() > 1 && proves(Some(&value), &proof));

        assert!(!proves(Some(&rlp::encode(1_001_u64)), &proof), "an altered value");
        assert!(!proves(None, &proof), "that there is none");
        assert!(!proves(Some(&value), &[]), "empty");
        assert!(!proves(None, &[]), "empty, that there is none");
        assert!(!proves(Some(&value), &proof[..proof.len() - 1]), "without its end");
        assert!(!proves(Some(&value), &proof[1..]), "without its root");
        for node in 0..proof.len() {
            for byte in 0..proof[node].len() {
                let mut altered = proof.clone();
                let mut bytes = altered[node].to_vec();
                bytes[byte] ^= 1;
                altered[node] = bytes.into();
                assert!(!proves(Some(&value), &altered), "node {node}, byte {byte}");
            }
        }
        let (_, other) = trie(&leaves, keccak256(slot(1)));
        assert!(!proves(Some(&value), &other), "of another key");
        assert!(!proves(Some(&rlp::encode(1_001_u64)), &other), "of another key and its value");
        let (forged, _, EIP1186StorageProof { proof, .. }) = storage_of(5, 5);
        assert!(forged != root && !proves(Some(&rlp::encode(5_u64)), &proof), "of another root");
    }

    #[test]
    fn words_are_those_that_the_state_root_leads_to_and_no_others() {
        let words = |proof: &EIP1186AccountProofResponse, root: B256| {
            proved_words(proof, (CONTRACT, root), &[slot(0)])
        };
        let (storage, _, proof) = storage_of(1_000, 1_000);
        let (root, good) = account_of((storage, proof));
        assert_eq!(words(&good, root), Some(vec![U256::from(1_000)]));

        // Each of them is sound as far as it goes.
        let (other, _, forged) = storage_of(5, 5);
        let mut only_the_word = good.clone();
        only_the_word.storage_proof = vec![forged.clone()];
        let mut with_its_root = only_the_word.clone();
        with_its_root.storage_hash = other;
        let (_, with_its_account) = account_of((other, forged));
        let mut altered = good.clone();
        altered.storage_proof[0].value = U256::from(1_001);
        let mut left_out = good.clone();
        left_out.storage_proof.clear();
        let mut of_another_slot = good.clone();
        of_another_slot.storage_proof[0].key = JsonStorageKey::Hash(slot(1));
        let mut no_contract = good.clone();
        (no_contract.nonce, no_contract.code_hash) = (0, KECCAK256_EMPTY);
        let mut nothing = no_contract.clone();
        nothing.account_proof.clear();
        for bad in [
            only_the_word,
            with_its_root,
            with_its_account,
            altered,
            left_out,
            of_another_slot,
            no_contract,
            nothing,
        ] {
            assert_eq!(words(&bad, root), None, "{bad:?}");
        }
        assert_eq!(words(&good, other), None, "of another block");
    }

    #[test]
    fn a_type_of_the_future_is_told_from_a_forgery() {
        let known = two();
        assert!(known.iter().all(TxReceipt::is_known));
        assert!(!receipt(5, 21_000, B256::ZERO).is_known());
    }
}
