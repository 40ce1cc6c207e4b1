//! What every store does.

use std::sync::{Arc, Mutex};

use nvent_native::error::Code;
use nvent_native::event::Event;
use nvent_native::fanout::{Mailbox, Overflow};
use nvent_native::json::{Filter, Json};
use nvent_native::op::Op;
use nvent_native::store::{Announce, DocQuery, EventQuery, Expected, IndexQuery, StoreBackend, Stored};
use serde_json::{Value, json};

use super::{Fresh, event, id, item, object, soon, until, value};

type Store = Fresh<dyn StoreBackend>;

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
                subscriptions_hear_the_subjects_that_their_glob_matches_in_order
                an_ended_subscription_is_closed_and_the_others_go_on
                appends_are_announced_in_order_and_before_they_are_acknowledged
            }
        }
    };
}

fn numbered(n: usize) -> nvent_native::event::NewEvent {
    event(json!({"type": format!("t{}", n % 3), "n": n}))
}

async fn append(store: &Store, subject: &str, n: usize) -> Event {
    store.append(subject, numbered(n), None, None).await.unwrap()
}

async fn read(store: &Store, subject: &str, query: EventQuery) -> Vec<u64> {
    let records = store.read(subject, query).await.unwrap();
    records.iter().map(|record| value(record)["n"].as_u64().unwrap()).collect()
}

fn all() -> EventQuery {
    EventQuery::default()
}

fn text(json: Value) -> Json {
    json.to_string().into()
}

async fn key(store: &Store, key: &str) -> Option<Value> {
    store.kv_get(key).await.unwrap().map(|json| value(&json))
}

async fn metadata(store: &Store, key: &str, id: &str) -> Value {
    value(&store.index_get(key, id).await.unwrap().unwrap().metadata)
}

async fn page(store: &Store, offset: usize, limit: usize, filter: Value) -> Vec<String> {
    let query = IndexQuery { offset, limit, filter: Filter::new(object(filter)) };
    store.index_read("i", query).await.unwrap().iter().map(|entry| entry.id.to_string()).collect()
}

async fn docs(store: &Store, query: DocQuery) -> Vec<String> {
    store.doc_list("c", query).await.unwrap().iter().map(|(id, _)| id.to_string()).collect()
}

async fn subscribe(store: &Store, pattern: &str) -> (u64, Arc<Mailbox<Stored>>) {
    let mailbox = Arc::new(Mailbox::new(10_000, Overflow::DropOldest));
    (store.subscribe(pattern, mailbox.clone()).await.unwrap(), mailbox)
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
    let waiting: Vec<_> = (50..250).map(|n| store.append("s", numbered(n), None, None)).collect();
    for append in waiting {
        ids.push(id(append.await.unwrap().id()));
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(read(&store, "s", all()).await.into_iter().eq(0..250));
}

pub(crate) async fn a_record_is_the_event_with_id_and_ts_in_front(store: Store) {
    let new = json!({"type": "a", "runId": "r", "data": {"k": [1, null, {}]}, "extra": "x"});
    let stored = store.append("s", event(new), None, None).await.unwrap();
    let record = value(stored.json());
    assert_eq!(
        record,
        json!({"id": stored.id(), "ts": record["ts"].as_u64().unwrap(), "type": "a", "runId": "r",
            "data": {"k": [1, null, {}]}, "extra": "x"})
    );
    assert_eq!((stored.kind(), stored.run_id()), ("a", Some("r")));
    assert_eq!(store.read("s", all()).await.unwrap(), [stored.json().clone()]);
    assert!(store.read("another", all()).await.unwrap().is_empty());
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
                for (from, to) in [(None, None), (Some(times[2]), None), (Some(0.0), Some(times[8])), (None, Some(0.0))] {
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
    let expect = |n, expected| store.append("s", numbered(n), Some(expected), None);
    let first = id(expect(0, Expected::Empty).await.unwrap().id());
    assert_eq!(code(expect(1, Expected::Empty).await), Code::Conflict);
    let second = id(expect(1, Expected::Last(first)).await.unwrap().id());
    assert_eq!(code(expect(2, Expected::Last(first)).await), Code::Conflict);
    expect(2, Expected::Last(second)).await.unwrap();
    assert_eq!(read(&store, "s", all()).await, [0, 1, 2]);
    let other = store.append("empty", numbered(0), Some(Expected::Last(first)), None).await;
    assert_eq!(code(other), Code::Conflict);
    assert!(store.read("empty", all()).await.unwrap().is_empty());
}

pub(crate) async fn of_many_appends_that_expect_the_same_end_one_succeeds(store: Store) {
    let first = id(append(&store, "s", 0).await.id());
    let racers: Vec<_> =
        (1..40).map(|n| store.append("s", numbered(n), Some(Expected::Last(first)), None)).collect();
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
    assert!(store.delete_subject("s").await.unwrap());
    assert!(!store.delete_subject("s").await.unwrap());
    assert!(store.read("s", all()).await.unwrap().is_empty());
    let again = store.append("s", numbered(7), Some(Expected::Empty), None).await.unwrap();
    assert!(id(again.id()) > last, "{} after {last}", again.id());
    assert_eq!(read(&store, "s", EventQuery { after: Some(last), ..all() }).await, [7]);
}

pub(crate) async fn subscriptions_hear_the_subjects_that_their_glob_matches_in_order(store: Store) {
    append(&store, "run:a", 99).await;
    let (_, exact) = subscribe(&store, "run:a").await;
    let (_, glob) = subscribe(&store, "run:[ab]*").await;
    let (_, every) = subscribe(&store, "*").await;
    for n in 0..60 {
        append(&store, ["run:a", "run:b:x", "other"][n % 3], n).await;
    }
    for (mailbox, subjects) in [(exact, 1), (glob, 2), (every, 3)] {
        for n in (0..60).filter(|n| n % 3 < subjects) {
            let stored = item(&mailbox).await;
            assert_eq!(&*stored.subject, ["run:a", "run:b:x", "other"][n % 3]);
            assert_eq!(value(stored.event.json())["n"], n);
        }
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
    assert!(soon(silent.recv()).await.is_none());
    store.close().await.unwrap();
    assert!(soon(other.recv()).await.is_none());
}

pub(crate) async fn appends_are_announced_in_order_and_before_they_are_acknowledged(store: Store) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let announce: Announce = {
        let heard = heard.clone();
        Arc::new(move |subject, event| heard.lock().unwrap().push((subject.to_string(), event.id().to_owned())))
    };
    let appends: Vec<_> =
        (0..200).map(|n| store.append("s", numbered(n), None, Some(announce.clone()))).collect();
    for (n, append) in appends.into_iter().enumerate() {
        let stored = append.await.unwrap();
        assert_eq!(heard.lock().unwrap()[n], ("s".to_owned(), stored.id().to_owned()));
    }
    let refused = store.append("s", numbered(0), Some(Expected::Empty), Some(announce)).await;
    assert_eq!((code(refused), heard.lock().unwrap().len()), (Code::Conflict, 200));
}
