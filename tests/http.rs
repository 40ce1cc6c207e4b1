//! The client of webhooks against receivers that misbehave.

#[path = "support/tls.rs"]
mod tls_support;

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nvent_native::http::{ClientOptions, HttpClient, PostRequest, Resolve, Secret, verify};
use nvent_native::op::BoxFuture;
use nvent_native::time::ManualClock;
use nvent_native::{Code, Error};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::rustls::HandshakeKind;

use tls_support::{Authority, TlsServer};

/// What a receiver does with a request it has read. Writes go out one by one, with a pause between them.
#[derive(Clone)]
struct Script {
    writes: Vec<Vec<u8>>,
    pause: Duration,
    then_close: bool,
}

fn answer(text: &str) -> Script {
    Script { writes: vec![text.into()], pause: Duration::ZERO, then_close: false }
}

struct Receiver {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    /// Connections that the client has closed.
    closed: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            port: listener.local_addr().unwrap().port(),
            connections: Arc::default(),
            requests: Arc::default(),
            closed: Arc::default(),
        };
        let (connections, requests, closed) =
            (receiver.connections.clone(), receiver.requests.clone(), receiver.closed.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(socket, script.clone(), requests.clone(), closed.clone()));
            }
        });
        receiver
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
    requests: Arc<Mutex<Vec<String>>>,
    closed: Arc<AtomicUsize>,
) {
    let mut text = Vec::new();
    'requests: loop {
        let whole = loop {
            if let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let whole = end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap());
                if text.len() >= whole {
                    break whole;
                }
            }
            let mut chunk = [0; 65_536];
            match socket.read(&mut chunk).await {
                Ok(n) if n > 0 => text.extend_from_slice(&chunk[..n]),
                _ => break 'requests,
            }
        };
        let request: Vec<u8> = text.drain(..whole).collect();
        requests.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
        for bytes in &script.writes {
            if socket.write_all(bytes).await.is_err() {
                break 'requests;
            }
            tokio::time::sleep(script.pause).await;
        }
        if script.then_close {
            break;
        }
    }
    closed.fetch_add(1, Ordering::SeqCst);
}

fn client() -> HttpClient {
    HttpClient::new(ClientOptions::default())
}

fn request(url: &str) -> PostRequest {
    PostRequest {
        url: url.into(),
        body: "{}".into(),
        timeout: Duration::from_secs(10),
        allow_private: true,
        id: "hook:1-0:ab".into(),
        ..PostRequest::default()
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_is_signed_and_carries_its_headers() {
    let receiver = Receiver::start(answer(OK)).await;
    let client =
        HttpClient::new(ClientOptions { clock: ManualClock::at(1_700_000_000_999), ..ClientOptions::default() });
    let secret = Secret::parse("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let sent = PostRequest {
        secrets: vec![secret.clone()],
        headers: vec![("X-Own".into(), "1".into()), ("Content-Type".into(), "application/cloudevents+json".into())],
        body: "{\"a\":\"ü\"}".into(),
        ..request(&receiver.url())
    };
    assert_eq!(client.post(sent).await.unwrap().status, 200);
    let requests = receiver.requests.lock().unwrap();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
    assert_eq!((header("webhook-id"), header("webhook-timestamp")), ("hook:1-0:ab", "1700000000"));
    assert_eq!((header("x-own"), header("content-type")), ("1", "application/cloudevents+json"));
    assert!(verify(&[secret], "hook:1-0:ab", 1_700_000_000, body.as_bytes(), header("webhook-signature")));
}

#[tokio::test]
async fn connections_are_kept_alive_and_used_again() {
    let receiver = Receiver::start(answer(OK)).await;
    let client = client();
    for _ in 0..5 {
        assert_eq!(client.post(request(&receiver.url())).await.unwrap().status, 200);
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::start(answer(OK)).await;
    let location = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url());
    let receiver = Receiver::start(answer(&location)).await;
    let response = client().post(request(&receiver.url())).await.unwrap();
    assert_eq!((response.status, response.location), (302, Some(elsewhere.url())));
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn retry_after_is_handed_on() {
    let receiver = Receiver::start(answer("HTTP/1.1 429 Slow\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n")).await;
    let response = client().post(request(&receiver.url())).await.unwrap();
    assert_eq!((response.status, response.retry_after.as_deref()), (429, Some("120")));
}

#[tokio::test]
async fn a_receiver_that_hangs_or_dribbles_its_headers_is_left_at_the_timeout() {
    let silent = Script { writes: Vec::new(), pause: Duration::ZERO, then_close: false };
    let dribbling = Script {
        writes: OK.bytes().map(|byte| vec![byte]).collect(),
        pause: Duration::from_millis(200),
        then_close: false,
    };
    for script in [silent, dribbling] {
        let receiver = Receiver::start(script).await;
        let sent = PostRequest { timeout: Duration::from_millis(300), ..request(&receiver.url()) };
        let error = client().post(sent).await.unwrap_err();
        assert!(error.is_retryable() && error.message() == "no response within 300 ms", "{error}");
        until("the connection is closed", || receiver.closed.load(Ordering::SeqCst) == 1).await;
    }
}

#[tokio::test]
async fn a_body_without_end_is_cut_and_its_connection_closed() {
    let mut writes = vec![b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()];
    writes.extend(std::iter::repeat_n(format!("1000\r\n{}\r\n", "x".repeat(4096)).into_bytes(), 100_000));
    let fast = Script { writes, pause: Duration::ZERO, then_close: false };
    let mut writes = vec![b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()];
    writes.extend(std::iter::repeat_n(b"1\r\nx\r\n".to_vec(), 100_000));
    let slow = Script { writes, pause: Duration::from_millis(20), then_close: false };
    for script in [fast, slow] {
        let receiver = Receiver::start(script).await;
        let client = client();
        assert_eq!(client.post(request(&receiver.url())).await.unwrap().status, 200);
        until("the connection is closed", || receiver.closed.load(Ordering::SeqCst) == 1).await;
        assert_eq!(client.post(request(&receiver.url())).await.unwrap().status, 200);
        assert_eq!(receiver.connections(), 2);
    }
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let mut writes = vec![b"HTTP/1.1 200 OK\r\n".to_vec()];
    writes.extend((0..100_000).map(|n| format!("x-{n}: {}\r\n", "x".repeat(1000)).into_bytes()));
    let receiver = Receiver::start(Script { writes, pause: Duration::ZERO, then_close: false }).await;
    let error = client().post(request(&receiver.url())).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
}

#[tokio::test]
async fn a_receiver_that_closes_is_an_outage() {
    let receiver = Receiver::start(Script { writes: Vec::new(), pause: Duration::ZERO, then_close: true }).await;
    let error = client().post(request(&receiver.url())).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let error = client().post(request(&format!("http://{free}/"))).await.unwrap_err();
    assert!(error.is_retryable() && error.message().contains("refuses connections"), "{error}");
}

#[tokio::test]
async fn literals_in_every_spelling_are_refused() {
    let receiver = Receiver::start(answer(OK)).await;
    let client = client();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "１２７.0.0.1",
        "%31%32%37.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "0",
        "localhost",
        "LOCALHOST",
    ] {
        let sent = PostRequest { allow_private: false, ..request(&format!("http://{host}:{}/", receiver.port)) };
        let error = client.post(sent).await.unwrap_err();
        assert!(error.code() == Code::Invalid && error.message().contains("is refused"), "{host}: {error}");
    }
    assert_eq!(receiver.connections(), 0);
}

/// Answers each question with the next of its answers, and goes on with the last.
struct Scripted {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Resolve for Scripted {
    fn resolve(&self, _: &str) -> BoxFuture<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(async move {
            match answer.is_empty() {
                true => Err(Error::unavailable("no such host")),
                false => Ok(answer),
            }
        })
    }
}

fn scripted(answers: &[&[&str]]) -> Arc<Scripted> {
    let answers = answers.iter().map(|answer| answer.iter().map(|a| a.parse().unwrap()).collect()).collect();
    Arc::new(Scripted { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
}

fn resolving(answers: &[&[&str]]) -> (HttpClient, Arc<Scripted>) {
    let resolver = scripted(answers);
    (HttpClient::new(ClientOptions { resolver: resolver.clone(), ..ClientOptions::default() }), resolver)
}

#[tokio::test]
async fn a_name_is_resolved_once_and_what_was_checked_is_connected_to() {
    let receiver = Receiver::start(answer(OK)).await;
    // Public first, loopback when it is asked again.
    let (client, resolver) = resolving(&[&["2001:4860:4860::8888"], &["127.0.0.1"]]);
    let url = format!("http://rebinding.test:{}/", receiver.port);
    let sent = || PostRequest { allow_private: false, timeout: Duration::from_millis(500), ..request(&url) };
    // The first fails as it may, but never at the receiver; the second is refused.
    client.post(sent()).await.unwrap_err();
    assert_eq!((resolver.asked.load(Ordering::SeqCst), receiver.connections()), (1, 0));
    let error = client.post(sent()).await.unwrap_err();
    assert!(error.message().contains("rebinding.test is refused: 127.0.0.1 is a loopback address"), "{error}");
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn one_private_address_among_public_ones_refuses_the_name() {
    let (client, _) = resolving(&[&["8.8.8.8", "10.0.0.1"]]);
    let error = client.post(PostRequest { allow_private: false, ..request("http://mixed.test/") }).await.unwrap_err();
    assert!(error.message().contains("10.0.0.1 is a private address"), "{error}");
}

#[tokio::test]
async fn a_connection_that_was_allowed_for_one_is_not_given_to_another() {
    let receiver = Receiver::start(answer(OK)).await;
    let (client, resolver) = resolving(&[&["127.0.0.1"]]);
    let url = format!("http://receiver.test:{}/", receiver.port);
    assert_eq!(client.post(request(&url)).await.unwrap().status, 200);
    let error = client.post(PostRequest { allow_private: false, ..request(&url) }).await.unwrap_err();
    assert!(error.message().contains("is refused"), "{error}");
    assert_eq!(client.post(request(&url)).await.unwrap().status, 200);
    assert_eq!((receiver.connections(), resolver.asked.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test]
async fn the_next_address_is_tried_where_one_refuses() {
    let receiver = Receiver::start(answer(OK)).await;
    let (client, _) = resolving(&[&["127.0.0.2", "127.0.0.1"]]);
    let url = format!("http://receiver.test:{}/", receiver.port);
    assert_eq!(client.post(request(&url)).await.unwrap().status, 200);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_without_quoting_secrets() {
    let client = client();
    let long = "x".repeat(20 * 1024 * 1024 + 1);
    for (sent, part) in [
        (request("ftp://host/"), "expected http: or https:"),
        (request("file:///etc/passwd"), "expected http: or https:"),
        (request("http://"), "url: not usable"),
        (request("https://user:hunter2@host/"), "url: has a user or password"),
        (PostRequest { body: long, ..request("http://127.0.0.1:1/") }, "body: has 20971521 bytes"),
        (PostRequest { id: "a\nb".into(), ..request("http://127.0.0.1:1/") }, "id: not usable"),
    ] {
        let error = client.post(sent).await.unwrap_err();
        assert!(error.code() == Code::Invalid && error.message().contains(part), "{error}");
        assert!(!error.message().contains("hunter2"));
    }
    for (name, value) in [
        ("webhook-id", "x"),
        ("Webhook-Signature", "x"),
        ("HOST", "x"),
        ("Content-Length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("bad name", "x"),
        ("x", "hunter2\r\nx-injected: 1"),
    ] {
        let sent = PostRequest { headers: vec![(name.into(), value.into())], ..request("http://127.0.0.1:1/") };
        let error = client.post(sent).await.unwrap_err();
        assert!(error.code() == Code::Invalid && error.message().starts_with("headers"), "{error}");
        assert!(!error.message().contains("hunter2"));
    }
}

fn trusting(root: &str) -> HttpClient {
    let resolver = scripted(&[&["127.0.0.1"]]);
    HttpClient::new(ClientOptions { ca: vec![root.to_owned()], resolver, ..ClientOptions::default() })
}

#[tokio::test]
async fn tls_reaches_a_receiver_whose_certificate_is_trusted_and_sends_no_other_anything() {
    let (authority, receiver) = (Authority::new(), Receiver::start(answer(OK)).await);
    let url = |server: &TlsServer| format!("https://receiver.test:{}/", server.port());
    let server = TlsServer::start(&authority.issue("receiver.test"), receiver.port).await;
    assert_eq!(trusting(&authority.root()).post(request(&url(&server))).await.unwrap().status, 200);
    assert!(server.received().starts_with("POST / HTTP/1.1"));
    for (issued, root, reason) in [
        (authority.issue("other.test"), authority.root(), "not valid for name"),
        (authority.issue("receiver.test"), Authority::new().root(), "UnknownIssuer"),
        (authority.issue_expired("receiver.test"), authority.root(), "expired"),
    ] {
        let server = TlsServer::start(&issued, receiver.port).await;
        let error = trusting(&root).post(request(&url(&server))).await.unwrap_err();
        assert!(error.message().contains("TLS failed") && error.message().contains(reason), "{error}");
        // Its owner may renew it: a later attempt may succeed.
        assert!(error.is_retryable() && !error.is_maybe_applied(), "{error}");
        assert_eq!((server.handshakes(), server.received()), (vec![], String::new()), "{reason}");
    }
    assert_eq!(receiver.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_next_connection_to_a_receiver_resumes_the_session() {
    let once = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (authority, receiver) = (Authority::new(), Receiver::start(Script { then_close: true, ..answer(once) }).await);
    let server = TlsServer::start(&authority.issue("receiver.test"), receiver.port).await;
    let client = trusting(&authority.root());
    let url = format!("https://receiver.test:{}/", server.port());
    for _ in 0..2 {
        assert_eq!(client.post(request(&url)).await.unwrap().status, 200);
    }
    assert_eq!(server.handshakes(), [HandshakeKind::Full, HandshakeKind::Resumed]);
}
