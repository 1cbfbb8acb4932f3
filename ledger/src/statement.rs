//! Statements: one deposit's signed payouts for one epoch.

use alloy::{
    dyn_abi::Eip712Domain,
    primitives::{Address, B256, keccak256},
    sol_types::{SolStruct, SolValue},
};
use contracts::eip712::{self, DepositKey};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use serde::Serialize;

use crate::{Amount, Error, ProviderNumber, Result, Units};

/// One provider's line in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The provider that is credited.
    pub provider: ProviderNumber,
    /// What it is credited.
    pub units: Units,
    /// Remainder below one unit brought in from the deposit's last settled statement naming the provider.
    pub carry_in: Amount,
    /// Remainder below one unit left for the next one.
    pub carry_out: Amount,
}

/// What the keys of a deposit sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The deposit that pays.
    pub key: DepositKey,
    /// The deposit's epoch plus one.
    pub epoch: u32,
    /// What the deposit will have spent once this is settled.
    pub spent: Units,
    /// Merkle root of the manifest.
    pub manifest: B256,
    /// Packed rows, see [`contracts::rows`].
    pub rows: Vec<u8>,
}

impl Statement {
    /// EIP-712 digest in the domain of one contract.
    pub fn digest(&self, domain: &Eip712Domain) -> B256 {
        digest(domain, self.key.id(), self.epoch, self.spent, (self.manifest, &self.rows))
    }
}

/// EIP-712 digest of a statement of which only the deposit's id is known: it is the key's struct hash, and nothing else of
/// the key enters.
pub fn digest(
    domain: &Eip712Domain,
    deposit: B256,
    epoch: u32,
    spent: Units,
    (manifest, rows): (B256, &[u8]),
) -> B256 {
    let typehash = keccak256(eip712::Statement::eip712_encode_type().as_bytes());
    let fields = (typehash, deposit, epoch, spent.get(), manifest, keccak256(rows));
    let message = [domain.separator(), keccak256(fields.abi_encode())].concat();
    keccak256([[0x19, 0x01].as_slice(), &message].concat())
}

/// Packs rows for the contract.
pub fn pack(rows: &[Row]) -> Result<Vec<u8>> {
    let pairs: Vec<_> = rows.iter().map(|row| (row.provider, row.units.get())).collect();
    Ok(contracts::rows::encode(&pairs)?)
}

/// Signs `digest`: 65 bytes `r ‖ s ‖ v`, deterministic (RFC 6979), low s, as the contract demands.
pub fn sign(key: &SigningKey, digest: B256) -> Result<[u8; 65]> {
    let (signature, id) = key.sign_prehash_recoverable(digest.as_slice())?;
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes[64] = 27 + u8::from(id.is_y_odd());
    Ok(bytes)
}

/// Address of a signing key.
pub fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_encoded_point(false);
    Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..])
}

/// Address whose key signed `digest`, or an error for bytes that the contract would not take as ECDSA: another length
/// than 65, `v` other than 27 or 28, high `s`.
pub fn recover(digest: B256, signature: &[u8]) -> Result<Address> {
    let refuse =
        || Error::Unsignable("not a 65-byte signature with low s and v of 27 or 28".into());
    let [rs @ .., v @ (27 | 28)] = signature else { return Err(refuse()) };
    let parsed = Signature::from_slice(rs).map_err(|_| refuse())?;
    if parsed.normalize_s().is_some() {
        return Err(refuse());
    }
    let id = RecoveryId::new(*v == 28, false);
    let key = VerifyingKey::recover_from_prehash(digest.as_slice(), &parsed, id)?;
    Ok(address_of(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_slice(&[7; 32]).unwrap()
    }

    #[test]
    fn refuses_high_s_and_foreign_lengths() {
        let digest = B256::repeat_byte(1);
        let mut signature = sign(&key(), digest).unwrap();
        assert!(recover(digest, &signature[..64]).is_err());
        let low = Signature::from_slice(&signature[..64]).unwrap();
        let high = Signature::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes()).unwrap();
        signature[..64].copy_from_slice(&high.to_bytes());
        signature[64] ^= 7;
        assert!(recover(digest, &signature).is_err());
    }

    #[test]
    fn refuses_every_v_but_27_and_28() {
        let digest = B256::repeat_byte(1);
        let mut signature = sign(&key(), digest).unwrap();
        for v in (0..=u8::MAX).filter(|v| ![27, 28].contains(v)) {
            signature[64] = v;
            assert!(recover(digest, &signature).is_err(), "{v}");
        }
    }

    #[test]
    fn the_digest_by_id_is_that_of_the_whole_message() {
        let key = DepositKey { salt: B256::repeat_byte(3), ..Default::default() };
        let statement = Statement {
            key: key.clone(),
            epoch: 5,
            spent: Units::new(7),
            manifest: B256::repeat_byte(9),
            rows: vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 2],
        };
        let message = eip712::Statement {
            key,
            epoch: 5,
            spent: 7,
            manifest: statement.manifest,
            rows: statement.rows.clone().into(),
        };
        let domain = eip712::domain(1, Address::repeat_byte(1));
        assert_eq!(statement.digest(&domain), message.eip712_signing_hash(&domain));
    }

    #[test]
    fn another_digest_recovers_another_address() {
        let signature = sign(&key(), B256::repeat_byte(1)).unwrap();
        let address = address_of(key().verifying_key());
        assert_ne!(recover(B256::repeat_byte(2), &signature).ok(), Some(address));
    }

    #[test]
    fn recovers_the_signer() {
        let digest = B256::repeat_byte(1);
        let signature = sign(&key(), digest).unwrap();
        assert_eq!(recover(digest, &signature).unwrap(), address_of(key().verifying_key()));
    }
}
