//! The hosted attester: publishes a statement's manifest, then signs it.

use std::{fmt, sync::Arc};

use alloy::primitives::Address;
use k256::ecdsa::SigningKey;
use ledger::{
    Millis,
    book::BookWriter,
    manifest::Secret,
    read::{Reader, SignedStatement},
};

use crate::{Result, manifests::Manifests};

/// Signs statements with the attester's key.
pub struct Attester {
    key: SigningKey,
    secret: Secret,
    manifests: Arc<Manifests>,
    reader: Reader,
    book: BookWriter,
}

impl fmt::Debug for Attester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attester").field("manifests", &self.manifests).finish_non_exhaustive()
    }
}

impl Attester {
    /// An attester that publishes into the folders of `manifests`.
    pub const fn new(
        key: SigningKey,
        secret: Secret,
        manifests: Arc<Manifests>,
        reader: Reader,
        book: BookWriter,
    ) -> Self {
        Self { key, secret, manifests, reader, book }
    }

    /// The address that deposits name as their signer.
    pub fn address(&self) -> Address {
        ledger::statement::address_of(self.key.verifying_key())
    }

    /// Where it publishes.
    pub const fn manifests(&self) -> &Arc<Manifests> {
        &self.manifests
    }

    /// The secret of one organisation's workload ids.
    pub fn secret_of(&self, organisation: &str) -> Secret {
        self.secret.of_organisation(organisation)
    }

    /// Signs a recorded statement, once its manifest is published.
    pub async fn sign(&self, statement: i64) -> Result<SignedStatement> {
        self.manifests.publish(&self.reader.export(statement).await?).await?;
        Ok(self.book.sign_statement(statement, &self.key).await?)
    }

    /// Notices what was signed and is not known here: by the chain, and by manifests that appeared in the folders. It
    /// freezes its deposits. Comes before anything is proposed or signed.
    pub async fn notice(&self, now: Millis) -> Result<usize> {
        self.manifests.notice(&self.reader, &self.book, now).await
    }
}
