//! Looks into the ledger's file and its folder of manifests from outside, as nobody in the process does.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy::{
    consensus::{Transaction, TxEnvelope},
    eips::eip2718::Decodable2718,
    primitives::{Bytes, keccak256},
    sol_types::SolCall,
};
use contracts::Settlement;
use serde_json::Value;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::Mutex;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    connection: Arc<Mutex<Option<SqliteConnection>>>,
    /// What SQLite counted when somebody asked for news; `None` while nobody has asked of this file.
    version: Arc<Mutex<Option<i64>>>,
    manifests: PathBuf,
}

impl Witness {
    pub(crate) fn new(manifests: PathBuf) -> Self {
        Self { connection: Arc::default(), version: Arc::default(), manifests }
    }

    /// Looks at another file from now on.
    pub(crate) async fn look_at(&self, path: &Path) {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let connection = SqliteConnection::connect_with(&options).await.expect("a readable file");
        *self.connection.lock().await = Some(connection);
        *self.version.lock().await = None;
    }

    /// Whether anything was committed to the file since this was asked before, or it was not asked of this file yet.
    pub(crate) async fn is_news(&self) -> bool {
        // Changes whenever another connection commits: <https://www.sqlite.org/pragma.html#pragma_data_version>.
        let now = self.number("pragma data_version").await;
        self.version.lock().await.replace(now) != Some(now)
    }

    /// One number out of the file.
    pub(crate) async fn number(&self, query: &'static str) -> i64 {
        let mut connection = self.connection.lock().await;
        let connection = connection.as_mut().expect("a file is being looked at");
        sqlx::query(query).fetch_one(connection).await.expect("an answer").get(0)
    }

    /// Rows of (text, text, number), as `query` selects them.
    pub(crate) async fn rows(&self, query: &'static str) -> Vec<(String, String, i64)> {
        let mut connection = self.connection.lock().await;
        let connection = connection.as_mut().expect("a file is being looked at");
        let rows = sqlx::query(query).fetch_all(connection).await.expect("an answer");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    /// What is wrong with a broadcast at the moment at which it leaves, if anything is: its bytes have to be in the file
    /// already, and every statement that it carries must have its manifest.
    pub(crate) async fn check_broadcast(&self, params: &Value) -> Option<String> {
        let raw: Bytes = serde_json::from_value(params.get(0)?.clone()).ok()?;
        let hash = keccak256(&raw);
        let mut connection = self.connection.lock().await;
        let row = sqlx::query("select count(*) from attempt where hash = ? and raw = ?")
            .bind(hash.to_vec())
            .bind(raw.to_vec())
            .fetch_one(connection.as_mut()?)
            .await;
        let count: i64 = match row {
            Ok(row) => row.get(0),
            Err(error) => return Some(format!("the attempts cannot be read: {error}")),
        };
        if count != 1 {
            return Some(format!("{hash} was broadcast before it was in the table of attempts"));
        }
        let envelope = TxEnvelope::decode_2718(&mut raw.as_ref()).ok()?;
        let call = Settlement::settleCall::abi_decode(envelope.input()).ok()?;
        for statement in call.statements {
            let key: contracts::eip712::DepositKey = statement.key.into();
            let prefix = format!("{}-{}-", key.id(), statement.epoch);
            if !self.has_manifest(&prefix) {
                return Some(format!("a signature left before a manifest {prefix}* was there"));
            }
        }
        None
    }

    fn has_manifest(&self, prefix: &str) -> bool {
        let Ok(entries) = std::fs::read_dir(&self.manifests) else { return false };
        entries.flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(prefix) && name.ends_with(".json")
        })
    }

    pub(crate) fn manifests(&self) -> &Path {
        &self.manifests
    }
}
