//! The HTTP client of webhooks, and their signatures.

use std::sync::Arc;
use std::time::Duration;

use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::http::{ClientOptions, HttpClient, PostRequest, Secret, check_request, verify};
use crate::node::bridge::{Bridge, Reply, Shared, guard, reply};
use crate::op::Op;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Post {
    url: String,
    headers: Vec<(String, String)>,
    body: String,
    timeout: f64,
    allow_private: bool,
    id: String,
    secrets: Vec<String>,
}

/// Sends webhooks.
#[napi]
pub struct NativeHttp {
    client: HttpClient,
    bridge: Arc<Shared>,
}

#[napi]
impl NativeHttp {
    /// Creates a client.
    #[napi(constructor)]
    pub fn new(bridge: &Bridge) -> napi::Result<Self> {
        guard(|| Ok(Self { client: HttpClient::new(ClientOptions::default()), bridge: bridge.shared.clone() }))
    }

    /// Sends a signed POST; replies with `{ status, retryAfter, location, ms }`.
    #[napi]
    pub fn post(&self, request: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                // The text of the error could quote a secret.
                let post: Post = serde_json::from_str(&request).map_err(|_| Error::invalid("request: not usable"))?;
                let request = PostRequest {
                    url: post.url,
                    headers: post.headers,
                    body: post.body,
                    timeout: Duration::from_millis(post.timeout as u64),
                    allow_private: post.allow_private,
                    id: post.id,
                    secrets: secrets(&post.secrets)?,
                };
                let client = self.client.clone();
                Ok(Op::pending(async move { client.post(request).await }))
            },
            |response| {
                let json = serde_json::json!({
                    "status": response.status,
                    "retryAfter": response.retry_after,
                    "location": response.location,
                    "ms": response.ms,
                });
                Some(json.to_string())
            },
        )
    }

    /// Throws where a request to a URL with these headers and secrets could not be sent.
    #[napi]
    pub fn check(url: Option<String>, headers: Vec<Vec<String>>, given: Vec<String>) -> napi::Result<()> {
        guard(|| {
            let headers = headers.iter().filter_map(|pair| Some((pair.first()?.as_str(), pair.get(1)?.as_str())));
            check_request(url.as_deref(), headers)?;
            secrets(&given).map(drop)
        })
    }

    /// Returns whether a signature of the header was made with one of the secrets. The age is for the caller to check.
    #[napi]
    pub fn verify(
        given: Vec<String>,
        id: String,
        timestamp: i64,
        body: Buffer,
        signature: String,
    ) -> napi::Result<bool> {
        guard(|| Ok(verify(&secrets(&given)?, &id, timestamp, &body, &signature)))
    }
}

fn secrets(texts: &[String]) -> Result<Vec<Secret>> {
    texts.iter().map(|text| Secret::parse("secret", text)).collect()
}
