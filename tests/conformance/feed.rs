//! What the feed of every store does, and its storage of consumers.

#![allow(dead_code, reason = "a backend without a feed does not run these")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nvent_native::error::Code;
use nvent_native::store::{
    ConsumerChange, ConsumerState, FeedPage, FeedQuery, Lease, ParkedEvent, Position, StoreBackend,
};
use nvent_native::topic::Glob;
use serde_json::json;

use super::{TestBackend, event, name, value, within_deadline};

type Store = TestBackend<dyn StoreBackend>;

/// The contract over a backend.
#[macro_export]
macro_rules! feed_conformance {
    ($backend:ident, $fresh:path) => {
        mod $backend {
            $crate::behaviours! { feed, $fresh:
                all_subjects_are_read_in_the_order_in_which_they_were_stored
                a_page_ends_at_its_limit_and_the_next_one_begins_after_it
                globs_of_subjects_and_types_select_and_the_page_ends_behind_what_they_passed_over
                the_head_is_the_newest_position
                a_deleted_subject_is_not_read_and_positions_only_grow
                a_follower_is_woken_by_an_append_and_finds_it
                a_position_of_another_kind_is_refused
                a_consumer_is_stored_changed_listed_and_deleted
                parked_events_are_kept_replaced_and_removed
                a_name_is_held_by_one_at_a_time
            }
        }
    };
}

async fn append(store: &Store, subject: &str, kind: &str, n: usize) {
    store.append(name(subject), event(json!({"type": kind, "n": n})), None, None).await.unwrap();
}

fn query(limit: usize) -> FeedQuery {
    FeedQuery { limit, ..FeedQuery::default() }
}

async fn read(store: &Store, query: FeedQuery) -> FeedPage {
    store.feed_read(query).await.unwrap()
}

fn numbers(page: &FeedPage) -> Vec<u64> {
    page.records.iter().map(|record| value(&record.event)["n"].as_u64().unwrap()).collect()
}

pub(crate) async fn all_subjects_are_read_in_the_order_in_which_they_were_stored(store: Store) {
    for n in 0..50 {
        append(&store, ["a", "b", "c"][n % 3], "t", n).await;
    }
    let page = read(&store, query(100)).await;
    assert_eq!(numbers(&page), (0..50).collect::<Vec<_>>());
    assert_eq!(&*page.records[4].subject, "b");
    assert_eq!(value(&page.records[4].event), value(&store.read(name("b"), Default::default()).await.unwrap()[1]));
    assert_eq!(page.end.as_ref(), Some(&page.records[49].position));
    assert_eq!(page.missed, 0);
}

pub(crate) async fn a_page_ends_at_its_limit_and_the_next_one_begins_after_it(store: Store) {
    assert_eq!(read(&store, query(10)).await, FeedPage::default());
    for n in 0..25 {
        append(&store, &format!("s{}", n % 4), "t", n).await;
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = read(&store, FeedQuery { after: after.clone(), ..query(10) }).await;
        seen.push(numbers(&page).len());
        if page.end.is_none() {
            break;
        }
        after = page.end;
    }
    assert_eq!(seen, [10, 10, 5, 0]);
    assert_eq!(read(&store, query(0)).await.records, []);
    let large = FeedQuery { max_bytes: Some(1), ..query(10) };
    assert_eq!(numbers(&read(&store, large).await), [0], "a page of too many bytes has one record at least");
}

pub(crate) async fn globs_of_subjects_and_types_select_and_the_page_ends_behind_what_they_passed_over(store: Store) {
    for n in 0..20 {
        append(&store, &format!("order:{}", n % 5), if n % 2 == 0 { "paid" } else { "sent" }, n).await;
    }
    let globs = |texts: &[&str]| texts.iter().map(|text| Glob::new(text)).collect::<Vec<_>>();
    let page = read(&store, FeedQuery { subjects: globs(&["order:[12]", "none"]), types: globs(&["p*"]), ..query(9) });
    let page = page.await;
    assert_eq!(numbers(&page), [2, 6, 12, 16]);
    let head = store.feed_head().await.unwrap();
    assert_eq!(page.end, head);
    let none = read(&store, FeedQuery { types: globs(&["other"]), ..query(9) }).await;
    assert_eq!((none.records.len(), none.end), (0, head));
}

pub(crate) async fn the_head_is_the_newest_position(store: Store) {
    assert_eq!(store.feed_head().await.unwrap(), None);
    for n in 0..3 {
        let appended = store.append(name("s"), event(json!({"type": "t", "n": n})), None, None);
        let head = store.feed_head();
        appended.await.unwrap();
        let page = read(&store, query(10)).await;
        assert_eq!(head.await.unwrap().as_ref(), page.records.last().map(|record| &record.position));
        let number = |position: &Position| store.feed_number(position).unwrap();
        let (first, last) = (number(&page.records[0].position), number(&page.records[n].position));
        assert_eq!(last - first, n as u64);
    }
}

pub(crate) async fn a_deleted_subject_is_not_read_and_positions_only_grow(store: Store) {
    for n in 0..6 {
        append(&store, ["a", "b"][n % 2], "t", n).await;
    }
    let head = store.feed_head().await.unwrap().unwrap();
    store.delete_subject(name("b")).await.unwrap();
    assert_eq!(numbers(&read(&store, query(10)).await), [0, 2, 4]);
    append(&store, "b", "t", 9).await;
    let page = read(&store, FeedQuery { after: Some(head.clone()), ..query(10) }).await;
    assert_eq!(numbers(&page), [9]);
    let number = |position: &Position| store.feed_number(position).unwrap();
    assert!(number(&page.records[0].position) > number(&head));
    assert_eq!(numbers(&read(&store, query(10)).await), [0, 2, 4, 9]);
}

pub(crate) async fn a_follower_is_woken_by_an_append_and_finds_it(store: Store) {
    store.open().await.unwrap();
    append(&store, "s", "t", 0).await;
    let mut watch = store.feed_watch().unwrap();
    let mut after = store.feed_head().await.unwrap();
    watch.mark_unchanged();
    for n in 1..20 {
        append(&store, "s", "t", n).await;
        within_deadline(async {
            loop {
                let page = read(&store, FeedQuery { after: after.clone(), ..query(10) }).await;
                if !page.records.is_empty() {
                    assert_eq!(numbers(&page), [n as u64]);
                    after = page.end;
                    break;
                }
                watch.changed().await.unwrap();
            }
        })
        .await;
    }
    within_deadline(watch.changed()).await.unwrap();
}

pub(crate) async fn a_position_of_another_kind_is_refused(store: Store) {
    append(&store, "s", "t", 0).await;
    for text in ["x", "-1", "+1", "1.5", "99999999999999999999999"] {
        let after = Some(Position::new(text).unwrap());
        let error = store.feed_read(FeedQuery { after, ..query(1) }).await.unwrap_err();
        assert_eq!(error.code(), Code::Invalid, "{text}");
    }
    assert_eq!(Position::new("").unwrap_err().code(), Code::Invalid);
    assert_eq!(Position::new(&"1".repeat(100)).unwrap_err().code(), Code::Invalid);
}

async fn lease(store: &Store) -> Lease {
    within_deadline(store.consumer_acquire(name("c")).into_future()).await.unwrap()
}

async fn positions(store: &Store) -> Vec<Position> {
    for n in 0..5 {
        append(store, "s", "t", n).await;
    }
    read(store, query(10)).await.records.into_iter().map(|record| record.position).collect()
}

pub(crate) async fn a_consumer_is_stored_changed_listed_and_deleted(store: Store) {
    let at = positions(&store).await;
    assert_eq!(store.consumer_load(name("c")).await.unwrap(), None);
    let lease = lease(&store).await;
    let save = |change: ConsumerChange| store.consumer_save(name("c"), &lease, change);
    save(ConsumerChange::default()).await.unwrap();
    assert_eq!(store.consumer_load(name("c")).await.unwrap(), Some(ConsumerState::default()));
    save(ConsumerChange { position: Some(at[2].clone()), ..Default::default() }).await.unwrap();
    save(ConsumerChange::default()).await.unwrap();
    let state = ConsumerState { position: Some(at[2].clone()), ..Default::default() };
    assert_eq!(store.consumer_load(name("c")).await.unwrap(), Some(state));
    let listed = store.consumer_list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&*listed[0].name, listed[0].position.as_ref(), listed[0].parked), ("c", Some(&at[2]), 0));
    assert!(store.consumer_delete(name("c")).await.unwrap());
    assert!(!store.consumer_delete(name("c")).await.unwrap());
    assert_eq!(store.consumer_list().await.unwrap(), []);
}

pub(crate) async fn parked_events_are_kept_replaced_and_removed(store: Store) {
    let records = {
        positions(&store).await;
        read(&store, query(10)).await.records
    };
    let parked = |n: usize, attempts: u32| ParkedEvent {
        position: records[n].position.clone(),
        subject: records[n].subject.clone(),
        event: records[n].event.clone(),
        attempts,
        reason: format!("failed {n}: \"quoted\" and é"),
        parked_at_ms: 1_767_225_600_000 + n as u64,
    };
    let lease = lease(&store).await;
    let save = |change: ConsumerChange| store.consumer_save(name("c"), &lease, change);
    let park = vec![parked(3, 5), parked(1, 5), parked(0, 5)];
    save(ConsumerChange { position: Some(records[3].position.clone()), park, ..Default::default() }).await.unwrap();
    save(ConsumerChange { park: vec![parked(1, 10)], ..Default::default() }).await.unwrap();
    let list = |after: Option<Position>, limit| store.consumer_parked(name("c"), after, limit);
    assert_eq!(list(None, 10).await.unwrap(), [parked(0, 5), parked(1, 10), parked(3, 5)]);
    assert_eq!(list(Some(records[0].position.clone()), 1).await.unwrap(), [parked(1, 10)]);
    assert_eq!(store.consumer_load(name("c")).await.unwrap().unwrap().parked, 3);
    assert_eq!(store.consumer_list().await.unwrap()[0].parked, 3);
    store.delete_subject(name("s")).await.unwrap();
    save(ConsumerChange { unpark: vec![records[1].position.clone()], ..Default::default() }).await.unwrap();
    assert_eq!(list(None, 10).await.unwrap(), [parked(0, 5), parked(3, 5)], "they outlive the log");
    store.consumer_delete(name("c")).await.unwrap();
    assert_eq!(list(None, 10).await.unwrap(), []);
}

pub(crate) async fn a_name_is_held_by_one_at_a_time(store: Store) {
    let first = lease(&store).await;
    assert!(!first.is_lost());
    within_deadline(store.consumer_acquire(name("other")).into_future()).await.unwrap();
    let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
    let is_held = Arc::new(AtomicBool::new(false));
    for n in 0..3 {
        let (waiting, sender, is_held) = (store.consumer_acquire(name("c")), sender.clone(), is_held.clone());
        tokio::spawn(async move {
            let lease = waiting.await.unwrap();
            let was_held = is_held.swap(true, Ordering::SeqCst);
            // Another has every opportunity to get it as well.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            is_held.store(false, Ordering::SeqCst);
            drop(lease);
            sender.send((n, was_held)).unwrap();
        });
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(order.try_recv().is_err(), "the name is held");
    drop(first);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(within_deadline(order.recv()).await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, false), (1, false), (2, false)], "two hold it at once");
    let abandoned = store.consumer_acquire(name("c"));
    let held = within_deadline(abandoned.into_future()).await.unwrap();
    drop(store.consumer_acquire(name("c")));
    drop(held);
    drop(lease(&store).await);
}
