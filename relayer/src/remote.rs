//! Talking to a running `quittance serve`: it alone writes the ledger, so that other commands hand their work to it.

use std::{fmt, fs, path::Path};

use reqwest::{Client, Response, StatusCode};
use serde::Serialize;

use crate::{
    Error, Result,
    config::Config,
    decide::Decision,
    intake::Report,
    keys,
    recover::{CutOff, Recovery},
};

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
        let token = read_token(&config.path(Path::new(TOKEN_FILE)))?;
        // The token is for this server, not for a proxy on the way to others.
        let client = Client::builder().no_proxy().build().map_err(|error| Error::Server {
            name: "the server".into(),
            reason: error.to_string(),
        })?;
        Ok(Self { client, base: format!("http://{}", config.http.listen), token })
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

    /// Hands a decision over.
    pub async fn decide(&self, decision: &Decision) -> Result<()> {
        self.post("decisions", Some(decision)).await.map(drop)
    }

    /// Orders that manifests be imported, or that a cut-off be set.
    pub async fn recover(&self, cut_off: Option<&CutOff>) -> Result<Recovery> {
        let body = match cut_off {
            None => self.post::<CutOff>("recovery", None).await?,
            Some(_) => self.post("recovery/cut-offs", cut_off).await?,
        };
        Ok(serde_json::from_str(&body)?)
    }

    async fn post<T: Serialize>(&self, path: &str, content: Option<&T>) -> Result<String> {
        let mut request =
            self.client.post(format!("{}/v1/{path}", self.base)).bearer_auth(&self.token);
        if let Some(content) = content {
            request = request.body(serde_json::to_vec(content)?);
        }
        accepted(request.send().await, path).await
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

/// What a server answered, or why it did not take what was handed to it: whoever did that learns whether to send something
/// else, to wait, or to look at the server.
async fn accepted(response: reqwest::Result<Response>, name: &str) -> Result<String> {
    let failed = |reason: String| Error::Server { name: name.to_owned(), reason };
    let response = response.map_err(|error| {
        failed(format!("the ledger is in use, and its server does not answer: {error}"))
    })?;
    let status = response.status();
    let body = response.text().await.map_err(|error| failed(error.to_string()))?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let reason = format!("the server refused: {status} {body}");
    Err(match body.strip_prefix("halted: ") {
        Some(halt) if status == StatusCode::SERVICE_UNAVAILABLE => Error::Halted(halt.to_owned()),
        _ if status.is_client_error() => Error::Input { name: name.to_owned(), reason },
        _ => failed(reason),
    })
}

/// The installation's token; made at first use.
pub(crate) fn token(config: &Config) -> Result<String> {
    let path = config.path(Path::new(TOKEN_FILE));
    if !path.exists() {
        keys::write_new(&path, &format!("{}\n", keys::random()))?;
    }
    read_token(&path)
}

/// Refuses an empty file, which no header can show and which a server must not take for a token, and one that others can read.
fn read_token(path: &Path) -> Result<String> {
    keys::refuse_readable(path)?;
    let text = fs::read_to_string(path).map_err(Error::file(path))?;
    match text.trim() {
        "" => Err(keys::key_error(
            path,
            &"it is empty; remove it, and the next `quittance serve` makes one",
        )),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    /// A server that answers everything alike.
    async fn answering(status: StatusCode, body: &'static str) -> Remote {
        let app = axum::Router::new().fallback(move || async move { (status, body) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Remote { client: Client::new(), base, token: String::new() }
    }

    /// What would break it: one code for all, by which a script takes a halt for a bad file.
    #[tokio::test]
    async fn what_a_server_refuses_ends_with_the_code_of_its_reason() {
        for (status, body, code, told) in [
            (503, "halted: L23 open, item 1: listed", 5, "halted: L23 open, item 1: listed"),
            (503, "the database cannot be written: the disk is full", 1, "the disk is full"),
            (500, "internal error; see the server's log", 1, "see the server's log"),
            (302, "", 1, "302"),
            (400, "Invalid URL", 2, "Invalid URL"),
            (401, "show the token", 2, "show the token"),
            (413, "split the file", 2, "split the file"),
            (422, "it is not UTF-8", 2, "it is not UTF-8"),
        ] {
            let remote = answering(StatusCode::from_u16(status).unwrap(), body).await;
            let error = remote.close_until(0).await.unwrap_err();
            assert_eq!(error.exit_code(), code, "{status}: {error}");
            assert!(error.to_string().contains(told), "{status}: {error}");
        }
        let base = "http://127.0.0.1:1".to_owned();
        let nobody = Remote { client: Client::new(), base, token: String::new() };
        let error = nobody.close_until(0).await.unwrap_err();
        assert_eq!(error.exit_code(), 1, "{error}");
        assert!(error.to_string().contains("its server does not answer"), "{error}");
    }

    fn write_for(mode: u32, path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_token_that_others_may_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api-token");
        for mode in [0o644, 0o640, 0o602] {
            write_for(mode, &path, "0x12");
            let told = crate::chain_of(&read_token(&path).unwrap_err());
            assert!(told.contains("run chmod 600 on it"), "{told}");
        }
        write_for(0o600, &path, "0x12\n");
        assert_eq!(read_token(&path).unwrap(), "0x12");
    }

    #[test]
    fn an_empty_token_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api-token");
        for text in ["", "\n"] {
            write_for(0o600, &path, text);
            let told = crate::chain_of(&read_token(&path).unwrap_err());
            assert!(told.contains("it is empty; remove it"), "{told}");
        }
    }
}
