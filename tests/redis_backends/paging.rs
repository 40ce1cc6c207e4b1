//! Reads of very many rows: several calls, so that the server answers others between them, with the result of one.

use std::future::{Future, IntoFuture};

use nvent_native::json::{Filter, Json};
use nvent_native::store::{DocQuery, EventQuery, IndexPlace, IndexQuery, StoreBackend};
use serde_json::{Value, json};

use crate::conformance::name;
use crate::support::TestRedis;
use crate::{connection_to, object, store_on, value};

const COUNT: usize = 25_000;

/// Returns how often a script or command of this kind ran.
fn calls(redis: &TestRedis, command: &str) -> usize {
    let stats = redis.info(&format!("cmdstat_{command}"));
    let calls = stats.strip_prefix("calls=").and_then(|rest| rest.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

/// Returns the result of a read and how many calls of a command it took.
async fn counted<T>(redis: &TestRedis, command: &str, read: impl Future<Output = T>) -> (T, usize) {
    let before = calls(redis, command);
    let result = read.await;
    (result, calls(redis, command) - before)
}

fn ids(entries: &[nvent_native::store::IndexEntry]) -> Vec<usize> {
    entries.iter().map(|entry| entry.id.parse().unwrap()).collect()
}

/// Fills an index: ids 00000 to 24999, three of four with scores of their own and the others all alike.
fn fill_index(redis: &TestRedis) -> Vec<usize> {
    redis.raw(&[
        "EVAL",
        "for n = 0, tonumber(ARGV[1]) - 1 do
           local id = string.format('%05d', n)
           redis.call('ZADD', 'runs', n % 4 == 0 and -1 or n, id)
           redis.call('HSET', 'runs:meta:' .. id, 'version', '1', 'parity', n % 2 == 0 and 'even' or 'odd', 'n', n)
         end",
        "0",
        &COUNT.to_string(),
    ]);
    let (own, alike): (Vec<_>, Vec<_>) = (0..COUNT).partition(|n| n % 4 != 0);
    own.into_iter().rev().chain(alike).collect()
}

fn query(offset: usize, limit: usize, filter: Value) -> IndexQuery {
    IndexQuery { after: None, offset, limit, filter: Filter::new(object(filter)) }
}

#[tokio::test]
async fn an_index_is_scanned_in_calls_of_bounded_length() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let all = fill_index(&redis);
    let read = |query| async { ids(&store.index_read(name("runs"), query).await.unwrap()) };
    let matching = |test: fn(usize) -> bool| all.iter().copied().filter(|n| test(*n)).collect::<Vec<_>>();

    let (found, took) = counted(&redis, "evalsha", read(query(0, 50, json!({})))).await;
    assert_eq!((found.as_slice(), took), (&all[..50], 1));
    let (found, took) = counted(&redis, "evalsha", read(query(0, 50, json!({"parity": "neither"})))).await;
    assert!(found.is_empty() && took == 3, "{} of {took} calls", found.len());
    let (found, took) = counted(&redis, "evalsha", read(query(0, usize::MAX, json!({})))).await;
    assert!(found == all && took > 10, "{} of {took} calls", found.len());

    let even = matching(|n| n % 2 == 0);
    assert_eq!(read(query(0, usize::MAX, json!({"parity": "even"}))).await, even);
    // Offsets and limits across calls.
    for (offset, limit) in [(9_990, 2_500), (5_000, 4_100), (12_499, 50), (12_500, 50), (0, 2_000), (1, 2_001)] {
        assert_eq!(read(query(offset, limit, json!({}))).await, all[offset..offset + limit], "{offset} {limit}");
        let rest = &even[offset.min(even.len())..];
        let expected = &rest[..limit.min(rest.len())];
        assert_eq!(read(query(offset, limit, json!({"parity": "even"}))).await, expected, "even {offset} {limit}");
    }
    // A condition on an object is decided by the client.
    assert_eq!(read(query(0, 10, json!({"parity": {"of": "even"}}))).await, [0_usize; 0]);
    let after = Some(IndexPlace { score: -1.0, id: "10000".into() });
    let query =
        IndexQuery { after, offset: 10, limit: usize::MAX, filter: Filter::new(object(json!({"parity": "even"}))) };
    // All entries behind this place are even; the offset counts from it.
    let place = all.iter().position(|n| *n == 10_000).unwrap();
    assert_eq!(read(query).await, all[place + 1 + 10..]);

    let count = store.index_count(name("runs"), Filter::new(object(json!({"parity": ["odd", "x"]}))));
    let (counted, took) = counted(&redis, "evalsha", count.into_future()).await;
    assert_eq!((counted.unwrap(), took), (COUNT as u64 / 2, 3));
}

#[tokio::test]
async fn an_entry_that_is_met_again_comes_once() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let all = fill_index(&redis);
    let reading = store.index_read(name("runs"), query(0, usize::MAX, json!({})));
    // Served between two calls of the scan: the first entry becomes the last.
    let moved = store.index_add(name("runs"), name(&format!("{:05}", all[0])), -2.0, object(json!({})));
    let mut found = ids(&reading.await.unwrap());
    moved.await.unwrap();
    found.sort_unstable();
    assert!(found == (0..COUNT).collect::<Vec<_>>(), "{} entries", found.len());
}

#[tokio::test]
async fn the_events_of_a_subject_are_read_in_calls_of_bounded_length() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    redis.raw(&[
        "EVAL",
        "for n = 1, tonumber(ARGV[1]) do
           redis.call('XADD', 's', n .. '-0', 'ts', n, 'type', n % 5000 == 0 and 'rare' or 'common')
         end",
        "0",
        &COUNT.to_string(),
    ]);
    let ts = |events: Vec<Json>| events.iter().map(|e| value(e)["ts"].as_u64().unwrap() as usize).collect::<Vec<_>>();
    let read = |query| async { ts(store.read(name("s"), query).await.unwrap()) };
    let rare = || Some(vec!["rare".into()]);

    let (found, took) = counted(&redis, "xrange", read(EventQuery::default())).await;
    assert!(found == (1..=COUNT).collect::<Vec<_>>() && took > 10, "{} in {took} calls", found.len());
    let (found, took) = counted(&redis, "evalsha", read(EventQuery { types: rare(), ..Default::default() })).await;
    assert_eq!((found, took), (vec![5_000, 10_000, 15_000, 20_000, 25_000], 3));
    let newest_first = EventQuery { types: rare(), descending: true, limit: Some(4), ..Default::default() };
    assert_eq!(read(newest_first).await, [25_000, 20_000, 15_000, 10_000]);
    for limit in [1, 1_999, 2_000, 2_001, 4_000, 10_001, COUNT, COUNT + 1] {
        let first: Vec<_> = (1..=COUNT.min(limit)).collect();
        assert_eq!(read(EventQuery { limit: Some(limit), ..Default::default() }).await, first);
        let last: Vec<_> = (1..=COUNT).rev().take(limit).collect();
        assert_eq!(read(EventQuery { limit: Some(limit), descending: true, ..Default::default() }).await, last);
        let from = EventQuery { limit: Some(limit), from: Some(3.0), to: Some(24_000.0), ..Default::default() };
        assert_eq!(read(from).await, (3..=24_000).take(limit).collect::<Vec<_>>());
    }
    let between = EventQuery { after: "100-0".parse().ok(), before: "9000-0".parse().ok(), ..Default::default() };
    assert_eq!(read(between).await, (101..9_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_documents_of_a_collection_are_read_in_calls_of_bounded_length() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let key = "nvent:~documents:large";
    redis.raw(&[
        "EVAL",
        "for n = 0, tonumber(ARGV[2]) - 1 do
           redis.call('HSET', ARGV[1], string.format('%05d', n), '{\"n\":' .. n .. '}')
         end",
        "0",
        key,
        &COUNT.to_string(),
    ]);
    store.doc_save(name("large"), name("99999"), r#"{"n":-1}"#.into()).await.unwrap();
    assert_eq!(redis.raw(&["HLEN", key]), redis::Value::Int(COUNT as i64 + 1), "the key of the collection");
    let (documents, took) =
        counted(&redis, "hscan", store.doc_list(name("large"), DocQuery::default()).into_future()).await;
    let documents = documents.unwrap();
    assert!(documents.len() == COUNT + 1 && took > 5, "{} in {took} calls", documents.len());
    assert!(documents.iter().take(COUNT).enumerate().all(|(n, (id, _))| **id == *format!("{n:05}")));
}
