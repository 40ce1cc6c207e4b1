//! nvent's own formats, by hand in both directions: what its adapters wrote is read right, and what we write is what
//! they expect.

use crate::conformance::name;
use nvent_native::store::{EventQuery, IndexQuery, StoreBackend};
use serde_json::json;

use crate::support::TestRedis;
use crate::{connection_to, event, json as text, object, store_on, value};

/// Returns a reply as lines of text, lists flattened.
fn lines(reply: redis::Value) -> Vec<String> {
    match reply {
        redis::Value::Array(values) => values.into_iter().flat_map(lines).collect(),
        redis::Value::BulkString(bytes) => vec![String::from_utf8(bytes).unwrap()],
        redis::Value::Int(n) => vec![n.to_string()],
        redis::Value::Nil => vec!["(nil)".into()],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_old_instances_wrote_is_read_right() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    redis.raw(&[
        "XADD",
        "nvent:flow:run:1",
        "1700000000000-0",
        "type",
        "step.completed",
        "runId",
        "1",
        "stepName",
        "a b",
        "attempt",
        "1",
        "data",
        r#"{"x":[1,null]}"#,
        "ts",
        "1700000000005",
    ]);
    assert_eq!(
        store
            .read(name("nvent:flow:run:1"), EventQuery::default())
            .await
            .unwrap()
            .iter()
            .map(value)
            .collect::<Vec<_>>(),
        [json!({"id": "1700000000000-0", "ts": 1_700_000_000_005_u64, "type": "step.completed", "runId": "1",
            "stepName": "a b", "attempt": 1, "data": {"x": [1, null]}})]
    );
    for (raw, wanted) in
        [("plain text", json!("plain text")), (r#"{"a":1}"#, json!({"a": 1})), ("5", json!(5)), ("", json!(""))]
    {
        redis.raw(&["SET", "k", raw]);
        assert_eq!(value(&store.kv_get(name("k")).await.unwrap().unwrap()), wanted);
    }
    redis.raw(&["ZADD", "i", "5", "a"]);
    redis.raw(&[
        "HSET", "i:meta:a", "version", "3", "status", "running", "stats.n", "2", "stats.ok", "true", "tags",
        r#"["x"]"#, "code", "00123",
    ]);
    redis.raw(&["ZADD", "i", "4", "bare"]);
    let read = store
        .index_read(name("i"), IndexQuery { after: None, offset: 0, limit: 50, filter: Default::default() })
        .await
        .unwrap();
    assert_eq!(
        read.iter().map(|entry| (&*entry.id, entry.score, value(&entry.metadata))).collect::<Vec<_>>(),
        [
            (
                "a",
                5.0,
                json!({"version": 3, "status": "running", "stats": {"n": 2, "ok": true}, "tags": ["x"], "code": "00123"})
            ),
            ("bare", 4.0, json!({"version": 0})),
        ]
    );
    assert!(
        store
            .index_update(name("i"), name("a"), object(json!({"stats": {"n": 9}, "status": null})), Some(3))
            .await
            .unwrap()
    );
    assert_eq!(store.index_increment(name("i"), name("a"), name("stats.n"), 1.0).await.unwrap().to_string(), "10");
    assert_eq!(lines(redis.raw(&["HMGET", "i:meta:a", "version", "stats.n", "status"])), ["5", "10", "(nil)"]);
}

#[tokio::test]
async fn what_is_written_is_what_old_instances_expect() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let stored = store
        .append(
            name("s"),
            event(r#"{"type":"emit","runId":"r-1","attempt":2,"data":{"name":"x","payload":[1]}}"#),
            None,
            None,
        )
        .await
        .unwrap();
    let ts = value(stored.json())["ts"].to_string();
    assert_eq!(
        lines(redis.raw(&["XRANGE", "s", "-", "+"])),
        [
            stored.id(),
            "ts",
            &ts,
            "type",
            "emit",
            "runId",
            "r-1",
            "attempt",
            "2",
            "data",
            r#"{"name":"x","payload":[1]}"#
        ]
    );
    store.kv_set(name("k"), text(json!("as it is")), Some(5_000)).await.unwrap();
    assert_eq!(lines(redis.raw(&["GET", "k"])), ["as it is"]);
    store.kv_set(name("k"), text(json!({"a": [1]})), None).await.unwrap();
    assert_eq!(lines(redis.raw(&["GET", "k"])), [r#"{"a":[1]}"#]);
    assert_eq!(lines(redis.raw(&["TTL", "k"])), ["-1"]);

    let metadata = json!({"name": "f", "stats.totalFires": 0, "nested": {"on": true, "list": ["a", {"b": 1}]}});
    store.index_add(name("i"), name("a"), 12.5, object(metadata)).await.unwrap();
    assert_eq!(lines(redis.raw(&["ZRANGE", "i", "0", "-1", "WITHSCORES"])), ["a", "12.5"]);
    assert_eq!(
        lines(redis.raw(&["HGETALL", "i:meta:a"])),
        ["name", "f", "stats.totalFires", "0", "nested.on", "true", "nested.list", r#"["a",{"b":1}]"#, "version", "0"]
    );
}

#[tokio::test]
async fn an_old_update_of_a_native_entry_is_seen_whole() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    store
        .index_add(name("i"), name("a"), 1.0, object(json!({"code": "12", "gone": null, "empty": {}, "n": 1})))
        .await
        .unwrap();
    // As nvent's script does it: fields set and deleted, the version counted.
    redis.raw(&["HSET", "i:meta:a", "code", "13", "empty.x", "y", "version", "1"]);
    redis.raw(&["HDEL", "i:meta:a", "n"]);
    let got = value(&store.index_get(name("i"), name("a")).await.unwrap().unwrap().metadata);
    assert_eq!(got, json!({"code": 13, "gone": null, "empty": {"x": "y"}, "version": 1}));
    assert!(store.index_update(name("i"), name("a"), object(json!({"code": "14"})), Some(1)).await.unwrap());
    let got = value(&store.index_get(name("i"), name("a")).await.unwrap().unwrap().metadata);
    assert_eq!(got, json!({"code": "14", "gone": null, "empty": {"x": "y"}, "version": 2}));
}

#[tokio::test]
async fn streams_are_trimmed_as_configured() {
    let redis = TestRedis::start();
    let trim = nvent_native::store::Trim { max_len: Some(10), approx: false };
    let options =
        nvent_native::store::RedisStoreOptions { connection: connection_to(redis.port()), trim, ..Default::default() };
    let store = nvent_native::store::RedisStore::new(options, tokio::runtime::Handle::current());
    for n in 0..25 {
        store.append(name("s"), event(&format!(r#"{{"type":"t","n":{n}}}"#)), None, None).await.unwrap();
    }
    let read = store.read(name("s"), EventQuery::default()).await.unwrap();
    assert_eq!(
        read.iter().map(|record| value(record)["n"].as_u64().unwrap()).collect::<Vec<_>>(),
        (15..25).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn the_text_fields_of_an_event_are_text_whoever_wrote_it() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    for text in ["true", "null", "12", "1e5", "[1]", "{}", "00123", "plain", "a \"b\""] {
        redis.raw(&["DEL", "s"]);
        redis.raw(&[
            "XADD",
            "s",
            "*",
            "type",
            text,
            "runId",
            text,
            "flowName",
            text,
            "stepName",
            text,
            "stepId",
            text,
            "triggerName",
            text,
            "attempt",
            "2",
            "data",
            text,
            "ts",
            "5",
        ]);
        let fields = json!({"type": text, "runId": text, "flowName": text, "stepName": text, "stepId": text});
        store.append(name("s"), event(&fields.to_string()), None, None).await.unwrap();
        let read = store.read(name("s"), EventQuery::default()).await.unwrap();
        for record in read.iter().map(value) {
            for field in ["type", "runId", "flowName", "stepName", "stepId"] {
                assert_eq!(record[field], text, "{field}");
            }
        }
        assert_eq!((&value(&read[0])["attempt"], &value(&read[0])["triggerName"]), (&json!(2), &json!(text)));
    }
    // What a native instance writes as a number stays one.
    let stored = store.append(name("n"), event(r#"{"type":"t","stepName":12}"#), None, None).await.unwrap();
    let read = store.read(name("n"), EventQuery::default()).await.unwrap();
    assert_eq!(value(&read[0]), value(stored.json()));
}

#[tokio::test]
async fn a_run_keeps_its_events_until_it_is_over_up_to_a_bound() {
    let redis = TestRedis::start();
    let trim = nvent_native::store::Trim { max_len: Some(10), approx: false };
    let options =
        nvent_native::store::RedisStoreOptions { connection: connection_to(redis.port()), trim, ..Default::default() };
    let store = nvent_native::store::RedisStore::new(options, tokio::runtime::Handle::current());
    let append = async |subject: &str, kind: &str| {
        let json = json!({"type": kind, "runId": "r", "flowName": "f"}).to_string();
        store.append(name(subject), event(&json), None, None).await.unwrap();
    };
    let kinds = async |subject: &str| -> Vec<String> {
        let records = store.read(name(subject), EventQuery::default()).await.unwrap();
        records.iter().map(|record| value(record)["type"].as_str().unwrap().to_owned()).collect()
    };
    for ending in ["flow.completed", "flow.cancel"] {
        append(ending, "flow.start").await;
        for _ in 0..40 {
            append(ending, "step.completed").await;
        }
        let kept = kinds(ending).await;
        assert_eq!((kept.len(), kept[0].as_str()), (41, "flow.start"));
        append(ending, ending).await;
        assert_eq!(kinds(ending).await.len(), 10);
        append(ending, "late").await;
        assert_eq!(kinds(ending).await.len(), 10);
    }
    // A run that has failed can be retried.
    append("failed", "flow.start").await;
    for _ in 0..40 {
        append("failed", "step.failed").await;
    }
    append("failed", "flow.failed").await;
    append("failed", "flow.retry").await;
    assert_eq!(kinds("failed").await[0], "flow.start");
    // Ten times as many as others keep, and no more.
    append("endless", "flow.start").await;
    for _ in 0..150 {
        append("endless", "step.completed").await;
        assert!(kinds("endless").await.len() <= 100);
    }
    assert_eq!(kinds("endless").await.len(), 10);
    // What is no run is trimmed as ever.
    for _ in 0..30 {
        append("other", "t").await;
    }
    assert_eq!(kinds("other").await.len(), 10);
}
