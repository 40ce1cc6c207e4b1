//! Random operations on the file store and on the memory store as its model, with reopening in between.
//!
//! Between two times of waiting, calls are made without awaiting any: both must answer as if each took effect at once.

#[path = "support/name.rs"]
mod name;

use std::path::Path;
use std::sync::Arc;

use name::name;
use nvent_native::error::{Code, Error};
use nvent_native::event::{EventId, NewEvent};
use nvent_native::fanout::{Delivery, Mailbox, Overflow};
use nvent_native::json::{self, Filter};
use nvent_native::op::Op;
use nvent_native::store::file::{FileStore, FileStoreOptions};
use nvent_native::store::{DocQuery, EventQuery, Expected, IndexQuery, MemoryStore, StoreBackend, Stored};
use nvent_native::time::ManualClock;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::runtime::Handle;

#[derive(Debug, Clone)]
enum Call {
    Append(&'static str, &'static str, Option<Expected>),
    Read(&'static str, EventQuery),
    DeleteSubject(&'static str),
    KvSet(&'static str, &'static str, Option<u64>),
    KvGet(&'static str),
    KvDelete(&'static str),
    KvClear(&'static str),
    KvIncrement(&'static str, f64),
    IndexAdd(&'static str, &'static str, f64, &'static str),
    IndexGet(&'static str, &'static str),
    IndexRead(&'static str, usize, usize, &'static str),
    IndexUpdate(&'static str, &'static str, &'static str, Option<i64>),
    IndexIncrement(&'static str, &'static str, &'static str),
    IndexDelete(&'static str, &'static str),
    DocSave(&'static str, &'static str, &'static str),
    DocGet(&'static str, &'static str),
    DocList(&'static str, &'static str, Option<&'static str>, usize, Option<usize>, bool),
    DocDelete(&'static str, &'static str),
    /// Everything called for so far is awaited, then time goes on.
    Wait(u64),
    /// Everything called for so far is awaited, and the file store closed and opened again.
    Reopen,
}

fn call() -> impl Strategy<Value = Call> {
    let name = || select(&["a", "b", "a:b"][..]);
    let ms = || 1_000..1_012_u64;
    let id = move || (ms(), 0..3_u64).prop_map(|(ms, seq)| EventId { ms, seq });
    let object = || {
        select(
            &[
                "{}",
                r#"{"s":"x","n":1}"#,
                r#"{"s":"y","d":{"e":{"f":[1,2]},"g":null}}"#,
                r#"{"s":null,"n":1.5,"d":{"e":null}}"#,
                r#"{"d":{"n":2},"s":"\u0078"}"#,
            ][..],
        )
    };
    let filter = || select(&["{}", r#"{"s":"x"}"#, r#"{"s":["y",null]}"#, r#"{"d.n":2}"#, r#"{"n":1.0}"#][..]);
    let expected = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Expected::Empty)),
        2 => id().prop_map(|id| Some(Expected::Last(id))),
    ];
    let time = move || proptest::option::weighted(0.3, ms().prop_map(|ms| ms as f64));
    let kinds = select(vec![None, Some(vec!["t"]), Some(vec!["u", "v"]), Some(vec![])]);
    let query = (
        kinds,
        proptest::option::weighted(0.3, id()),
        proptest::option::weighted(0.3, id()),
        time(),
        time(),
        proptest::option::weighted(0.4, 0..6_usize),
        any::<bool>(),
    )
        .prop_map(|(types, after, before, from, to, limit, descending)| EventQuery {
            types: types.map(|types| types.iter().map(|&kind| kind.to_owned()).collect()),
            after,
            before,
            from,
            to,
            limit,
            descending,
        });
    let value = select(&["1", "\"x\"", "null", "false", "2.5", r#"{"a":1}"#][..]);
    prop_oneof![
        8 => (name(), select(&["t", "u", "v"][..]), expected).prop_map(|(s, t, e)| Call::Append(s, t, e)),
        6 => (name(), query).prop_map(|(s, q)| Call::Read(s, q)),
        1 => name().prop_map(Call::DeleteSubject),
        4 => (name(), value, proptest::option::weighted(0.4, 1..6_u64)).prop_map(|(k, v, t)| Call::KvSet(k, v, t)),
        4 => name().prop_map(Call::KvGet),
        1 => name().prop_map(Call::KvDelete),
        1 => select(&["*", "a*", "?", "a:*", "z*"][..]).prop_map(Call::KvClear),
        3 => (name(), select(&[1.0, -2.0, 0.5][..])).prop_map(|(k, n)| Call::KvIncrement(k, n)),
        4 => (name(), name(), select(&[0.0, 1.0, 1.5, -3.0][..]), object())
            .prop_map(|(k, i, s, m)| Call::IndexAdd(k, i, s, m)),
        2 => (name(), name()).prop_map(|(k, i)| Call::IndexGet(k, i)),
        4 => (name(), 0..3_usize, 0..4_usize, filter()).prop_map(|(k, o, l, f)| Call::IndexRead(k, o, l, f)),
        4 => (name(), name(), object(), proptest::option::weighted(0.3, 0..3_i64))
            .prop_map(|(k, i, m, v)| Call::IndexUpdate(k, i, m, v)),
        3 => (name(), name(), select(&["n", "d.n", "s", "d.e.f"][..])).prop_map(|(k, i, f)| Call::IndexIncrement(k, i, f)),
        1 => (name(), name()).prop_map(|(k, i)| Call::IndexDelete(k, i)),
        4 => (name(), name(), object()).prop_map(|(c, i, d)| Call::DocSave(c, i, d)),
        2 => (name(), name()).prop_map(|(c, i)| Call::DocGet(c, i)),
        4 => (
            name(),
            filter(),
            select(&[None, Some("n"), Some("s"), Some("d.n")][..]),
            0..3_usize,
            proptest::option::of(0..4_usize),
            any::<bool>(),
        )
            .prop_map(|(c, f, s, o, l, d)| Call::DocList(c, f, s, o, l, d)),
        1 => (name(), name()).prop_map(|(c, i)| Call::DocDelete(c, i)),
        6 => (0..3_u64).prop_map(Call::Wait),
        1 => Just(Call::Reopen),
    ]
}

fn object(text: &str) -> json::Object {
    json::parse_object("object", text).unwrap()
}

/// Returns any answer, as text that two stores must agree on.
fn outcome<T: std::fmt::Debug + Send + 'static>(op: Op<T>) -> Op<String> {
    op.map(|value| format!("{value:?}"))
}

fn make(store: &dyn StoreBackend, call: &Call) -> Option<Op<String>> {
    let filter = |text: &str| Filter::new(object(text));
    Some(match call.clone() {
        Call::Append(subject, kind, expected) => {
            let event = NewEvent::parse(&format!("{{\"type\":\"{kind}\",\"x\":[]}}")).unwrap();
            outcome(store.append(name(subject), event, expected, None).map(|event| event.json().clone()))
        }
        Call::Read(subject, query) => outcome(store.read(name(subject), query)),
        Call::DeleteSubject(subject) => outcome(store.delete_subject(name(subject))),
        Call::KvSet(key, value, ttl) => outcome(store.kv_set(name(key), value.into(), ttl)),
        Call::KvGet(key) => outcome(store.kv_get(name(key))),
        Call::KvDelete(key) => outcome(store.kv_delete(name(key))),
        Call::KvClear(pattern) => outcome(store.kv_clear(name(pattern))),
        Call::KvIncrement(key, by) => outcome(store.kv_increment(name(key), by)),
        Call::IndexAdd(key, id, score, metadata) => {
            outcome(store.index_add(name(key), name(id), score, object(metadata)))
        }
        Call::IndexGet(key, id) => outcome(store.index_get(name(key), name(id))),
        Call::IndexRead(key, offset, limit, text) => {
            outcome(store.index_read(name(key), IndexQuery { after: None, offset, limit, filter: filter(text) }))
        }
        Call::IndexUpdate(key, id, patch, version) => {
            outcome(store.index_update(name(key), name(id), object(patch), version))
        }
        Call::IndexIncrement(key, id, field) => outcome(store.index_increment(name(key), name(id), name(field), 2.0)),
        Call::IndexDelete(key, id) => outcome(store.index_delete(name(key), name(id))),
        Call::DocSave(collection, id, doc) => outcome(store.doc_save(name(collection), name(id), doc.into())),
        Call::DocGet(collection, id) => outcome(store.doc_get(name(collection), name(id))),
        Call::DocList(collection, text, sort_by, offset, limit, descending) => {
            let sort_by = sort_by.map(str::to_owned);
            outcome(store.doc_list(
                name(collection),
                DocQuery { filter: filter(text), after: None, offset, limit, sort_by, descending },
            ))
        }
        Call::DocDelete(collection, id) => outcome(store.doc_delete(name(collection), name(id))),
        Call::Wait(_) | Call::Reopen => return None,
    })
}

/// A store under test, and its subscriber.
struct Side {
    store: Box<dyn StoreBackend>,
    delivered: Arc<Mailbox<Stored>>,
}

impl Side {
    async fn new(store: Box<dyn StoreBackend>) -> Self {
        let delivered = Arc::new(Mailbox::new(10_000, Overflow::default()));
        store.subscribe(name("a*"), delivered.clone()).await.unwrap();
        Self { store, delivered }
    }

    fn delivered(&self) -> Vec<String> {
        let mut deliveries = Vec::new();
        while self.delivered.take(usize::MAX, &mut deliveries) {}
        let text = |delivery| match delivery {
            Delivery::Item(Stored { subject, event }) => format!("{subject} {}", event.json()),
            Delivery::Gap(gap) => format!("{gap:?}"),
        };
        deliveries.into_iter().map(text).collect()
    }
}

async fn file(dir: &Path, clock: &Arc<ManualClock>) -> Side {
    Side::new(Box::new(FileStore::new(FileStoreOptions::new(dir), clock.clone(), Handle::current()))).await
}

async fn agree(calls: Vec<Call>) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(1_000);
    let model = Side::new(Box::new(MemoryStore::new(clock.clone()))).await;
    let mut tested = file(dir.path(), &clock).await;
    let mut open: Vec<(Call, Op<String>, Op<String>)> = Vec::new();
    for call in calls.into_iter().chain([Call::Reopen]) {
        if let Some(expected) = make(&*model.store, &call) {
            let found = make(&*tested.store, &call).unwrap();
            open.push((call, expected, found));
            continue;
        }
        for (call, expected, found) in open.drain(..) {
            let code = |error: Error| error.code();
            let (expected, found): (Result<_, Code>, Result<_, Code>) =
                (expected.await.map_err(code), found.await.map_err(code));
            prop_assert_eq!(found, expected, "{:?}", call);
        }
        prop_assert_eq!(tested.delivered(), model.delivered());
        match call {
            Call::Wait(ms) => clock.advance(ms),
            _ => {
                tested.store.close().await.unwrap();
                tested = file(dir.path(), &clock).await;
            }
        }
    }
    tested.store.close().await.unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_file_store_answers_as_the_memory_store_does(calls in proptest::collection::vec(call(), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(agree(calls))?;
    }
}
