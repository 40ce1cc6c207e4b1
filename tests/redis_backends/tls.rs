//! TLS: which servers are trusted, what the others get to see, and what cannot be configured.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvent_native::Code;
use nvent_native::redis::{RedisConfig, TlsOptions};
use nvent_native::store::{RedisStore, StoreBackend};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::HandshakeKind;

use crate::conformance::name;
use crate::support::{TestRedis, eventually};
use crate::tls_support::{Authority, Issued, TlsServer};
use crate::{connection_to, json as text, store_on};

const PASSWORD: &str = "correct-horse";

async fn set(store: &RedisStore) -> Result<(), nvent_native::Error> {
    let set = tokio::time::timeout(Duration::from_secs(60), store.kv_set(name("k"), text(json!(1)), None));
    set.await.expect("a connection, or a failure that is not retried")
}

fn trusting(root: &str) -> TlsOptions {
    let mut options = TlsOptions::default();
    options.ca = vec![root.to_owned()];
    options
}

/// Returns a configuration with which what is retried is retried for an hour.
fn config(port: u16, tls: TlsOptions) -> RedisConfig {
    RedisConfig {
        host: "localhost".into(),
        tls: Some(tls),
        queue_timeout: Duration::from_secs(3_600),
        ..connection_to(port)
    }
}

fn on_localhost(port: u16, tls: TlsOptions) -> RedisStore {
    store_on(config(port, tls))
}

/// Expects that a call fails for good, and waits for no better time. Returns its message.
async fn is_refused_at_once(store: RedisStore, what: &str) -> String {
    let mut message = String::new();
    for _ in 0..3 {
        let error = set(&store).await.expect_err(what);
        assert!(error.code() == Code::Unavailable, "{what}: {error}");
        assert!(!error.is_retryable() && !error.is_maybe_applied(), "{what}: {error}");
        message = error.message().to_owned();
        assert!(message.contains("TLS failed"), "{what}: {message}");
    }
    message
}

/// Returns a store with a password, which must reach no server that is not trusted.
fn with_password(port: u16, tls: TlsOptions) -> RedisStore {
    store_on(RedisConfig { password: Some(PASSWORD.into()), ..config(port, tls) })
}

/// A redis-server with TLS, on a port of its own.
struct TlsRedis {
    redis: TestRedis,
    port: u16,
    _dir: tempfile::TempDir,
}

impl TlsRedis {
    fn start(authority: &Authority, issued: &Issued, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (certificate, key) = (file("cert.pem", &issued.chain), file("key.pem", &issued.key));
        let root = file("ca.pem", &authority.root());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port_text = port.to_string();
        let mut args = vec!["--tls-port", &port_text, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        args.extend(["--tls-ca-cert-file", &root]);
        args.extend(more);
        Self { redis: TestRedis::start_with(&args), port, _dir: dir }
    }
}

#[tokio::test]
async fn a_server_whose_chain_ends_in_a_trusted_root_is_reached() {
    let authority = Authority::new();
    let server = TlsRedis::start(&authority, &authority.issue("localhost"), &["--tls-auth-clients", "no"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.pem");
    std::fs::write(&path, authority.root()).unwrap();
    // The root as text and as a path.
    for root in [&authority.root(), path.to_str().unwrap()] {
        set(&on_localhost(server.port, trusting(root))).await.unwrap();
    }
    let mut unverified = TlsOptions::default();
    unverified.reject_unauthorized = false;
    set(&on_localhost(server.port, unverified)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_not_right_is_refused_at_once_and_gets_no_password() {
    let (authority, redis) = (Authority::new(), TestRedis::start());
    for (issued, root, what, reason) in [
        (authority.issue("other.example"), authority.root(), "another host", "not valid for name"),
        (authority.issue("localhost"), Authority::new().root(), "another authority", "UnknownIssuer"),
        (authority.issue_expired("localhost"), authority.root(), "expired", "expired"),
    ] {
        let server = TlsServer::start(&issued, redis.port()).await;
        let message = is_refused_at_once(with_password(server.port(), trusting(&root)), what).await;
        assert!(message.contains(reason) && message.contains("check connection.tls.ca"), "{what}: {message}");
        assert!(!message.contains(PASSWORD), "{message}");
        assert_eq!((server.handshakes(), server.received()), (vec![], String::new()), "{what}");
    }

    // The name that it must have can be given.
    let server = TlsServer::start(&authority.issue("other.example"), redis.port()).await;
    let mut named = trusting(&authority.root());
    named.servername = Some("other.example".into());
    set(&on_localhost(server.port(), named.clone())).await.unwrap();
    named.servername = Some("third.example".into());
    is_refused_at_once(on_localhost(server.port(), named), "another name than the given one").await;
}

#[tokio::test]
async fn a_trusted_server_gets_the_password() {
    let authority = Authority::new();
    let redis = TestRedis::start_with(&["--requirepass", PASSWORD]);
    let server = TlsServer::start(&authority.issue("localhost"), redis.port()).await;
    set(&with_password(server.port(), trusting(&authority.root()))).await.unwrap();
    assert!(server.received().contains(PASSWORD));
}

#[tokio::test]
async fn a_server_without_tls_is_refused_at_once_and_gets_no_password() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Arc::new(Mutex::new(Vec::new()));
    let record = received.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            _ = client.write_all(b"-ERR Protocol error: expected '$'\r\n").await;
            while let Ok(count @ 1..) = client.read(&mut buffer).await {
                record.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        }
    });
    let message = is_refused_at_once(with_password(port, TlsOptions::default()), "plain text").await;
    assert!(message.contains("does not speak TLS on this port"), "{message}");
    let received = String::from_utf8_lossy(&received.lock().unwrap()).into_owned();
    assert!(!received.contains(PASSWORD) && !received.contains("AUTH"), "{received:?}");
}

#[tokio::test]
async fn a_version_before_tls_1_2_is_refused_at_once_and_gets_no_password() {
    let authority = Authority::new();
    let old = ["--tls-auth-clients", "no", "--tls-protocols", "TLSv1.1", "--tls-ciphers", "DEFAULT:@SECLEVEL=0"];
    let server = TlsRedis::start(&authority, &authority.issue("localhost"), &old);
    let message = is_refused_at_once(with_password(server.port, trusting(&authority.root())), "TLS 1.1").await;
    assert!(message.contains("TLS 1.2 is the least"), "{message}");
    assert!(!server.redis.info("cmdstat_auth").contains("calls"));
}

#[tokio::test]
async fn a_client_certificate_is_presented_where_the_server_requires_one() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = TlsRedis::start(&authority, &authority.issue("localhost"), &["--tls-auth-clients", "yes"]);
    let presenting = |issued: Option<Issued>| {
        let mut tls = trusting(&authority.root());
        (tls.cert, tls.key) = issued.map(|issued| (issued.chain, issued.key)).unzip();
        on_localhost(server.port, tls)
    };
    set(&presenting(Some(authority.issue("client")))).await.unwrap();
    for (issued, what) in [
        (None, "no certificate"),
        (Some(stranger.issue("client")), "another authority"),
        (Some(authority.issue_expired("client")), "expired"),
    ] {
        let message = is_refused_at_once(presenting(issued), what).await;
        assert!(message.contains("check connection.tls.cert"), "{what}: {message}");
    }
}

#[tokio::test]
async fn a_lost_connection_resumes_its_session() {
    let (authority, redis) = (Authority::new(), TestRedis::start());
    let server = TlsServer::start(&authority.issue("localhost"), redis.port()).await;
    let store = on_localhost(server.port(), trusting(&authority.root()));
    set(&store).await.unwrap();
    assert_eq!(server.handshakes(), [HandshakeKind::Full]);
    redis.raw(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("it is connected again", || server.handshakes().len() == 2).await;
    set(&store).await.unwrap();
    assert_eq!(server.handshakes(), [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[tokio::test]
async fn what_cannot_be_used_is_named_and_a_key_is_never_shown() {
    let redis = TestRedis::start();
    let is_invalid = async |tls: TlsOptions, part: &str| {
        let error = set(&on_localhost(redis.port(), tls)).await.unwrap_err();
        assert!(error.code() == Code::Invalid && !error.is_retryable(), "{error}");
        assert!(error.message().contains(part) && !error.message().contains("c2VjcmV0"), "{error}");
    };
    is_invalid(trusting("/nowhere/ca.pem"), "connection.tls.ca: /nowhere/ca.pem is not usable").await;
    is_invalid(trusting("-----BEGIN NOTHING-----\n"), "connection.tls.ca: not usable").await;
    let issued = Authority::new().issue("client");
    let presenting = |cert: Option<&str>, key: Option<&str>| {
        let mut tls = TlsOptions::default();
        tls.reject_unauthorized = false;
        (tls.cert, tls.key) = (cert.map(str::to_owned), key.map(str::to_owned));
        tls
    };
    let secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    assert!(!format!("{:?}", presenting(None, Some(secret))).contains("c2VjcmV0"));
    is_invalid(presenting(Some(&issued.chain), Some(secret)), "connection.tls.key: not usable").await;
    is_invalid(presenting(Some(&issued.chain), Some("/nowhere/key.pem")), "/nowhere/key.pem is not usable").await;
    is_invalid(presenting(Some("/nowhere/cert.pem"), Some(&issued.key)), "/nowhere/cert.pem is not usable").await;
    let another = Authority::new().issue("client");
    is_invalid(presenting(Some(&issued.chain), Some(&another.key)), "connection.tls.key").await;
    is_invalid(presenting(Some(&issued.chain), None), "cert and key belong together").await;
    is_invalid(presenting(None, Some(&issued.key)), "cert and key belong together").await;
}

const PORT: &str = "NVENT_TEST_TLS_PORT";

/// Connects with the roots of its environment, and prints how that went: not a test of its own.
#[tokio::test]
async fn child() {
    let Ok(port) = std::env::var(PORT) else { return };
    match set(&on_localhost(port.parse().unwrap(), TlsOptions::default())).await {
        Ok(()) => println!("result: connected"),
        Err(error) => println!("result: {:?} {}", error.code(), error.message()),
    }
}

/// Connects in a process with these variables, as the environment of this one is shared by its tests.
async fn connect_with(port: u16, env: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tls::child", "--nocapture"]).env(PORT, port.to_string());
    ["SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"].iter().for_each(|name| _ = command.env_remove(name));
    command.envs(env.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let result = output.lines().find_map(|line| line.split_once("result: "));
    result.unwrap_or_else(|| panic!("no result in {output:?}")).1.to_owned()
}

#[tokio::test]
async fn roots_come_from_the_environment_and_a_file_that_is_missing_is_named() {
    let (authority, redis) = (Authority::new(), TestRedis::start());
    let server = TlsServer::start(&authority.issue("localhost"), redis.port()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (root, other) = (file("root.pem", &authority.root()), file("other.pem", &Authority::new().root()));
    let (empty, missing) = (file("empty.pem", ""), "/nowhere/roots.pem");
    let empty_dir = tempfile::tempdir().unwrap();
    let empty_dir = empty_dir.path().to_str().unwrap();
    let (ssl, extra) = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS");
    let no_certificate = format!("connection.tls: {ssl}={empty} contains no certificate; set connection.tls.ca");
    for (env, expected) in [
        (&[(ssl, root.as_str())][..], "connected"),
        (&[(ssl, &root), (extra, "")], "connected"),
        (&[(ssl, &root), (extra, &other)], "connected"),
        (&[(ssl, &other), (extra, &root)], "connected"),
        (&[(extra, &root)], "connected"),
        (&[("SSL_CERT_DIR", empty_dir), (extra, &root)], "connected"),
        (&[(ssl, &other)], "UnknownIssuer"),
        (&[(ssl, missing), (extra, &root)], "connection.tls: SSL_CERT_FILE=/nowhere/roots.pem cannot be read"),
        (&[(ssl, &empty)], &no_certificate),
        (&[("SSL_CERT_DIR", empty_dir)], "connection.tls: the system has no root certificates; set connection.tls.ca"),
        (&[(ssl, &root), (extra, missing)], "NODE_EXTRA_CA_CERTS: /nowhere/roots.pem is not usable"),
        (&[(ssl, &root), (extra, &empty)], "it contains no certificate"),
    ] {
        let result = connect_with(server.port(), env).await;
        assert!(result.contains(expected), "{env:?}: {result}");
        let is_configuration = !["connected", "UnknownIssuer"].contains(&expected);
        assert_eq!(result.starts_with("Invalid"), is_configuration, "{env:?}: {result}");
    }
}
