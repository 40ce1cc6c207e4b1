//! Names that meet on one key: no operation replaces or deletes what another kind of value, or another program, keeps there.

use nvent_native::Code;
use nvent_native::store::{RedisStore, StoreBackend};
use serde_json::json;

use crate::conformance::name;
use crate::support::TestRedis;
use crate::{connection_to, event, json as text, object, store_on, value};

/// A key that is a subject, a kv key, and the metadata of entry `zz` of index `x`.
const KEY: &str = "x:meta:zz";

async fn append(store: &RedisStore, subject: &str) -> Result<(), Code> {
    store.append(name(subject), event(r#"{"type":"t"}"#), None, None).await.map(drop).map_err(|e| e.code())
}

async fn add(store: &RedisStore, key: &str, id: &str) -> Result<(), Code> {
    store.index_add(name(key), name(id), 1.0, object(json!({"n": 1}))).await.map_err(|e| e.code())
}

/// Calls every operation that writes to [`KEY`] in one of its meanings. Some succeed where there is nothing to do.
async fn write_all(store: &RedisStore) -> Vec<(&'static str, Result<(), Code>)> {
    let code = |e: nvent_native::Error| e.code();
    vec![
        ("append", append(store, KEY).await),
        ("delete", store.delete_subject(name(KEY)).await.map(|deleted| assert!(!deleted)).map_err(code)),
        ("kv.set", store.kv_set(name(KEY), text(json!("new")), None).await.map_err(code)),
        ("kv.set with a ttl", store.kv_set(name(KEY), text(json!("new")), Some(60_000)).await.map_err(code)),
        ("kv.increment", store.kv_increment(name(KEY), 1.0).await.map(drop).map_err(code)),
        ("kv.increment by a fraction", store.kv_increment(name(KEY), 0.5).await.map(drop).map_err(code)),
        ("kv.delete", store.kv_delete(name(KEY)).await.map_err(code)),
        ("index.add, as an index", add(store, KEY, "a").await),
        ("index.add, as metadata", add(store, "x", "zz").await),
        (
            "index.update",
            store
                .index_update(name("x"), name("zz"), object(json!({"n": 2})), None)
                .await
                .map(|u| assert!(!u))
                .map_err(code),
        ),
        ("index.increment", store.index_increment(name("x"), name("zz"), name("n"), 1.0).await.map(drop).map_err(code)),
        ("index.delete, as an index", store.index_delete(name(KEY), name("a")).await.map(drop).map_err(code)),
        (
            "index.delete, as metadata",
            store.index_delete(name("x"), name("zz")).await.map(|d| assert!(!d)).map_err(code),
        ),
    ]
}

#[tokio::test]
async fn no_operation_replaces_or_deletes_what_another_keeps_under_a_name() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let makers: [(&str, &[&[&str]]); 6] = [
        ("a subject", &[]),
        ("the metadata of an entry", &[]),
        ("a set of another program", &[&["SADD", KEY, "m"]]),
        ("a list of another program", &[&["RPUSH", KEY, "m"]]),
        ("a hash of another program", &[&["HSET", KEY, "f", "t"]]),
        ("a sorted set of another program", &[&["ZADD", KEY, "1", "m"]]),
    ];
    for (what, commands) in makers {
        redis.raw(&["FLUSHDB"]);
        match what {
            "a subject" => append(&store, KEY).await.unwrap(),
            "the metadata of an entry" => add(&store, "x", "zz").await.unwrap(),
            _ => commands.iter().for_each(|command| _ = redis.raw(command)),
        }
        let before = redis.raw(&["DUMP", KEY]);
        if what == "a subject" || what == "the metadata of an entry" {
            // Only the operations of other kinds of name.
            let others = [
                ("kv.set", store.kv_set(name(KEY), text(json!(1)), None).await.unwrap_err().code()),
                ("kv.increment", store.kv_increment(name(KEY), 1.0).await.unwrap_err().code()),
                ("index.add", add(&store, KEY, "a").await.unwrap_err()),
            ];
            for (operation, code) in others {
                assert!(matches!(code, Code::Type | Code::Invalid), "{operation} on {what}: {code:?}");
            }
            store.kv_delete(name(KEY)).await.unwrap();
            if what == "a subject" {
                assert_eq!(add(&store, "x", "zz").await, Err(Code::Type));
                assert!(!store.index_delete(name("x"), name("zz")).await.unwrap());
                assert!(!store.index_update(name("x"), name("zz"), object(json!({"n": 2})), None).await.unwrap());
                // Nothing half done: the index has no entry without metadata.
                assert_eq!(redis.raw(&["EXISTS", "x"]), redis::Value::Int(0));
            } else {
                assert_eq!(append(&store, KEY).await, Err(Code::Type));
                assert!(!store.delete_subject(name(KEY)).await.unwrap());
            }
        } else {
            for (operation, result) in write_all(&store).await {
                if let Err(code) = result {
                    assert!(matches!(code, Code::Type | Code::Invalid | Code::NotFound), "{operation}: {code:?}");
                }
                assert_eq!(redis.raw(&["DUMP", KEY]), before, "{operation} changed {what}");
            }
        }
        assert_eq!(store.kv_clear(name("x:*")).await.unwrap(), 0, "{what}");
        assert_eq!(store.kv_clear(name("*")).await.unwrap(), 0, "{what}");
        assert_eq!(redis.raw(&["DUMP", KEY]), before, "{what}");
    }
}

#[tokio::test]
async fn a_kv_value_survives_every_operation_on_its_name_of_another_kind() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    store.kv_set(name(KEY), text(json!("kept")), None).await.unwrap();
    assert_eq!(append(&store, KEY).await, Err(Code::Type));
    assert!(!store.delete_subject(name(KEY)).await.unwrap());
    assert_eq!(add(&store, "x", "zz").await, Err(Code::Type));
    assert_eq!(add(&store, KEY, "a").await, Err(Code::Invalid));
    assert!(!store.index_delete(name("x"), name("zz")).await.unwrap());
    // An entry that another program made, whose metadata would be the value.
    redis.raw(&["ZADD", "x", "1", "zz"]);
    assert_eq!(add(&store, "x", "zz").await, Err(Code::Type));
    assert_eq!(
        store.index_update(name("x"), name("zz"), object(json!({"n": 2})), None).await.unwrap_err().code(),
        Code::Type
    );
    assert_eq!(store.index_increment(name("x"), name("zz"), name("n"), 1.0).await.unwrap_err().code(), Code::Type);
    assert_eq!(value(&store.index_get(name("x"), name("zz")).await.unwrap().unwrap().metadata), json!({"version": 0}));
    assert!(store.index_delete(name("x"), name("zz")).await.unwrap());
    assert_eq!(store.kv_get(name(KEY)).await.unwrap().as_deref(), Some("\"kept\""));
}

#[tokio::test]
async fn index_keys_that_would_share_metadata_with_another_index_are_refused() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    add(&store, "a", "b:meta:c").await.unwrap();
    add(&store, "a", "meta:c").await.unwrap();
    for (key, id) in [("a:meta:b", "c"), ("a:meta", "c"), ("a:meta:", "c"), ("a:meta:meta", "c")] {
        for error in [
            store.index_add(name(key), name(id), 1.0, object(json!({}))).await.unwrap_err(),
            store.index_update(name(key), name(id), object(json!({"x": 1})), None).await.unwrap_err(),
            store.index_increment(name(key), name(id), name("x"), 1.0).await.unwrap_err(),
            store.index_delete(name(key), name(id)).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::Invalid, "{key}");
            assert!(error.message().contains(key), "{error}");
        }
    }
    for id in ["b:meta:c", "meta:c"] {
        let entry = store.index_get(name("a"), name(id)).await.unwrap().unwrap();
        assert_eq!(value(&entry.metadata), json!({"n": 1, "version": 0}));
    }
    for key in ["meta", "a:metadata", "a:met", "a::meta:b".trim_end_matches(":meta:b")] {
        add(&store, key, "x").await.unwrap();
    }
}

#[tokio::test]
async fn the_keys_of_the_store_itself_are_no_names() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    store.doc_save(name("c:meta:d"), name("a"), text(json!({"n": 1}))).await.unwrap();
    append(&store, "s").await.unwrap();
    store.delete_subject(name("s")).await.unwrap();
    store.kv_set(name("k"), text(json!(1)), None).await.unwrap();
    let ::redis::Value::Array(keys) = redis.raw(&["KEYS", "nvent:~*"]) else { panic!("no keys") };
    assert!(keys.len() >= 3, "{keys:?}");
    let mut names: Vec<String> = keys
        .into_iter()
        .map(|key| match key {
            ::redis::Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    // The index whose entry `d` would have its metadata where the documents of a collection are.
    names.push("nvent:~documents:c".into());
    for key in &names {
        let before = redis.raw(&["DUMP", key]);
        for error in [
            store.append(name(key), event(r#"{"type":"t"}"#), None, None).await.unwrap_err(),
            store.delete_subject(name(key)).await.unwrap_err(),
            store.kv_set(name(key), text(json!(1)), None).await.unwrap_err(),
            store.kv_increment(name(key), 1.0).await.unwrap_err(),
            store.kv_delete(name(key)).await.unwrap_err(),
            store.index_add(name(key), name("d"), 1.0, object(json!({}))).await.unwrap_err(),
            store.index_update(name(key), name("d"), object(json!({"x": 1})), None).await.unwrap_err(),
            store.index_increment(name(key), name("d"), name("x"), 1.0).await.unwrap_err(),
            store.index_delete(name(key), name("d")).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::Invalid, "{key}");
            assert!(error.message().contains("reserved"), "{error}");
        }
        store.kv_clear(name(key)).await.unwrap();
        store.kv_clear(name("nvent:*")).await.unwrap();
        assert_eq!(redis.raw(&["DUMP", key]), before, "{key}");
    }
    assert_eq!(store.kv_clear(name("*")).await.unwrap(), 1);
    assert_eq!(value(&store.doc_get(name("c:meta:d"), name("a")).await.unwrap().unwrap()), json!({"n": 1}));
    // Of another prefix they are names like any other.
    store.kv_set(name("other:~x"), text(json!(1)), None).await.unwrap();
}

#[tokio::test]
async fn clearing_without_a_literal_beginning_deletes_only_what_native_instances_wrote() {
    let redis = TestRedis::start();
    let (store, other) = (store_on(connection_to(redis.port())), store_on(connection_to(redis.port())));
    redis.raw(&["SET", "foreign", "1"]);
    redis.raw(&["SET", "app:foreign", "1"]);
    store.kv_set(name("a"), text(json!("x")), None).await.unwrap();
    store.kv_increment(name("b"), 1.0).await.unwrap();
    store.kv_increment(name("c"), 1.5).await.unwrap();
    other.kv_set(name("d"), text(json!({})), Some(60_000)).await.unwrap();
    store.kv_set(name("deleted"), text(json!("x")), None).await.unwrap();
    store.kv_delete(name("deleted")).await.unwrap();
    redis.raw(&["SET", "taken over", "1"]);
    store.kv_set(name("taken over"), text(json!(2)), None).await.unwrap();
    assert_eq!(store.kv_clear(name("?")).await.unwrap(), 4);
    assert_eq!(store.kv_clear(name("[st]*")).await.unwrap(), 1);
    assert_eq!(store.kv_clear(name("*")).await.unwrap(), 0);
    assert_eq!(redis.raw(&["EXISTS", "foreign", "app:foreign"]), redis::Value::Int(2));
    assert_eq!(redis.raw(&["EXISTS", "nvent:~kv"]), redis::Value::Int(0));
    // With one, every string under it is a kv value, those of nvent's own adapters too.
    assert_eq!(store.kv_clear(name("app:*")).await.unwrap(), 1);
}

#[tokio::test]
async fn the_set_of_kv_keys_does_not_grow_with_keys_that_expired() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    for n in 0..500 {
        store.kv_set(name(&format!("old:{n}")), text(json!(n)), None).await.unwrap();
    }
    // As if their time had run out.
    let all: Vec<String> = (0..500).map(|n| format!("old:{n}")).collect();
    let command: Vec<&str> = ["DEL"].into_iter().chain(all.iter().map(String::as_str)).collect();
    redis.raw(&command);
    for n in 0..2_000 {
        store.kv_set(name(&format!("new:{}", n % 100)), text(json!(n)), None).await.unwrap();
        store.kv_delete(name(&format!("new:{}", n % 100))).await.unwrap();
    }
    let redis::Value::Int(left) = redis.raw(&["SCARD", "nvent:~kv"]) else { panic!("no set") };
    assert!(left < 250, "{left} keys are left of 500 that expired");
}
