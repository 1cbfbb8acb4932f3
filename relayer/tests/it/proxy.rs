//! A proxy before the chain that answers some requests by itself.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::post};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The `result` or the `error` that a request is answered with, if it is not for the chain; or one of [`SILENCE`] and
/// [`BREAK`].
type Rule = Arc<dyn Fn(&Value) -> Option<Value> + Send + Sync>;

/// What a rule answers so that nothing ever comes back.
pub(crate) const SILENCE: Value = Value::Null;
/// What a rule answers so that the connection breaks once the chain has been asked.
pub(crate) const BREAK: Value = Value::Bool(false);

#[derive(Clone)]
struct Proxy {
    target: String,
    client: reqwest::Client,
    rule: Rule,
}

/// Starts a proxy before `target` and returns its address.
pub(crate) async fn proxy(
    target: &str,
    rule: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (target, client) = (target.to_owned(), reqwest::Client::new());
    let proxy = Proxy { target, client, rule: Arc::new(rule) };
    let router = Router::new().fallback(post(answer)).with_state(proxy);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

/// An error answer, of a kind that is not asked for again at once.
pub(crate) fn refusal(message: &str) -> Value {
    json!({ "error": { "code": -32000, "message": message } })
}

async fn answer(State(proxy): State<Proxy>, Json(request): Json<Value>) -> Json<Value> {
    let rule = (proxy.rule)(&request);
    if rule == Some(SILENCE) {
        std::future::pending::<()>().await;
    }
    let mut answer = match rule.clone() {
        Some(answer) if answer != BREAK => answer,
        _ => {
            let sent = proxy.client.post(&proxy.target).json(&request).send().await.unwrap();
            sent.json().await.unwrap()
        }
    };
    assert_ne!(rule, Some(BREAK), "this ends the connection");
    answer["jsonrpc"] = json!("2.0");
    answer["id"] = request["id"].clone();
    Json(answer)
}
