//! What every store does.

use std::sync::{Arc, Mutex};

use nvent_native::error::Code;
use nvent_native::event::Event;
use nvent_native::fanout::{Mailbox, Overflow};
use nvent_native::json::{Filter, Json};
use nvent_native::op::Op;
use nvent_native::store::{Announce, DocQuery, EventQuery, Expected, IndexQuery, StoreBackend, Stored};
use serde_json::{Value, json};

use super::name;
use super::{TestBackend, event, id, item, object, until, value, within_deadline};

type Store = TestBackend<dyn StoreBackend>;

/// The contract over a backend.
#[macro_export]
macro_rules! store_conformance {
    ($backend:ident, $fresh:path) => {
        mod $backend {
            $crate::behaviours! { store, $fresh:
                ids_increase_strictly_also_when_the_clock_goes_back
                a_record_is_the_event_with_id_and_ts_in_front
                reading_takes_every_option_and_every_combination
                an_append_that_expects_another_end_is_a_conflict_and_stores_nothing
                of_many_appends_that_expect_the_same_end_one_succeeds
                a_deleted_subject_is_empty_and_its_next_ids_are_greater
                subscriptions_receive_the_subjects_that_their_glob_matches_in_order
                a_subscription_misses_nothing_of_a_burst_that_is_larger_than_its_buffer
                an_ended_subscription_is_closed_and_the_others_go_on
                appends_are_announced_in_order_and_before_they_are_acknowledged
                a_key_keeps_any_json_value_exactly
                a_key_is_gone_when_its_time_is_up
                incrementing_keeps_the_time_of_a_key
                clearing_removes_the_keys_that_match_and_nothing_but_keys
                simultaneous_increments_of_a_key_lose_none
                adding_an_entry_replaces_the_one_there_and_expands_dotted_names
                an_update_merges_deeply_and_counts_the_version
                two_hundred_simultaneous_updates_of_an_entry_all_happen
                entries_come_by_score_then_by_id_filtered_before_the_page_is_cut
                the_subjects_of_a_glob_are_listed_each_once_in_pages
                a_missing_entry_is_reported
                what_fails_is_counted
                documents_are_filtered_sorted_and_paged
                calls_take_effect_in_the_order_in_which_they_are_made
                after_closing_every_call_says_so
            }
        }
    };
}

fn numbered(n: usize) -> nvent_native::event::NewEvent {
    event(json!({"type": format!("t{}", n % 3), "n": n}))
}

async fn append(store: &Store, subject: &str, n: usize) -> Event {
    store.append(name(subject), numbered(n), None, None).await.unwrap()
}

async fn read(store: &Store, subject: &str, query: EventQuery) -> Vec<u64> {
    let records = store.read(name(subject), query).await.unwrap();
    records.iter().map(|record| value(record)["n"].as_u64().unwrap()).collect()
}

fn all() -> EventQuery {
    EventQuery::default()
}

fn text(json: Value) -> Json {
    json.to_string().into()
}

async fn key(store: &Store, key: &str) -> Option<Value> {
    store.kv_get(name(key)).await.unwrap().map(|json| value(&json))
}

async fn metadata(store: &Store, key: &str, id: &str) -> Value {
    value(&store.index_get(name(key), name(id)).await.unwrap().unwrap().metadata)
}

async fn page(store: &Store, offset: usize, limit: usize, filter: Value) -> Vec<String> {
    let query = IndexQuery { after: None, offset, limit, filter: Filter::new(object(filter)) };
    store.index_read(name("i"), query).await.unwrap().iter().map(|entry| entry.id.to_string()).collect()
}

async fn docs(store: &Store, query: DocQuery) -> Vec<String> {
    store.doc_list(name("c"), query).await.unwrap().iter().map(|(id, _)| id.to_string()).collect()
}

async fn subscribe(store: &Store, pattern: &str) -> (u64, Arc<Mailbox<Stored>>) {
    let mailbox = Arc::new(Mailbox::new(10_000, Overflow::DropOldest));
    (store.subscribe(name(pattern), mailbox.clone()).await.unwrap(), mailbox)
}

fn code<T: std::fmt::Debug>(result: nvent_native::Result<T>) -> Code {
    result.unwrap_err().code()
}

async fn closed<T: Send + std::fmt::Debug + 'static>(op: Op<T>) {
    assert_eq!(code(op.await), Code::Closed);
}

pub(crate) async fn ids_increase_strictly_also_when_the_clock_goes_back(store: Store) {
    let mut ids = Vec::new();
    for n in 0..50 {
        if let (Some(clock), 20 | 40) = (&store.capabilities.clock, n) {
            clock.set(if n == 20 { 1_000 } else { 2_000_000_000_000 });
        }
        ids.push(id(append(&store, "s", n).await.id()));
    }
    let waiting: Vec<_> = (50..250).map(|n| store.append(name("s"), numbered(n), None, None)).collect();
    for append in waiting {
        ids.push(id(append.await.unwrap().id()));
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(read(&store, "s", all()).await.into_iter().eq(0..250));
}

pub(crate) async fn a_record_is_the_event_with_id_and_ts_in_front(store: Store) {
    let new = json!({"type": "a", "runId": "r", "data": {"k": [1, null, {}]}, "extra": "x"});
    let stored = store.append(name("s"), event(new), None, None).await.unwrap();
    let record = value(stored.json());
    assert_eq!(
        record,
        json!({"id": stored.id(), "ts": record["ts"].as_u64().unwrap(), "type": "a", "runId": "r",
            "data": {"k": [1, null, {}]}, "extra": "x"})
    );
    assert_eq!((stored.kind(), stored.run_id()), ("a", Some("r")));
    assert_eq!(store.read(name("s"), all()).await.unwrap(), [stored.json().clone()]);
    assert!(store.read(name("another"), all()).await.unwrap().is_empty());
}

/// Against a model: the options are a handful of filters, so all of their combinations can be tried.
pub(crate) async fn reading_takes_every_option_and_every_combination(store: Store) {
    let mut events = Vec::new();
    for n in 0..12 {
        store.pass(10);
        events.push(append(&store, "s", n).await);
    }
    let ids: Vec<_> = events.iter().map(|event| id(event.id())).collect();
    let times: Vec<_> = events.iter().map(|event| value(event.json())["ts"].as_f64().unwrap()).collect();
    // Also positions that are no event's id.
    let between = nvent_native::event::EventId { ms: ids[5].ms, seq: ids[5].seq + 1_000 };
    let types = [None, Some(vec!["t1".to_owned()]), Some(vec!["t0".into(), "t2".into()]), Some(vec![])];
    for types in &types {
        for after in [None, Some(ids[3]), Some(between)] {
            for before in [None, Some(ids[9]), Some(between), Some(ids[2])] {
                for (from, to) in [(None, None), (Some(times[2]), None), (Some(0.0), Some(times[8])), (None, Some(0.0))]
                {
                    for (limit, descending) in [(None, false), (Some(2), false), (Some(2), true), (Some(0), false)] {
                        let (types, limit) = (types.clone(), limit);
                        let query = EventQuery { types, after, before, from, to, limit, descending };
                        let mut wanted: Vec<_> = (0..12)
                            .filter(|n| query.types.as_ref().is_none_or(|t| t.contains(&format!("t{}", n % 3))))
                            .filter(|n| after.is_none_or(|a| ids[*n] > a) && before.is_none_or(|b| ids[*n] < b))
                            .filter(|n| from.is_none_or(|f| times[*n] >= f) && to.is_none_or(|t| times[*n] <= t))
                            .map(|n| n as u64)
                            .collect();
                        if descending {
                            wanted.reverse();
                        }
                        wanted.truncate(limit.unwrap_or(usize::MAX));
                        assert_eq!(read(&store, "s", query.clone()).await, wanted, "{query:?}");
                    }
                }
            }
        }
    }
}

pub(crate) async fn an_append_that_expects_another_end_is_a_conflict_and_stores_nothing(store: Store) {
    let expect = |n, expected| store.append(name("s"), numbered(n), Some(expected), None);
    let first = id(expect(0, Expected::Empty).await.unwrap().id());
    assert_eq!(code(expect(1, Expected::Empty).await), Code::Conflict);
    let second = id(expect(1, Expected::Last(first)).await.unwrap().id());
    assert_eq!(code(expect(2, Expected::Last(first)).await), Code::Conflict);
    expect(2, Expected::Last(second)).await.unwrap();
    assert_eq!(read(&store, "s", all()).await, [0, 1, 2]);
    let other = store.append(name("empty"), numbered(0), Some(Expected::Last(first)), None).await;
    assert_eq!(code(other), Code::Conflict);
    assert!(store.read(name("empty"), all()).await.unwrap().is_empty());
}

pub(crate) async fn of_many_appends_that_expect_the_same_end_one_succeeds(store: Store) {
    let first = id(append(&store, "s", 0).await.id());
    let racers: Vec<_> =
        (1..40).map(|n| store.append(name("s"), numbered(n), Some(Expected::Last(first)), None)).collect();
    let mut won = 0;
    for racer in racers {
        match racer.await {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.code(), Code::Conflict),
        }
    }
    assert_eq!((won, read(&store, "s", all()).await.len()), (1, 2));
}

pub(crate) async fn a_deleted_subject_is_empty_and_its_next_ids_are_greater(store: Store) {
    for n in 0..20 {
        append(&store, "s", n).await;
    }
    let last = id(append(&store, "s", 20).await.id());
    assert!(store.delete_subject(name("s")).await.unwrap());
    assert!(!store.delete_subject(name("s")).await.unwrap());
    assert!(store.read(name("s"), all()).await.unwrap().is_empty());
    let again = store.append(name("s"), numbered(7), Some(Expected::Empty), None).await.unwrap();
    assert!(id(again.id()) > last, "{} after {last}", again.id());
    assert_eq!(read(&store, "s", EventQuery { after: Some(last), ..all() }).await, [7]);
}

pub(crate) async fn subscriptions_receive_the_subjects_that_their_glob_matches_in_order(store: Store) {
    append(&store, "run:a", 99).await;
    let (_, exact) = subscribe(&store, "run:a").await;
    let (_, glob) = subscribe(&store, "run:[ab]*").await;
    let (_, every) = subscribe(&store, "*").await;
    for n in 0..60 {
        append(&store, ["run:a", "run:b:x", "other"][n % 3], n).await;
    }
    for (mailbox, subjects) in [(exact, 1), (glob, 2), (every, 3)] {
        // In the order of each subject: between subjects there is none to keep.
        let mut next = [0, 1, 2];
        for _ in (0..60).filter(|n| n % 3 < subjects) {
            let stored = item(&mailbox).await;
            let subject = ["run:a", "run:b:x", "other"].iter().position(|name| **name == *stored.subject).unwrap();
            assert_eq!(value(stored.event.json())["n"], next[subject]);
            next[subject] += 3;
        }
        assert!(mailbox.is_empty() && next[..subjects].iter().all(|n| *n >= 60));
    }
}

pub(crate) async fn a_subscription_misses_nothing_of_a_burst_that_is_larger_than_its_buffer(store: Store) {
    let mailboxes = [(); 3].map(|()| Arc::new(Mailbox::new(64, Overflow::DropOldest)));
    for (pattern, mailbox) in ["a", "a*", "*"].into_iter().zip(&mailboxes) {
        store.subscribe(name(pattern), mailbox.clone()).await.unwrap();
    }
    const COUNT: usize = 3_000;
    for burst in 0..2 {
        let appends: Vec<_> =
            (0..COUNT).map(|n| store.append(name(["a", "b"][n % 2]), numbered(n), None, None)).collect();
        for append in appends {
            append.await.unwrap();
        }
        for (mailbox, step) in mailboxes.iter().zip([2, 2, 1]) {
            for n in (0..COUNT).step_by(step) {
                assert_eq!(value(item(mailbox).await.event.json())["n"], n, "burst {burst}, every {step}");
            }
        }
    }
    append(&store, "a", 7).await;
    for mailbox in &mailboxes {
        assert_eq!(value(item(mailbox).await.event.json())["n"], 7);
        assert!(mailbox.is_empty());
    }
}

pub(crate) async fn an_ended_subscription_is_closed_and_the_others_go_on(store: Store) {
    let (ended, silent) = subscribe(&store, "s").await;
    let (_, other) = subscribe(&store, "s").await;
    store.unsubscribe(ended).await.unwrap();
    store.unsubscribe(ended).await.unwrap();
    append(&store, "s", 1).await;
    assert_eq!(value(item(&other).await.event.json())["n"], 1);
    assert!(within_deadline(silent.recv()).await.is_none());
    store.close().await.unwrap();
    assert!(within_deadline(other.recv()).await.is_none());
}

pub(crate) async fn appends_are_announced_in_order_and_before_they_are_acknowledged(store: Store) {
    let announced = Arc::new(Mutex::new(Vec::new()));
    let announce: Announce = {
        let announced = announced.clone();
        Arc::new(move |subject, event| announced.lock().unwrap().push((subject.to_string(), event.id().to_owned())))
    };
    let appends: Vec<_> =
        (0..200).map(|n| store.append(name("s"), numbered(n), None, Some(announce.clone()))).collect();
    for (n, append) in appends.into_iter().enumerate() {
        let stored = append.await.unwrap();
        assert_eq!(announced.lock().unwrap()[n], ("s".to_owned(), stored.id().to_owned()));
    }
    let refused = store.append(name("s"), numbered(0), Some(Expected::Empty), Some(announce)).await;
    assert_eq!((code(refused), announced.lock().unwrap().len()), (Code::Conflict, 200));
}

pub(crate) async fn a_key_keeps_any_json_value_exactly(store: Store) {
    assert_eq!(store.kv_get(name("k")).await.unwrap(), None);
    let values = [
        "null",
        "0",
        "false",
        "\"\"",
        "\"00123\"",
        "\"true\"",
        "{}",
        "[]",
        "[null,{}]",
        "-0.5",
        "1e300",
        "9007199254740993",
        "{\"b\":1,\"a\":{\"\":[\"\u{1f600}\\n\\u0000\"]}}",
    ];
    for json in values {
        store.kv_set(name("k"), json.into(), None).await.unwrap();
        assert_eq!(store.kv_get(name("k")).await.unwrap().map(|got| value(&got)), Some(value(json)), "{json}");
    }
    store.kv_delete(name("k")).await.unwrap();
    store.kv_delete(name("k")).await.unwrap();
    assert_eq!(store.kv_get(name("k")).await.unwrap(), None);
}

pub(crate) async fn a_key_is_gone_when_its_time_is_up(store: Store) {
    for key in ["short", "extended"] {
        store.kv_set(name(key), text(json!(1)), Some(300)).await.unwrap();
    }
    store.kv_set(name("extended"), text(json!(2)), None).await.unwrap();
    store.kv_set(name("long"), text(json!(3)), Some(3_600_000)).await.unwrap();
    until(async || {
        store.pass(50);
        key(&store, "short").await.is_none()
    })
    .await;
    assert_eq!(key(&store, "extended").await, Some(json!(2)));
    assert_eq!(key(&store, "long").await, Some(json!(3)));
    assert_eq!(store.kv_clear(name("*")).await.unwrap(), 2);
}

pub(crate) async fn incrementing_keeps_the_time_of_a_key(store: Store) {
    store.kv_set(name("k"), text(json!(1.5)), Some(2_000)).await.unwrap();
    assert_eq!(store.kv_increment(name("k"), 2.0).await.unwrap().to_string(), "3.5");
    until(async || {
        store.pass(500);
        key(&store, "k").await.is_none()
    })
    .await;
    assert_eq!(store.kv_increment(name("k"), -1.0).await.unwrap().to_string(), "-1");
    store.kv_set(name("k"), text(json!({})), None).await.unwrap();
    assert_eq!(code(store.kv_increment(name("k"), 1.0).await), Code::Type);
    assert_eq!(key(&store, "k").await, Some(json!({})));
}

pub(crate) async fn clearing_removes_the_keys_that_match_and_nothing_but_keys(store: Store) {
    for key in ["a:1", "a:2:b", "b:1"] {
        store.kv_set(name(key), text(json!(1)), None).await.unwrap();
    }
    append(&store, "a:events", 1).await;
    store.index_add(name("a:index"), name("e"), 1.0, object(json!({}))).await.unwrap();
    store.doc_save(name("a:docs"), name("d"), text(json!({}))).await.unwrap();
    assert_eq!(store.kv_clear(name("a:*")).await.unwrap(), 2);
    assert_eq!(store.kv_clear(name("*")).await.unwrap(), 1);
    assert_eq!(read(&store, "a:events", all()).await, [1]);
    assert!(store.index_get(name("a:index"), name("e")).await.unwrap().is_some());
    assert!(store.doc_get(name("a:docs"), name("d")).await.unwrap().is_some());
}

pub(crate) async fn simultaneous_increments_of_a_key_lose_none(store: Store) {
    let calls: Vec<_> = (0..200).map(|_| store.kv_increment(name("a:b:c"), 1.0)).collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().to_string(), (n + 1).to_string());
    }
    assert_eq!(key(&store, "a:b:c").await, Some(json!(200)));
}

pub(crate) async fn adding_an_entry_replaces_the_one_there_and_expands_dotted_names(store: Store) {
    store.index_add(name("i"), name("e"), 1.0, object(json!({"old": 1, "version": 9}))).await.unwrap();
    assert!(store.index_update(name("i"), name("e"), object(json!({"x": 1})), None).await.unwrap());
    store.index_add(name("i"), name("e"), 2.0, object(json!({"stats.n": 0, "stats.m": [1]}))).await.unwrap();
    let entry = store.index_get(name("i"), name("e")).await.unwrap().unwrap();
    assert_eq!((&*entry.id, entry.score), ("e", 2.0));
    assert_eq!(value(&entry.metadata), json!({"stats": {"n": 0, "m": [1]}, "version": 0}));
    assert_eq!(page(&store, 0, 50, json!({})).await, ["e"]);
}

pub(crate) async fn an_update_merges_deeply_and_counts_the_version(store: Store) {
    store
        .index_add(name("i"), name("e"), 1.0, object(json!({"a": {"b": {"x": 1, "y": 2}}, "list": [1, 2]})))
        .await
        .unwrap();
    let patch = object(json!({"a": {"b": {"x": null, "z": {"step:before": 3}}}, "list": [9], "version": 77}));
    assert!(store.index_update(name("i"), name("e"), patch, Some(0)).await.unwrap());
    assert_eq!(store.index_increment(name("i"), name("e"), name("stats.n"), 2.0).await.unwrap().to_string(), "2");
    let wanted = json!({"a": {"b": {"y": 2, "z": {"step:before": 3}}}, "list": [9], "stats": {"n": 2}, "version": 2});
    assert_eq!(metadata(&store, "i", "e").await, wanted);
    assert!(!store.index_update(name("i"), name("e"), object(json!({"a": null})), Some(1)).await.unwrap());
    assert_eq!(code(store.index_increment(name("i"), name("e"), name("list"), 1.0).await), Code::Type);
    assert_eq!(metadata(&store, "i", "e").await, wanted);
}

pub(crate) async fn two_hundred_simultaneous_updates_of_an_entry_all_happen(store: Store) {
    store.index_add(name("i"), name("e"), 1.0, object(json!({"seen": {}}))).await.unwrap();
    let calls: Vec<_> = (0..200)
        .map(|n| store.index_update(name("i"), name("e"), object(json!({"seen": {format!("u{n}"): n}})), None))
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
    let metadata = metadata(&store, "i", "e").await;
    assert_eq!((metadata["seen"].as_object().unwrap().len(), &metadata["version"]), (200, &json!(200)));
}

pub(crate) async fn entries_come_by_score_then_by_id_filtered_before_the_page_is_cut(store: Store) {
    for (id, score, status) in [("c", 1.0, "a"), ("b", 2.5, "b"), ("d", -1.0, "b"), ("a", 2.5, "a"), ("e", 0.0, "c")] {
        store
            .index_add(name("i"), name(id), score, object(json!({"status": status, "x": {"y": score}})))
            .await
            .unwrap();
    }
    assert_eq!(page(&store, 0, 50, json!({})).await, ["a", "b", "c", "e", "d"]);
    assert_eq!(page(&store, 1, 2, json!({})).await, ["b", "c"]);
    assert_eq!(page(&store, 0, 50, json!({"status": ["a", "b"]})).await, ["a", "b", "c", "d"]);
    assert_eq!(page(&store, 1, 2, json!({"status": ["a", "b"]})).await, ["b", "c"]);
    assert_eq!(page(&store, 0, 1, json!({"x.y": 2.5, "status": "b"})).await, ["b"]);
    assert!(page(&store, 9, 5, json!({})).await.is_empty());
    assert!(page(&store, 0, 0, json!({})).await.is_empty());
    let count = async |filter| store.index_count(name("i"), Filter::new(object(filter))).await.unwrap();
    assert_eq!(count(json!({})).await, 5);
    assert_eq!((count(json!({"status": ["a", "b"]})).await, count(json!({"x.y": 2.5, "status": "b"})).await), (4, 1));
    assert_eq!(store.index_count(name("other"), Filter::default()).await.unwrap(), 0);
}

pub(crate) async fn the_subjects_of_a_glob_are_listed_each_once_in_pages(store: Store) {
    // More than one page has.
    let names: Vec<String> = (0..1_200).map(|n| format!("listed:{n:04}")).collect();
    let appends: Vec<_> = names.iter().map(|subject| store.append(name(subject), numbered(0), None, None)).collect();
    for append in appends {
        append.await.unwrap();
    }
    append(&store, "other", 0).await;
    let list = async |glob| {
        let (mut listed, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            // A page may be empty although others follow: Redis looks at so many keys for each.
            let page = store.subjects(name(glob), cursor.as_deref()).await.unwrap();
            listed.extend(page.subjects.iter().map(ToString::to_string));
            pages += 1;
            cursor = page.cursor;
            if cursor.is_none() {
                listed.sort_unstable();
                return (listed, pages);
            }
        }
    };
    let (listed, pages) = list("listed:*").await;
    assert_eq!(listed, names);
    assert!(pages > 1);
    assert_eq!(list("oth*").await.0, ["other"]);
}

pub(crate) async fn what_fails_is_counted(store: Store) {
    let errors = || store.stats().into_iter().find(|(name, _)| *name == "errors").unwrap().1;
    append(&store, "s", 1).await;
    assert_eq!(errors(), 0.0);
    store.append(name("s"), numbered(2), Some(Expected::Empty), None).await.unwrap_err();
    assert_eq!(errors(), 1.0);
    store.index_increment(name("i"), name("none"), name("n"), 1.0).await.unwrap_err();
    assert_eq!(errors(), 2.0);
}

pub(crate) async fn a_missing_entry_is_reported(store: Store) {
    assert!(store.index_get(name("i"), name("e")).await.unwrap().is_none());
    assert!(!store.index_update(name("i"), name("e"), object(json!({"a": 1})), None).await.unwrap());
    let error = store.index_increment(name("i"), name("e"), name("n"), 1.0).await.unwrap_err();
    assert!(error.code() == Code::NotFound && error.message().contains("Entry not found"), "{error}");
    store.index_add(name("i"), name("e"), 1.0, object(json!({}))).await.unwrap();
    assert!(store.index_delete(name("i"), name("e")).await.unwrap());
    assert!(!store.index_delete(name("i"), name("e")).await.unwrap());
    assert!(page(&store, 0, 50, json!({})).await.is_empty());
}

pub(crate) async fn documents_are_filtered_sorted_and_paged(store: Store) {
    for (id, n) in [("a", json!(2)), ("b", json!(1)), ("c", json!("x")), ("d", json!(1)), ("e", json!(null))] {
        store.doc_save(name("c"), name(id), text(json!({"x": {"n": n}, "old": 1}))).await.unwrap();
    }
    store.doc_save(name("c"), name("a"), text(json!({"x": {"n": 2}}))).await.unwrap();
    assert_eq!(value(&store.doc_get(name("c"), name("a")).await.unwrap().unwrap()), json!({"x": {"n": 2}}));
    let sorted = || DocQuery { sort_by: Some("x.n".into()), ..Default::default() };
    assert_eq!(docs(&store, DocQuery::default()).await, ["a", "b", "c", "d", "e"]);
    assert_eq!(docs(&store, DocQuery { descending: true, limit: Some(2), ..Default::default() }).await, ["e", "d"]);
    assert_eq!(docs(&store, sorted()).await, ["e", "b", "d", "a", "c"]);
    assert_eq!(
        docs(&store, DocQuery { descending: true, offset: 1, limit: Some(3), ..sorted() }).await,
        ["a", "b", "d"]
    );
    let filter = Filter::new(object(json!({"x.n": [1, "x"]})));
    assert_eq!(docs(&store, DocQuery { filter, offset: 1, ..Default::default() }).await, ["c", "d"]);
    store.doc_delete(name("c"), name("a")).await.unwrap();
    store.doc_delete(name("c"), name("a")).await.unwrap();
    assert_eq!(store.doc_get(name("c"), name("a")).await.unwrap(), None);
}

pub(crate) async fn calls_take_effect_in_the_order_in_which_they_are_made(store: Store) {
    let set = store.kv_set(name("k"), text(json!(1)), None);
    let add = store.kv_increment(name("k"), 2.0);
    let before = store.kv_get(name("k"));
    let clear = store.kv_clear(name("k*"));
    let after = store.kv_get(name("k"));
    let stored = store.append(name("s"), numbered(1), None, None);
    let records = store.read(name("s"), all());
    let delete = store.delete_subject(name("s"));
    let none = store.read(name("s"), all());
    assert_eq!(none.await.unwrap().len(), 0);
    assert!(delete.await.unwrap());
    assert_eq!(records.await.unwrap(), [stored.await.unwrap().json().clone()]);
    assert_eq!((after.await.unwrap(), clear.await.unwrap()), (None, 1));
    assert_eq!(before.await.unwrap().as_deref(), Some("3"));
    assert_eq!(add.await.unwrap().to_string(), "3");
    set.await.unwrap();
}

pub(crate) async fn after_closing_every_call_says_so(store: Store) {
    store.open().await.unwrap();
    assert!(store.health().await.unwrap().ok);
    store.close().await.unwrap();
    store.close().await.unwrap();
    assert!(!store.health().await.unwrap().ok);
    closed(store.open()).await;
    closed(store.append(name("s"), numbered(1), None, None)).await;
    closed(store.read(name("s"), all())).await;
    closed(store.delete_subject(name("s"))).await;
    closed(store.subscribe(name("s"), Arc::new(Mailbox::new(1, Overflow::DropOldest)))).await;
    closed(store.kv_get(name("k"))).await;
    closed(store.kv_set(name("k"), text(json!(1)), None)).await;
    closed(store.kv_delete(name("k"))).await;
    closed(store.kv_clear(name("*"))).await;
    closed(store.kv_increment(name("k"), 1.0)).await;
    closed(store.index_add(name("i"), name("e"), 1.0, object(json!({})))).await;
    closed(store.index_get(name("i"), name("e"))).await;
    closed(store.index_read(name("i"), IndexQuery { after: None, offset: 0, limit: 1, filter: Filter::default() }))
        .await;
    closed(store.index_count(name("i"), Filter::default())).await;
    closed(store.subjects(name("*"), None)).await;
    closed(store.index_update(name("i"), name("e"), object(json!({})), None)).await;
    closed(store.index_increment(name("i"), name("e"), name("n"), 1.0)).await;
    closed(store.index_delete(name("i"), name("e"))).await;
    closed(store.doc_save(name("c"), name("d"), text(json!({})))).await;
    closed(store.doc_get(name("c"), name("d"))).await;
    closed(store.doc_list(name("c"), DocQuery::default())).await;
    closed(store.doc_delete(name("c"), name("d"))).await;
}
