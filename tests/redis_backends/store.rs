//! The store where it is its own: scripts, order, keys that it shares with others, subscriptions across processes.

use std::sync::{Arc, Mutex};

use nvent_native::Code;
use nvent_native::event::EventId;
use nvent_native::fanout::{Delivery, Mailbox, Overflow};
use nvent_native::json::Filter;
use nvent_native::store::{EventQuery, IndexQuery, StoreBackend, Stored};
use serde_json::{Value, json};

use crate::conformance::name;
use crate::support::TestRedis;
use crate::{connection_to, event, json as text, object, store_on, value};

fn mailbox() -> Arc<Mailbox<Stored>> {
    Arc::new(Mailbox::new(10_000, Overflow::DropOldest))
}

async fn next(mailbox: &Mailbox<Stored>) -> (String, Value) {
    match mailbox.recv().await.unwrap() {
        Delivery::Item(stored) => (stored.subject.to_string(), value(stored.event.json())),
        Delivery::Gap(gap) => panic!("{gap:?}"),
    }
}

pub(crate) fn page(offset: usize, limit: usize, filter: Value) -> IndexQuery {
    IndexQuery { after: None, offset, limit, filter: Filter::new(object(filter)) }
}

#[tokio::test]
async fn calls_take_effect_in_the_order_in_which_they_were_made() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    // None is awaited before the next is made, and the connection is not there yet.
    let set = store.kv_set(name("k"), text(json!(1)), None);
    let add = store.kv_increment(name("k"), 2.0);
    let clear = store.kv_clear(name("k*"));
    let again = store.kv_set(name("k"), text(json!("x")), None);
    let get = store.kv_get(name("k"));
    assert_eq!(get.await.unwrap().as_deref(), Some("\"x\""));
    set.await.unwrap();
    assert_eq!(add.await.unwrap().to_string(), "3");
    assert_eq!(clear.await.unwrap(), 1);
    again.await.unwrap();
}

#[tokio::test]
async fn a_panic_about_a_reply_is_an_error_of_its_call_and_the_connection_goes_on() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let announce: nvent_native::store::Announce = Arc::new(|_, _| panic!("on purpose"));
    let append = store.append(name("s"), event(r#"{"type":"t"}"#), None, Some(announce));
    let next = store.append(name("s"), event(r#"{"type":"t"}"#), None, None);
    let error = append.await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert!(error.is_maybe_applied() && !error.is_retryable(), "{error}");
    next.await.unwrap();
    assert_eq!(store.read(name("s"), EventQuery::default()).await.unwrap().len(), 2);
    assert_eq!(store.stats().into_iter().find(|(name, _)| *name == "reconnects").unwrap().1, 0.0);
}

#[tokio::test]
async fn appends_are_announced_in_the_order_of_storage_before_they_are_acknowledged() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let announced = Arc::new(Mutex::new(Vec::new()));
    let announce: nvent_native::store::Announce = {
        let announced = announced.clone();
        Arc::new(move |_, event| announced.lock().unwrap().push(event.id().parse::<EventId>().unwrap()))
    };
    let appends: Vec<_> = (0..500)
        .map(|n| store.append(name("s"), event(&format!(r#"{{"type":"t","n":{n}}}"#)), None, Some(announce.clone())))
        .collect();
    for (n, append) in appends.into_iter().enumerate() {
        let stored = append.await.unwrap();
        assert_eq!(announced.lock().unwrap()[n].to_string(), stored.id());
    }
    assert!(announced.lock().unwrap().is_sorted());
    let records = store.read(name("s"), EventQuery::default()).await.unwrap();
    assert!(records.iter().enumerate().all(|(n, record)| value(record)["n"] == n));
}

#[tokio::test]
async fn each_call_is_one_command_however_much_it_touches() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    for n in 0..100 {
        store
            .index_add(name("i"), name(&format!("{n:03}")), 1.0, object(json!({"n": n, "odd": n % 2 == 1})))
            .await
            .unwrap();
    }
    let calls_of = |name: &str| {
        let line = redis.info(&format!("cmdstat_{name}"));
        let calls = line.split(',').find_map(|part| part.strip_prefix("calls=")).map(str::to_owned);
        calls.map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    let before = calls_of("evalsha");
    assert_eq!(store.index_read(name("i"), page(0, 50, json!({}))).await.unwrap().len(), 50);
    assert_eq!(store.index_read(name("i"), page(0, 50, json!({"odd": true}))).await.unwrap().len(), 50);
    assert!(store.index_update(name("i"), name("001"), object(json!({"a": {"b": 1}})), None).await.unwrap());
    store.index_increment(name("i"), name("001"), name("a.b"), 1.0).await.unwrap();
    store.index_get(name("i"), name("001")).await.unwrap();
    assert_eq!(calls_of("evalsha") - before, 5);
}

#[tokio::test]
async fn scripts_survive_being_forgotten() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    store.index_add(name("i"), name("a"), 1.0, object(json!({"n": 0}))).await.unwrap();
    redis.raw(&["SCRIPT", "FLUSH"]);
    let increments: Vec<_> = (0..100).map(|_| store.index_increment(name("i"), name("a"), name("n"), 1.0)).collect();
    for increment in increments {
        increment.await.unwrap();
    }
    assert_eq!(
        value(&store.index_get(name("i"), name("a")).await.unwrap().unwrap().metadata),
        json!({"n": 100, "version": 100})
    );
    assert_eq!(store.stats().iter().find(|(name, _)| *name == "reconnects").unwrap().1, 0.0);
}

#[tokio::test]
async fn equal_scores_are_ordered_by_id_on_every_page() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let mut expected = Vec::new();
    for (score, ids) in [(9.5, 0..3), (7.0, 3..4), (5.0, 4..20), (1.0, 20..22), (-2.5, 22..30)] {
        for id in ids.rev() {
            let add =
                store.index_add(name("i"), name(&format!("{id:02}")), score, object(json!({"even": id % 2 == 0})));
            add.await.unwrap();
        }
    }
    expected.extend((0..30).map(|id| format!("{id:02}")));
    for offset in 0..31 {
        for limit in [1, 2, 3, 7, 50] {
            let read = store.index_read(name("i"), page(offset, limit, json!({}))).await.unwrap();
            let ids: Vec<_> = read.iter().map(|entry| entry.id.to_string()).collect();
            assert_eq!(ids, expected.iter().skip(offset).take(limit).cloned().collect::<Vec<_>>(), "{offset} {limit}");
        }
    }
    let read = store.index_read(name("i"), page(2, 3, json!({"even": true}))).await.unwrap();
    assert_eq!(read.iter().map(|entry| &*entry.id).collect::<Vec<_>>(), ["04", "06", "08"]);
}

#[tokio::test]
async fn clear_touches_nothing_but_kv_values() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    store.append(name("x:stream"), event(r#"{"type":"t"}"#), None, None).await.unwrap();
    store.append(name("x:gone"), event(r#"{"type":"t"}"#), None, None).await.unwrap();
    store.delete_subject(name("x:gone")).await.unwrap();
    store.index_add(name("x:index"), name("a"), 1.0, object(json!({"n": 1}))).await.unwrap();
    store.doc_save(name("x:docs"), name("a"), text(json!({}))).await.unwrap();
    for n in 0..2_500 {
        let set = store.kv_set(name(&format!("x:{n}")), text(json!(n)), None);
        if n == 2_499 {
            set.await.unwrap();
        }
    }
    store.kv_delete(name("x:stream")).await.unwrap();
    assert_eq!(store.kv_clear(name("*")).await.unwrap(), 2_500);
    assert_eq!(store.read(name("x:stream"), EventQuery::default()).await.unwrap().len(), 1);
    assert!(store.index_get(name("x:index"), name("a")).await.unwrap().is_some());
    assert!(store.doc_get(name("x:docs"), name("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn ids_increase_when_a_subject_is_deleted_and_appended_to_again() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let mut last = EventId::default();
    for _ in 0..200 {
        let append = store.append(name("s"), event(r#"{"type":"t"}"#), None, None);
        let delete = store.delete_subject(name("s"));
        let id = append.await.unwrap().id().parse().unwrap();
        assert!(id > last && delete.await.unwrap());
        last = id;
    }
    // A server whose clock goes back by a century.
    redis.raw(&["HSET", "nvent:~deleted:s", "last", "4900000000000-7"]);
    assert_eq!(store.append(name("s"), event(r#"{"type":"t"}"#), None, None).await.unwrap().id(), "4900000000000-8");
}

#[tokio::test]
async fn a_key_of_another_type_is_refused() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    redis.raw(&["SADD", "set", "x"]);
    assert_eq!(store.append(name("set"), event(r#"{"type":"t"}"#), None, None).await.unwrap_err().code(), Code::Type);
    assert_eq!(store.kv_increment(name("set"), 1.0).await.unwrap_err().code(), Code::Type);
    for ttl in [None, Some(1_000)] {
        let error = store.kv_set(name("set"), text(json!(1)), ttl).await.unwrap_err();
        assert_eq!(error.code(), Code::Type);
        assert!(error.message().contains("kv.set"), "{error}");
    }
    assert_eq!(redis.raw(&["SCARD", "set"]), redis::Value::Int(1));
    store.kv_set(name("text"), text(json!("12")), None).await.unwrap();
    assert_eq!(store.kv_increment(name("text"), 1.0).await.unwrap_err().code(), Code::Type);
}

#[tokio::test]
async fn a_time_to_live_is_kept_to_the_millisecond_and_through_increments() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    store.kv_set(name("k"), text(json!(1)), Some(90_500)).await.unwrap();
    store.kv_increment(name("k"), 1.0).await.unwrap();
    let redis::Value::Int(left) = redis.raw(&["PTTL", "k"]) else { panic!("no TTL") };
    assert!((80_000..=90_500).contains(&left), "{left}");
}

#[tokio::test]
async fn subscribers_see_the_appends_of_every_process_in_order() {
    let redis = TestRedis::start();
    let (one, other) = (store_on(connection_to(redis.port())), store_on(connection_to(redis.port())));
    one.append(name("run:old"), event(r#"{"type":"before"}"#), None, None).await.unwrap();
    let (exact, glob) = (mailbox(), mailbox());
    one.subscribe(name("run:old"), exact.clone()).await.unwrap();
    one.subscribe(name("run:*"), glob.clone()).await.unwrap();
    for n in 0..700 {
        let append = other.append(name("run:old"), event(&format!(r#"{{"type":"t","n":{n}}}"#)), None, None);
        if n == 699 {
            append.await.unwrap();
        }
    }
    // An instance that publishes no notifications.
    redis.raw(&["XADD", "run:new", "*", "type", "foreign", "ts", "5", "data", "{\"k\":1}"]);
    for n in 0..700 {
        assert_eq!(next(&exact).await.1["n"], n);
    }
    let (mut known, mut foreign) = (0, 0);
    for _ in 0..701 {
        let (subject, event) = next(&glob).await;
        if subject == "run:new" {
            assert_eq!(
                (&event["type"], &event["ts"], &event["data"]),
                (&json!("foreign"), &json!(5), &json!({"k": 1}))
            );
            foreign += 1;
        } else {
            assert_eq!(event["n"], known);
            known += 1;
        }
    }
    assert_eq!((known, foreign), (700, 1));
    // One that comes later gets only what comes later.
    let late = mailbox();
    let id = one.subscribe(name("run:*"), late.clone()).await.unwrap();
    other.append(name("run:third"), event(r#"{"type":"late"}"#), None, None).await.unwrap();
    assert_eq!(next(&late).await.1["type"], "late");
    one.unsubscribe(id).await.unwrap();
    assert!(late.recv().await.is_none());
}

/// Returns the processor time that the server has used, in microseconds: other processes do not count.
fn server_time(redis: &TestRedis) -> u64 {
    let seconds = |field| redis.info(field).trim().parse::<f64>().unwrap();
    ((seconds("used_cpu_user") + seconds("used_cpu_sys")) * 1e6) as u64
}

#[tokio::test]
async fn an_update_takes_time_in_proportion_to_its_fields() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    // Nested, with values that need tags, over fields that exist and fields that do not.
    let patch = |n: usize, seed: usize| {
        let fields = (0..n / 2).map(|i| {
            let value = if i % 2 == 0 { json!(format!("{}", i + seed)) } else { json!({"x": seed, "y": null}) };
            (format!("f{i}"), value)
        });
        object(json!({"deep": {"er": fields.collect::<serde_json::Map<_, _>>()}}))
    };
    let mut best = [u64::MAX; 2];
    for (slot, n) in [1_000, 8_000].into_iter().enumerate() {
        for round in 0..3 {
            store.index_add(name("i"), name("a"), 1.0, patch(n, round)).await.unwrap();
            let before = server_time(&redis);
            assert!(store.index_update(name("i"), name("a"), patch(n, round + 1), None).await.unwrap());
            best[slot] = best[slot].min(server_time(&redis) - before);
        }
    }
    assert!(best[1] < best[0] * 30, "8,000 fields take {} µs where 1,000 take {} µs", best[1], best[0]);
}

#[tokio::test]
async fn an_entry_has_a_bounded_number_of_fields() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let fields =
        |from: usize, to: usize| object(Value::Object((from..to).map(|i| (format!("f{i}"), json!(i))).collect()));
    let too_many = [
        store.index_add(name("i"), name("a"), 1.0, fields(0, 10_000)).await.unwrap_err(),
        {
            store.index_add(name("i"), name("a"), 1.0, fields(0, 6_000)).await.unwrap();
            store.index_update(name("i"), name("a"), fields(0, 10_001), None).await.unwrap_err()
        },
        store.index_update(name("i"), name("a"), fields(5_000, 11_000), None).await.unwrap_err(),
    ];
    for error in too_many {
        assert_eq!(error.code(), Code::Invalid);
        assert!(error.message().contains("10000"), "{error}");
    }
    // Refused as a whole.
    let entry = store.index_get(name("i"), name("a")).await.unwrap().unwrap();
    let mut expected = fields(0, 6_000);
    expected.insert("version".into(), json!(0));
    assert_eq!(value(&entry.metadata), Value::Object(expected));
    // Up to the bound, and what replaces does not count twice.
    assert!(store.index_update(name("i"), name("a"), fields(1, 9_999), None).await.unwrap());
    assert_eq!(store.index_increment(name("i"), name("a"), name("new"), 1.0).await.unwrap_err().code(), Code::Invalid);
    assert_eq!(store.index_increment(name("i"), name("a"), name("f1"), 1.0).await.unwrap().to_string(), "2");
    assert!(store.index_update(name("i"), name("a"), object(json!({"f1": null, "f2": null})), None).await.unwrap());
    assert_eq!(store.index_increment(name("i"), name("a"), name("new"), 1.0).await.unwrap().to_string(), "1");
}

#[tokio::test]
async fn incrementing_a_deep_field_takes_time_in_proportion_to_the_entry() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let fields: serde_json::Map<_, _> = (0..9_000).map(|i| (format!("f{i}"), json!({"deep": i}))).collect();
    store.index_add(name("i"), name("a"), 1.0, object(Value::Object(fields))).await.unwrap();
    let path = |depth: usize| vec!["p"; depth].join(".");
    let mut best = [u64::MAX; 2];
    for (slot, depth) in [2, 400].into_iter().enumerate() {
        for round in 0..3 {
            let before = server_time(&redis);
            store.index_increment(name("i"), name("a"), name(&format!("{}{round}.n", path(depth))), 1.0).await.unwrap();
            best[slot] = best[slot].min(server_time(&redis) - before);
        }
    }
    assert!(best[1] < best[0] * 10, "depth 400 takes {} µs where depth 2 takes {} µs", best[1], best[0]);
}

#[tokio::test]
async fn a_document_that_another_program_broke_fails_its_own_calls_only() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    store.doc_save(name("c"), name("good"), text(json!({"n": 1}))).await.unwrap();
    redis.raw(&["HSET", "nvent:~documents:c", "bad", "{\"n\": oops"]);
    let error = store.doc_get(name("c"), name("bad")).await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt);
    assert!(error.message().contains("bad"), "{error}");
    let error = store.doc_list(name("c"), Default::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt);
    assert!(error.message().contains("bad"), "{error}");
    assert_eq!(value(&store.doc_get(name("c"), name("good")).await.unwrap().unwrap()), json!({"n": 1}));
    store.doc_delete(name("c"), name("bad")).await.unwrap();
    assert_eq!(store.doc_list(name("c"), Default::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn metadata_that_another_program_broke_is_read_as_what_it_looks_like() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    for tags in ["not json", "5", "null", "[1,2]", "{\"a\":5,\"b\":{\"c\":1}}", "\"text\""] {
        store.index_add(name("i"), name("a"), 1.0, object(json!({"a": "12", "b": null}))).await.unwrap();
        redis.raw(&["HSET", "i:meta:a", "~nvent", tags, "c", "{\"n\": oops", "version", "many"]);
        let read = store.index_read(name("i"), page(0, 10, json!({}))).await.unwrap();
        assert_eq!(value(&read[0].metadata)["c"], "{\"n\": oops", "{tags}");
        assert_eq!(store.index_read(name("i"), page(0, 10, json!({"c": "x"}))).await.unwrap(), [], "{tags}");
        assert_eq!(store.index_read(name("i"), page(0, 10, json!({"b": null}))).await.unwrap().len(), 1, "{tags}");
        assert!(store.index_update(name("i"), name("a"), object(json!({"c": {"d": 1}})), None).await.unwrap());
        assert_eq!(store.index_increment(name("i"), name("a"), name("c.d"), 1.0).await.unwrap().to_string(), "2");
        let got = store.index_get(name("i"), name("a")).await.unwrap().unwrap();
        assert_eq!(value(&got.metadata)["c"], json!({"d": 2}), "{tags}");
    }
    redis.raw(&["ZADD", "i", "+inf", "endless", "-inf", "below"]);
    let read = store.index_read(name("i"), page(0, 10, json!({}))).await.unwrap();
    assert_eq!(read.iter().map(|entry| &*entry.id).collect::<Vec<_>>(), ["endless", "a", "below"]);
}

#[tokio::test]
async fn a_filter_may_have_more_conditions_than_a_script_takes() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let fields: serde_json::Map<_, _> = (0..9_000).map(|n| (format!("f{n}"), json!(n))).collect();
    store.index_add(name("i"), name("a"), 1.0, object(Value::Object(fields.clone()))).await.unwrap();
    let read = store.index_read(name("i"), page(0, 10, Value::Object(fields.clone()))).await.unwrap();
    assert_eq!(read.len(), 1);
    let mut other = fields;
    other.insert("f8999".into(), json!("x"));
    assert_eq!(store.index_read(name("i"), page(0, 10, Value::Object(other))).await.unwrap(), []);
    let many: Vec<_> = (0..20_000).collect();
    assert_eq!(store.index_read(name("i"), page(0, 10, json!({"f7": many}))).await.unwrap().len(), 1);
}
