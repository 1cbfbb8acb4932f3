//! The hosted attester: publishes a statement's manifest, then signs it.
//!
//! A signature never leaves before its manifest is a synced file outside the database, so that a lost database costs time
//! and no money.

use std::{
    fmt,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, B256};
use k256::ecdsa::SigningKey;
use ledger::{
    ProviderNumber,
    book::BookWriter,
    manifest::Secret,
    read::{NamedLeaf, Reader, SignedStatement},
    statement::Row,
};
use serde::Serialize;

use crate::{Error, Result};

/// Signs statements with the attester's key.
pub struct Attester {
    key: SigningKey,
    secret: Secret,
    manifests: PathBuf,
    reader: Reader,
    book: BookWriter,
}

impl fmt::Debug for Attester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attester").field("manifests", &self.manifests).finish_non_exhaustive()
    }
}

/// A manifest as it is published: what a statement pays for.
#[derive(Debug, Serialize)]
struct Manifest<'a> {
    schema: &'static str,
    digest: B256,
    deposit: B256,
    requestor: Address,
    signer: Address,
    cosigner: Address,
    token: Address,
    salt: B256,
    epoch: u32,
    spent: ledger::Units,
    root: B256,
    rows: Vec<Row>,
    leaves: Vec<LeafEntry<'a>>,
}

/// A leaf with the natural key of its workload; a carry or a fee has none.
#[derive(Debug, Serialize)]
struct LeafEntry<'a> {
    workload: B256,
    provider: ProviderNumber,
    amount: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u32>,
}

impl Attester {
    /// An attester that publishes into the folder `manifests`.
    pub const fn new(
        key: SigningKey,
        secret: Secret,
        manifests: PathBuf,
        reader: Reader,
        book: BookWriter,
    ) -> Self {
        Self { key, secret, manifests, reader, book }
    }

    /// The address that deposits name as their signer.
    pub fn address(&self) -> Address {
        ledger::statement::address_of(self.key.verifying_key())
    }

    /// The secret of one organisation's workload ids.
    pub fn secret_of(&self, organisation: &str) -> Secret {
        self.secret.of_organisation(organisation)
    }

    /// Signs a recorded statement, once its manifest is published.
    pub async fn sign(&self, statement: i64) -> Result<SignedStatement> {
        self.publish(statement).await?;
        Ok(self.book.sign_statement(statement, &self.key).await?)
    }

    /// Writes the manifest of a recorded statement, named by deposit, epoch and digest, and syncs it.
    async fn publish(&self, id: i64) -> Result<()> {
        let signed = self.reader.signed_statement(id).await?;
        let leaves = self.reader.named_leaves(id).await?;
        let statement = &signed.statement;
        let deposit = statement.key.id();
        let manifest = Manifest {
            schema: "manifest/1",
            digest: signed.digest,
            deposit,
            requestor: statement.key.requestor,
            signer: statement.key.signer,
            cosigner: statement.key.cosigner,
            token: statement.key.token,
            salt: statement.key.salt,
            epoch: statement.epoch,
            spent: statement.spent,
            root: statement.manifest,
            rows: self.reader.rows(id).await?,
            leaves: leaves.iter().map(LeafEntry::from).collect(),
        };
        let prefix = format!("{deposit}-{}-", statement.epoch);
        let name = format!("{prefix}{}.json", signed.digest);
        refuse_another(&self.manifests, &prefix, &name)?;
        write_synced(&self.manifests, &name, &serde_json::to_vec(&manifest)?)
    }
}

impl<'a> From<&'a NamedLeaf> for LeafEntry<'a> {
    fn from(NamedLeaf { leaf, name }: &'a NamedLeaf) -> Self {
        Self {
            workload: leaf.workload,
            provider: leaf.provider,
            amount: leaf.amount.to_string(),
            source: name.as_ref().map(|(source, _)| source.as_str()),
            external_id: name.as_ref().map(|(_, external_id)| external_id.as_str()),
            revision: leaf.paid.map(|paid| paid.revision),
        }
    }
}

/// Refuses if the folder holds the manifest of another statement for the same epoch: it was signed before by a ledger that
/// is lost, and both could settle what the other paid.
fn refuse_another(folder: &Path, prefix: &str, name: &str) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file(folder)(error)),
    };
    for entry in entries {
        let other = entry.map_err(Error::file(folder))?.file_name().to_string_lossy().into_owned();
        if other.starts_with(prefix) && other.ends_with(".json") && other != name {
            let reason = format!("{name} would compete with {other}, which was signed before");
            return Err(Error::Ledger(ledger::Error::Unsignable(reason)));
        }
    }
    Ok(())
}

/// Writes a file whole: under another name first, then synced, renamed, and its folder synced.
fn write_synced(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let path = folder.join(name);
    let draft = folder.join(format!("{name}.draft"));
    let mut file = File::create(&draft).map_err(Error::file(&draft))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::file(&draft))?;
    fs::rename(&draft, &path).map_err(Error::file(&path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::file(folder))
}
