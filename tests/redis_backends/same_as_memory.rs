//! The store computes what the one in memory computes: filters, merges and increments, for any JSON value.

use nvent_native::store::{EventQuery, StoreBackend};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::conformance::name;
use crate::store::page;
use crate::support::TestRedis;
use crate::{connection_to, event, json as text, object, store_on, value};

#[tokio::test]
async fn filters_mean_the_same_as_in_memory() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let values = [
        json!(null),
        json!(0),
        json!(1),
        json!(1.5),
        json!(-0.00001),
        json!(1e21),
        json!(true),
        json!(false),
        json!(""),
        json!("1"),
        json!("true"),
        json!("null"),
        json!("x"),
        json!("[1]"),
        json!([1]),
        json!([]),
        json!(["x", null]),
        json!({}),
        json!({"y": 1}),
        json!("{}"),
        json!("00123"),
        json!(9007199254740991_i64),
    ];
    let entries: Vec<_> = values.iter().map(|v| object(json!({"v": v, "deep": {"v": v}, "version": 0}))).collect();
    for (n, entry) in entries.iter().enumerate() {
        store.index_add(name("i"), name(&format!("{n:02}")), 0.0, entry.clone()).await.unwrap();
    }
    store.index_add(name("i"), name("none"), 0.0, object(json!({}))).await.unwrap();
    for path in ["v", "deep.v", "deep", "version", "v.y"] {
        for wanted in
            values.iter().cloned().chain([json!(["x", 1, null]), json!([[1], {}]), json!({"v": 1}), json!([true, "1"])])
        {
            let query = page(0, 100, json!({ path: wanted }));
            let mut expected: Vec<_> =
                (0..entries.len()).filter(|n| query.filter.matches(&entries[*n])).map(|n| format!("{n:02}")).collect();
            if query.filter.matches(&object(json!({"version": 0}))) {
                expected.push("none".into());
            }
            let read = store.index_read(name("i"), query).await.unwrap();
            let found: Vec<_> = read.iter().map(|entry| entry.id.to_string()).collect();
            assert_eq!(found, expected, "{path} {wanted}");
        }
    }
}

/// Returns a strategy for JSON values whose objects have no dots in their keys, with all that text could be taken for.
fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z\u{e4}\"]{0,5}",
        "-?[0-9]{1,4}",
        "(true|false|null|\\[1\\]|\\{\\}|1e5|0x10| 5 |-0|00123|Infinity|NaN|~nvent)",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5_i64..5).prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-c]", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Checks a property over a real server: proptest is synchronous, so each case blocks on the runtime.
fn property<S: Strategy>(cases: u32, strategy: S, test: impl AsyncFn(S::Value)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner
        .run(&strategy, |value| {
            runtime.block_on(test(value));
            Ok(())
        })
        .unwrap();
}

fn store_of(redis: &TestRedis) -> nvent_native::store::RedisStore {
    // Made inside the runtime of the property.
    store_on(connection_to(redis.port()))
}

#[test]
fn every_json_value_comes_back_from_another_instance() {
    let redis = TestRedis::start();
    property(150, any_value(), async |v| {
        let (one, other) = (store_of(&redis), store_of(&redis));
        one.kv_set(name("k"), text(v.clone()), None).await.unwrap();
        assert_eq!(value(&other.kv_get(name("k")).await.unwrap().unwrap()), v);
        let body = json!({"type": "t", "data": v, "a.b": v, "": v, "~nvent": v});
        let stored = one.append(name("s"), event(&body.to_string()), None, None).await.unwrap();
        let read =
            other.read(name("s"), EventQuery { limit: Some(1), descending: true, ..Default::default() }).await.unwrap();
        assert_eq!(value(&read[0]), value(stored.json()));
        one.index_add(name("i"), name("a"), 1.0, object(json!({"v": v, "deep": {"~nvent": v}}))).await.unwrap();
        let got = other.index_get(name("i"), name("a")).await.unwrap().unwrap();
        assert_eq!(value(&got.metadata), json!({"v": v, "deep": {"~nvent": v}, "version": 0}));
        one.close().await.unwrap();
        other.close().await.unwrap();
    });
}

#[test]
fn updates_on_the_server_merge_as_in_memory() {
    let redis = TestRedis::start();
    let patches = prop::collection::vec(prop::collection::vec(("[ab]", any_value()), 0..3), 1..4);
    property(150, (prop::collection::vec(("[ab]", any_value()), 0..3), patches), async |(first, patches)| {
        let store = store_of(&redis);
        let build = |fields: Vec<(String, Value)>| object(Value::Object(fields.into_iter().collect()));
        let mut expected = nvent_native::json::fresh_metadata(build(first.clone())).unwrap();
        store.index_add(name("i"), name("a"), 1.0, build(first.clone())).await.unwrap();
        for patch in patches.clone() {
            nvent_native::json::update_metadata(&mut expected, build(patch.clone()), None);
            assert!(store.index_update(name("i"), name("a"), build(patch), None).await.unwrap());
            let got = value(&store.index_get(name("i"), name("a")).await.unwrap().unwrap().metadata);
            assert!(
                nvent_native::json::equal(&got, &Value::Object(expected.clone())),
                "{first:?} {patches:?}: {got} instead of {expected:?}"
            );
            for path in ["a", "a.b", "b.a.c", "c"] {
                let mut copy = expected.clone();
                let wanted = nvent_native::json::increment_metadata(&mut copy, path, 1.5);
                let sum = store.index_increment(name("i"), name("a"), name(path), 1.5).await;
                assert_eq!(
                    wanted.as_ref().map_err(|e| e.code()),
                    sum.as_ref().map_err(|e| e.code()),
                    "{path} in {expected:?}"
                );
                if wanted.is_ok() {
                    expected = copy;
                }
            }
        }
        store.close().await.unwrap();
    });
}
