//! How a connection is made: TLS, sentinels, and servers that are refused.

use std::time::{Duration, Instant};

use nvent_native::Code;
use nvent_native::redis::{ConnectionFields, RedisConfig, Sentinels, TlsOptions};
use nvent_native::store::{RedisStore, StoreBackend};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::conformance::name;
use crate::support::{TestRedis, eventually};
use crate::{connection_to, json as text, short_timeouts, store_on};

async fn set(store: &RedisStore) -> Result<(), nvent_native::Error> {
    store.kv_set(name("k"), text(json!(1)), None).await
}

/// A certificate authority with a directory for what it issues.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for a host. Returns its PEM text and that of its key.
    fn issue(&self, host: &str, expired: bool) -> (String, String) {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        if expired {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Starts a server with a certificate for this host. Returns it with its TLS port.
    fn server(&self, host: &str, expired: bool, auth_clients: &str) -> (TestRedis, u16) {
        let (certificate, key) = self.issue(host, expired);
        let (certificate, key) = (self.file("cert.pem", &certificate), self.file("key.pem", &key));
        let root = self.file("ca.pem", &self.root());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let redis = TestRedis::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &root,
            "--tls-auth-clients",
            auth_clients,
        ]);
        (redis, port)
    }
}

fn trusting(root: &str) -> TlsOptions {
    let mut options = TlsOptions::default();
    options.ca = vec![root.to_owned()];
    options
}

fn on_localhost(port: u16, tls: TlsOptions) -> RedisStore {
    store_on(RedisConfig { host: "localhost".into(), tls: Some(tls), ..connection_to(port) })
}

/// Expects that a call fails for good, and does not wait for a better time.
async fn is_refused_at_once(store: RedisStore, what: &str) {
    let began = Instant::now();
    for _ in 0..3 {
        let error = set(&store).await.unwrap_err();
        assert!(!error.is_retryable() && !error.is_maybe_applied(), "{what}: {error}");
        assert!(error.message().contains("TLS"), "{what}: {error}");
    }
    assert!(began.elapsed() < connection_to(1).queue_timeout, "{what}");
}

#[tokio::test]
async fn tls_reaches_a_server_whose_certificate_is_trusted() {
    let authority = Authority::new();
    let (_redis, port) = authority.server("localhost", false, "no");
    // The root as text and as a path.
    for root in [authority.root(), authority.file("root.pem", &authority.root())] {
        set(&on_localhost(port, trusting(&root))).await.unwrap();
    }
    let mut unverified = TlsOptions::default();
    unverified.reject_unauthorized = false;
    set(&on_localhost(port, unverified)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_not_right_is_refused_at_once_and_for_good() {
    let authority = Authority::new();
    let (_redis, port) = authority.server("other.example", false, "no");
    is_refused_at_once(on_localhost(port, trusting(&authority.root())), "another host").await;
    let mut named = trusting(&authority.root());
    named.servername = Some("other.example".into());
    set(&on_localhost(port, named)).await.unwrap();
    is_refused_at_once(on_localhost(port, trusting(&Authority::new().root())), "another authority").await;

    let authority = Authority::new();
    let (_redis, port) = authority.server("localhost", true, "no");
    is_refused_at_once(on_localhost(port, trusting(&authority.root())), "expired").await;
}

#[tokio::test]
async fn a_client_certificate_is_presented_where_the_server_requires_one() {
    let authority = Authority::new();
    let (_redis, port) = authority.server("localhost", false, "yes");
    let (certificate, key) = authority.issue("client", false);
    let mut tls = trusting(&authority.root());
    (tls.cert, tls.key) = (Some(certificate.clone()), Some(key));
    set(&on_localhost(port, tls)).await.unwrap();
    let error = set(&on_localhost(port, trusting(&authority.root()))).await.unwrap_err();
    assert!(!error.is_retryable() && error.message().contains("connection.tls.cert"), "{error}");
    let mut half = trusting(&authority.root());
    half.cert = Some(certificate);
    assert_eq!(set(&on_localhost(port, half)).await.unwrap_err().code(), Code::Invalid);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_and_a_key_is_never_shown() {
    let mut tls = trusting("/nowhere/ca.pem");
    let error = set(&on_localhost(1, tls.clone())).await.unwrap_err();
    assert!(error.code() == Code::Invalid || error.message().contains("reached"), "{error}");
    let redis = TestRedis::start();
    let error = set(&on_localhost(redis.port(), tls.clone())).await.unwrap_err();
    assert!(error.code() == Code::Invalid && error.message().contains("/nowhere/ca.pem"), "{error}");
    tls = TlsOptions::default();
    tls.reject_unauthorized = false;
    let secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    (tls.cert, tls.key) = (Some(Authority::new().root()), Some(secret.into()));
    assert!(!format!("{tls:?}").contains("c2VjcmV0"));
    let error = set(&on_localhost(redis.port(), tls)).await.unwrap_err();
    assert!(error.code() == Code::Invalid && !error.message().contains("c2VjcmV0"), "{error}");
}

#[tokio::test]
async fn a_node_of_a_cluster_is_refused_when_it_is_opened() {
    let redis = TestRedis::start_with(&["--cluster-enabled", "yes"]);
    let store = store_on(connection_to(redis.port()));
    let error = store.open().await.unwrap_err();
    assert!(
        error.code() == Code::Invalid && error.message().contains("Redis Cluster, which is not supported"),
        "{error}"
    );
    assert!(!store.health().await.unwrap().ok);
}

#[tokio::test]
async fn an_empty_username_and_password_are_none() {
    let redis = TestRedis::start();
    let fields = ConnectionFields {
        port: Some(redis.port()),
        username: Some(String::new()),
        password: Some(String::new()),
        ..Default::default()
    };
    set(&store_on(RedisConfig::from_fields(fields).unwrap())).await.unwrap();
    let redis::Value::BulkString(stats) = redis.raw(&["INFO", "commandstats"]) else { panic!("no INFO") };
    assert!(!String::from_utf8(stats).unwrap().contains("cmdstat_auth"));
}

#[tokio::test]
async fn health_does_without_a_role_that_an_acl_does_not_show() {
    let redis = TestRedis::start();
    redis.raw(&["ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all", "-role"]);
    let config =
        RedisConfig { username: Some("app".into()), password: Some("pass".into()), ..connection_to(redis.port()) };
    let health = store_on(config).health().await.unwrap();
    assert!(health.ok, "{health:?}");
}

#[tokio::test]
async fn a_server_that_sends_its_reply_a_byte_at_a_time_is_given_up() {
    let redis = TestRedis::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, server_port) = (listener.local_addr().unwrap().port(), redis.port());
    let dribbling = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = tokio::net::TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
                let ((mut from, mut to), (mut reader, mut writer)) = (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut writer).await });
                let mut total = 0;
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                    // The handshake passes; what follows is never complete.
                    for byte in &buffer[..count] {
                        total += 1;
                        if total > 1_000 {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        if to.write_all(&[*byte]).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    redis.raw(&["SET", "large", &format!("\"{}\"", "x".repeat(100_000))]);
    let store = store_on(short_timeouts(port));
    let error = store.kv_get(name("large")).await.unwrap_err();
    assert!(error.is_retryable() && error.message().contains("less than"), "{error}");
    dribbling.abort();
}

#[tokio::test]
async fn sentinels_name_the_primary_and_a_failover_is_followed() {
    let primary = TestRedis::start();
    let replica = TestRedis::start_with(&["--replicaof", &format!("127.0.0.1 {}", primary.port())]);
    let sentinel = TestRedis::start_sentinel("main", primary.port());
    let sentinels = Sentinels {
        // The first is not there.
        addresses: vec![("127.0.0.1".into(), 1), ("127.0.0.1".into(), sentinel.port())],
        name: "main".into(),
        password: None,
    };
    let config = RedisConfig { sentinels: Some(sentinels.clone()), ..connection_to(1) };
    let store = store_on(config.clone());
    set(&store).await.unwrap();
    assert_eq!(primary.connections_named("nvent-native"), 1);
    eventually("the replica is known", || replica.info("master_link_status") == "up").await;
    let knows_replica = || match sentinel.raw(&["SENTINEL", "REPLICAS", "main"]) {
        redis::Value::Array(replicas) => !replicas.is_empty(),
        _ => false,
    };
    eventually("the sentinel knows the replica", knows_replica).await;
    sentinel.raw(&["SENTINEL", "FAILOVER", "main"]);
    eventually("the replica is promoted", || replica.role() == "master").await;
    eventually("the old primary follows", || primary.role() == "slave").await;
    let until = Instant::now() + Duration::from_secs(20);
    while set(&store).await.is_err() {
        assert!(Instant::now() < until);
    }
    eventually("it is connected to the new primary", || replica.connections_named("nvent-native") == 1).await;

    let unknown = Sentinels { name: "other".into(), ..sentinels };
    let config = RedisConfig { sentinels: Some(unknown), ..short_timeouts(1) };
    let error = set(&store_on(config)).await.unwrap_err();
    assert!(error.message().contains("knows no primary"), "{error}");
}
