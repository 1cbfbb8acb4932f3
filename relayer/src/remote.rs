//! Talking to a running `quittance serve`: it alone writes the ledger, so that other commands hand their work to it.

use std::{fmt, fs, path::Path};

use reqwest::{Client, Response, StatusCode};

use crate::{Error, Result, config::Config, intake::Report, keys};

/// File with the token that commands of this installation show to the server.
const TOKEN_FILE: &str = "keys/api-token";

/// A running server of this installation.
pub struct Remote {
    client: Client,
    base: String,
    token: String,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Remote {
    /// The server that the configuration describes.
    pub fn new(config: &Config) -> Result<Self> {
        let path = config.path(Path::new(TOKEN_FILE));
        let token = fs::read_to_string(&path).map_err(Error::file(&path))?.trim().to_owned();
        Ok(Self { client: Client::new(), base: format!("http://{}", config.http.listen), token })
    }

    /// Hands a file over.
    pub async fn take_in(&self, name: &str, bytes: Vec<u8>) -> Result<Report> {
        let url = format!("{}/v1/ingest/files/{}", self.base, percent_encoded(name));
        let response = self.client.post(url).bearer_auth(&self.token).body(bytes).send().await;
        let body = accepted(response, name).await?;
        Ok(serde_json::from_str(&body)?)
    }

    /// Orders a closing.
    pub async fn close_until(&self, until_ms: i64) -> Result<()> {
        let url = format!("{}/v1/closings/{until_ms}", self.base);
        let response = self.client.post(url).bearer_auth(&self.token).send().await;
        accepted(response, "closing").await.map(drop)
    }

    /// Has an operator's endpoints trusted again.
    pub async fn clear_endpoint(&self, operator: &str, reason: &str) -> Result<()> {
        let url = format!("{}/v1/endpoints/{}/clear", self.base, percent_encoded(operator));
        let request = self.client.post(url).bearer_auth(&self.token).body(reason.to_owned());
        accepted(request.send().await, operator).await.map(drop)
    }
}

/// A file name as a part of a path.
fn percent_encoded(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    name.bytes()
        .map(
            |byte| {
                if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

async fn accepted(response: reqwest::Result<Response>, name: &str) -> Result<String> {
    let failed = |reason: String| Error::Input { name: name.to_owned(), reason };
    let response = response.map_err(|error| {
        failed(format!("the ledger is in use, and its server does not answer: {error}"))
    })?;
    let status = response.status();
    let body = response.text().await.map_err(|error| failed(error.to_string()))?;
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(failed(format!("the server refused: {status} {body}")))
    }
}

/// The installation's token; made at first use.
pub(crate) fn token(config: &Config) -> Result<String> {
    let path = config.path(Path::new(TOKEN_FILE));
    if !path.exists() {
        keys::write_new(&path, &format!("{}\n", keys::random()))?;
    }
    Ok(fs::read_to_string(&path).map_err(Error::file(&path))?.trim().to_owned())
}
