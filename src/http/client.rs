//! One POST: bounded in size and time, over connections that are kept alive. No redirect is followed.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::connect::{Connector, Resolve, SystemResolver, Tls};
use super::signature::{Secret, sign};
use crate::error::{Error, Result};
use crate::time::{SharedClock, system_clock};

/// Bytes of a request's body.
const MAX_REQUEST: usize = 20 * 1024 * 1024;
/// Bytes that are read of a response's body, so that its connection can be used again. After more it is closed.
const MAX_RESPONSE: usize = 64 * 1024;
/// How long a response's body is read. Its status has decided already.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a response's headers.
const MAX_HEADERS: usize = 64 * 1024;
/// How long a connection that is not used stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_IDLE_PER_HOST: usize = 8;
/// Bytes of a header of a response that is handed on.
const MAX_HEADER_TEXT: usize = 256;

/// Headers that belong to the connection or to the length of the body. Those of the signature are `webhook-…`.
const RESERVED: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-connection",
];

/// How a client works.
pub struct ClientOptions {
    /// The only roots to trust, as PEM text or paths. Empty: the system's and those of `NODE_EXTRA_CA_CERTS`.
    pub ca: Vec<String>,
    /// Resolves names.
    pub resolver: Arc<dyn Resolve>,
    /// Dates signatures.
    pub clock: SharedClock,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { ca: Vec::new(), resolver: Arc::new(SystemResolver), clock: system_clock() }
    }
}

/// A request.
#[derive(Debug, Default)]
pub struct PostRequest {
    /// `http:` or `https:`, without user and password.
    pub url: String,
    /// Further headers. `content-type` and `user-agent` have defaults.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// From resolving the name to the status.
    pub timeout: Duration,
    /// Whether addresses that are not public are connected to.
    pub allow_private: bool,
    /// `webhook-id`.
    pub id: String,
    /// What it is signed with; none: it is not signed.
    pub secrets: Vec<Secret>,
}

/// What a receiver answered. Its body is not kept.
#[derive(Debug)]
pub struct PostResponse {
    /// The status.
    pub status: u16,
    /// `retry-after`, as it was sent.
    pub retry_after: Option<String>,
    /// `location`, which is not followed.
    pub location: Option<String>,
    /// From the call to the status, in ms.
    pub ms: u64,
}

type Pool = Client<Connector, Full<Bytes>>;

/// Sends requests. Clones share their connections.
#[derive(Clone)]
pub struct HttpClient {
    /// Connections to public addresses only.
    public: Pool,
    /// Connections to any address: a pool of its own, so that a request never reuses a connection whose address was not checked for it.
    any: Pool,
    clock: SharedClock,
}

impl HttpClient {
    /// Creates a client. It connects when it is used, and needs a Tokio runtime then.
    pub fn new(options: ClientOptions) -> Self {
        let ClientOptions { ca, resolver, clock } = options;
        let tls = Arc::new(Tls::new(ca));
        let pool = |allow_private| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
                .http1_max_buf_size(MAX_HEADERS)
                .build(Connector { resolver: resolver.clone(), tls: tls.clone(), allow_private })
        };
        Self { public: pool(false), any: pool(true), clock }
    }

    /// Sends a request. Resolves with whatever status came; fails with [`crate::Code::Unavailable`] where none did, and with
    /// [`crate::Code::Invalid`] where it cannot be sent, also because its address is refused.
    pub async fn post(&self, request: PostRequest) -> Result<PostResponse> {
        let (started, limit) = (Instant::now(), request.timeout);
        let deadline = started + limit;
        let pool = if request.allow_private { &self.any } else { &self.public };
        let request = self.prepare(request)?;
        let response = match timeout_at(deadline, pool.request(request)).await {
            Ok(response) => response.map_err(|error| described(&error))?,
            Err(_) => return Err(Error::unavailable(format!("no response within {} ms", limit.as_millis()))),
        };
        let ms = started.elapsed().as_millis() as u64;
        let (parts, body) = response.into_parts();
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let text = |name| text(name).map(|text| text.chars().take(MAX_HEADER_TEXT).collect());
        let (retry_after, location) = (text(RETRY_AFTER), text(LOCATION));
        // Dropped unread where it takes too long, which closes the connection.
        let _ = timeout(DRAIN_TIMEOUT, drain(body)).await;
        Ok(PostResponse { status: parts.status.as_u16(), retry_after, location, ms })
    }

    fn prepare(&self, request: PostRequest) -> Result<Request<Full<Bytes>>> {
        let PostRequest { url, headers, body, id, secrets, .. } = request;
        if body.len() > MAX_REQUEST {
            return Err(Error::invalid(format!("body: has {} bytes; {MAX_REQUEST} are the most", body.len())));
        }
        let uri = parse_url(&url)?;
        let mut own = HeaderMap::new();
        let seconds = i64::try_from(self.clock.now_ms() / 1_000).unwrap_or(i64::MAX);
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Error::invalid("id: not usable as a header"));
        own.insert("webhook-id", value(&id)?);
        own.insert("webhook-timestamp", HeaderValue::from(seconds));
        if !secrets.is_empty() {
            own.insert("webhook-signature", value(&sign(&secrets, &id, seconds, body.as_bytes()))?);
        }
        own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        own.insert(USER_AGENT, HeaderValue::from_static(concat!("nvent-native/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &headers {
            let (name, value) = check_header(name, value)?;
            own.insert(name, value);
        }
        let mut request = Request::new(Full::new(Bytes::from(body)));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (Method::POST, uri, own);
        Ok(request)
    }
}

/// Checks what is known of a request before it is made.
pub fn check_request<'a>(url: Option<&str>, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<()> {
    if let Some(url) = url {
        parse_url(url)?;
    }
    headers.into_iter().try_for_each(|(name, value)| check_header(name, value).map(drop))
}

/// Parses a URL as browsers do, so that an address has one spelling. The URL is not quoted: it may hold a secret.
fn parse_url(text: &str) -> Result<Uri> {
    let mut url = Url::parse(text).map_err(|e| Error::invalid(format!("url: not usable: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::invalid(format!("url: expected http: or https:, got {}:", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid("url: has a user or password; send a header authorization instead"));
    }
    url.set_fragment(None);
    Uri::try_from(url.as_str()).map_err(|e| Error::invalid(format!("url: not usable: {e}")))
}

/// Checks a header of the user.
fn check_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let parsed = parsed.map_err(|_| Error::invalid(format!("headers: {name:?} is not the name of a header")))?;
    if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with("webhook-") {
        return Err(Error::invalid(format!("headers.{name}: is set by the sender")));
    }
    // The value may be a secret.
    let value = HeaderValue::from_str(value);
    Ok((parsed, value.map_err(|_| Error::invalid(format!("headers.{name}: expected one line of visible ASCII")))?))
}

async fn drain(mut body: Incoming) {
    let mut seen = 0;
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > MAX_RESPONSE {
            return;
        }
    }
}

/// Returns the error of the connector, or what hyper reports, to its cause.
fn described(error: &hyper_util::client::legacy::Error) -> Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<Error>() {
            return own.clone();
        }
        text = cause.to_string();
        source = cause.source();
    }
    Error::unavailable(format!("the connection failed: {text}"))
}
