//! A transaction key in another process on this machine: a KMS client, an HSM, a vault.
//!
//! Two methods, JSON over HTTP POST: `{"method":"address"}` answers `{"address":"0x…"}`, and
//! `{"method":"sign","digest":"0x…"}` answers `{"signature":"0x…"}`, 65 bytes `r ‖ s ‖ v`. Loopback only, since whoever
//! reaches it can sign.

use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes, Signature};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Error, Result, config::SignerConfig};

/// Most bytes of an answer that are read.
const MAX_ANSWER: u64 = 4096;

/// A key that another process holds.
#[derive(Debug, Clone)]
pub struct RemoteKey {
    client: Client,
    url: String,
    address: Address,
}

#[derive(Deserialize)]
struct AddressAnswer {
    address: Address,
}

#[derive(Deserialize)]
struct SignatureAnswer {
    signature: Bytes,
}

impl RemoteKey {
    /// A key at the configured place. It is asked nothing yet.
    pub fn new(config: &SignerConfig) -> Result<Self> {
        if !config.listens.ip().is_loopback() {
            return Err(Error::Config {
                path: crate::config::FILE_NAME.into(),
                reason: format!(
                    "signer.listens is {}; only a loopback address is used",
                    config.listens
                ),
            });
        }
        let timeout = Duration::from_millis(config.timeout_ms);
        let client = Client::builder().no_proxy().timeout(timeout).build().map_err(failed)?;
        Ok(Self { client, url: format!("http://{}/", config.listens), address: config.address })
    }

    /// The account that it is configured to sign for.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Asks for the signature of a digest, once the signer has named the configured account. Not checked otherwise.
    pub(super) async fn sign(&self, digest: B256) -> Result<Signature> {
        let AddressAnswer { address } = self.ask(&json!({ "method": "address" })).await?;
        if address != self.address {
            return Err(Error::Signer(format!("it signs for {address}, not {}", self.address)));
        }
        let SignatureAnswer { signature } =
            self.ask(&json!({ "method": "sign", "digest": digest })).await?;
        Signature::from_raw(&signature)
            .map_err(|_| Error::Signer("its answer is not a signature of 65 bytes".into()))
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, question: &Value) -> Result<T> {
        let mut answer = self.client.post(&self.url).json(question).send().await.map_err(failed)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(Error::Signer(format!("it refused with status {status}")));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > MAX_ANSWER {
                return Err(Error::Signer(format!("its answer has more than {MAX_ANSWER} bytes")));
            }
        }
        serde_json::from_slice(&body)
            .map_err(|_| Error::Signer("its answer is not what the protocol says".into()))
    }
}

fn failed(error: reqwest::Error) -> Error {
    let reason = if error.is_timeout() {
        "it did not answer in time".into()
    } else {
        error.without_url().to_string()
    };
    Error::Signer(reason)
}
