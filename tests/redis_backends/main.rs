//! The Redis backends against a real redis-server that each test starts for itself.

#[path = "../conformance/mod.rs"]
mod conformance;
mod connections;
mod consumer;
mod contention;
mod feed;
mod globs;
mod groups;
mod interop;
mod names;
mod outage;
mod paging;
mod same_as_memory;
mod store;
mod stream;
#[path = "../support/redis.rs"]
mod support;
mod tls;
#[path = "../support/tls.rs"]
mod tls_support;

use std::sync::Arc;
use std::time::Duration;

use nvent_native::event::NewEvent;
use nvent_native::json::{Json, Object, parse_object};
use nvent_native::redis::RedisConfig;
use nvent_native::store::{RedisStore, RedisStoreOptions, StoreBackend};
use nvent_native::stream::{RedisStream, RedisStreamOptions, RetainTopics, StreamBackend};
use serde_json::Value;
use tokio::runtime::Handle;

/// Returns the options of a connection for ordinary tests.
fn connection_to(port: u16) -> RedisConfig {
    RedisConfig { port, ..Default::default() }
}

/// Returns options with short timeouts, for tests that wait for them.
fn short_timeouts(port: u16) -> RedisConfig {
    RedisConfig {
        port,
        connect_timeout: Duration::from_millis(800),
        queue_timeout: Duration::from_millis(1_500),
        response_timeout: Duration::from_millis(800),
        ping_interval: Duration::from_millis(300),
        max_reconnect_delay: Duration::from_millis(200),
        ..Default::default()
    }
}

fn store_on(connection: RedisConfig) -> RedisStore {
    RedisStore::new(RedisStoreOptions { connection, ..Default::default() }, Handle::current())
}

fn event(text: &str) -> NewEvent {
    NewEvent::parse(text).unwrap()
}

fn object(value: Value) -> Object {
    parse_object("test", &value.to_string()).unwrap()
}

fn value(json: &Json) -> Value {
    serde_json::from_str(json).unwrap()
}

fn json(value: Value) -> Json {
    value.to_string().into()
}

async fn fresh_store() -> conformance::TestBackend<dyn StoreBackend> {
    let redis = support::TestRedis::start();
    let backend = Arc::new(store_on(connection_to(redis.port())));
    conformance::TestBackend { backend, capabilities: Default::default(), _guard: Box::new(redis) }
}

async fn fresh_stream(topics: &str) -> conformance::TestBackend<dyn StreamBackend> {
    let redis = support::TestRedis::start();
    let retain = Some(RetainTopics { topics: vec![topics.into()], max_len: 10_000, max_backlog: None });
    let options = RedisStreamOptions { connection: connection_to(redis.port()), retain, ..Default::default() };
    let backend = Arc::new(RedisStream::new(options, Handle::current()));
    conformance::TestBackend { backend, capabilities: Default::default(), _guard: Box::new(redis) }
}

async fn some_retained() -> conformance::TestBackend<dyn StreamBackend> {
    fresh_stream("kept:*").await
}

async fn all_retained() -> conformance::TestBackend<dyn StreamBackend> {
    fresh_stream("*").await
}

store_conformance!(store_contract, crate::fresh_store);
stream_conformance!(stream_contract, crate::some_retained);
stream_conformance!(retained_stream_contract, crate::all_retained);
feed_conformance!(feed_contract, crate::fresh_store);
consumer_conformance!(consumer_contract, crate::fresh_store);
