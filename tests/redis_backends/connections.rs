//! How a connection is made: sentinels, credentials, and servers that are refused. TLS is in `tls`.

use std::time::{Duration, Instant};

use nvent_native::Code;
use nvent_native::redis::{ConnectionFields, RedisConfig, Sentinels};
use nvent_native::store::{RedisStore, StoreBackend};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::conformance::name;
use crate::support::{TestRedis, eventually};
use crate::{connection_to, json as text, short_timeouts, store_on};

async fn set(store: &RedisStore) -> Result<(), nvent_native::Error> {
    store.kv_set(name("k"), text(json!(1)), None).await
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
