//! Published manifests.

use alloy::primitives::{Address, B256, I256};

use super::{
    DepositKey, Leaf,
    json::{self, Json},
    money,
    records::hex,
};

/// A manifest as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// What was signed.
    pub digest: B256,
    /// Whose work it pays. What was signed does not cover this.
    pub organisation: String,
    /// Id of the deposit.
    pub deposit: B256,
    /// Its key.
    pub key: DepositKey,
    /// The epoch.
    pub epoch: u32,
    /// Total spent after it, units.
    pub spent: u64,
    /// Merkle root.
    pub root: B256,
    /// Provider and units.
    pub rows: Vec<(u32, u64)>,
    /// The leaves.
    pub leaves: Vec<Leaf>,
    /// When it was stated, ms, if that is known.
    pub at_ms: Option<i64>,
    /// When its maker last lost what had been said to it, if it did: what was said until then may not have been known.
    pub forgot_ms: Option<i64>,
}

impl Manifest {
    /// Reads a file `manifest/1`.
    pub fn read(text: &str) -> Result<Self, String> {
        let value = json::read(text)?;
        if value.get("schema").and_then(Json::text) != Some("manifest/1") {
            return Err("its schema is not manifest/1".into());
        }
        let list = |name: &str| need(name, value.get(name).and_then(Json::list));
        let organisation = value.get("organisation").and_then(Json::text);
        Ok(Self {
            digest: word(&value, "digest")?,
            organisation: need("organisation", organisation)?.to_owned(),
            deposit: word(&value, "deposit")?,
            key: DepositKey {
                requestor: address(&value, "requestor")?,
                signer: address(&value, "signer")?,
                cosigner: address(&value, "cosigner")?,
                token: address(&value, "token")?,
                salt: word(&value, "salt")?,
            },
            epoch: small(&value, "epoch")?,
            spent: units(&value, "spent")?,
            root: word(&value, "root")?,
            rows: list("rows")?
                .iter()
                .map(|row| Ok((small(row, "provider")?, units(row, "units")?)))
                .collect::<Result<_, String>>()?,
            leaves: list("leaves")?.iter().map(leaf).collect::<Result<_, _>>()?,
            at_ms: None,
            forgot_ms: None,
        })
    }
}

fn leaf(value: &Json) -> Result<Leaf, String> {
    let text = |name: &str| value.get(name).and_then(Json::text).map(str::to_owned);
    let name = match (text("source"), text("external_id"), value.get("revision")) {
        (Some(source), Some(external_id), Some(_)) => {
            Some((source, external_id, small(value, "revision")?))
        }
        (None, None, None) => None,
        _ => return Err("a leaf names its workload in part".into()),
    };
    let amount = need("amount", text("amount"))?;
    let digits = amount.strip_prefix('-').unwrap_or(&amount);
    let size = money::signed(need("amount", money::amount(digits))?);
    let amount: I256 = if digits.len() < amount.len() { -size } else { size };
    Ok(Leaf {
        workload: word(value, "workload")?,
        provider: small(value, "provider")?,
        amount,
        name,
    })
}

fn need<T>(field: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("{field} is missing or malformed"))
}

fn word(value: &Json, field: &str) -> Result<B256, String> {
    need(field, value.get(field).and_then(Json::text).and_then(hex::<32>).map(B256::from))
}

fn address(value: &Json, field: &str) -> Result<Address, String> {
    need(field, value.get(field).and_then(Json::text).and_then(hex::<20>).map(Address::from))
}

fn small(value: &Json, field: &str) -> Result<u32, String> {
    let number = value.get(field).and_then(Json::number).and_then(|text| text.parse().ok());
    need(field, number)
}

fn units(value: &Json, field: &str) -> Result<u64, String> {
    let units = value.get(field).and_then(Json::text).and_then(money::amount);
    need(field, units.and_then(|units| u64::try_from(units).ok()))
}
