//! The coordinator that follows a feed: it publishes in the append where nothing is under way and from the feed otherwise,
//! loses nothing and keeps the order of each subject.

#[path = "wiring_support/feed.rs"]
mod feed;
#[path = "support/name.rs"]
mod name;
#[path = "wiring_support/stream.rs"]
#[allow(dead_code, reason = "shared with the tests of the coordinator on a bus")]
mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use feed::{options, started};
use name::name;
use nvent_native::error::Error;
use nvent_native::event::{Event, EventId, NewEvent};
use nvent_native::fanout::{Delivery, Gap, GapReason};
use nvent_native::op::Op;
use nvent_native::store::file::{FileStore, FileStoreOptions, Retention};
use nvent_native::store::{EventQuery, FeedQuery, MemoryStore, StoreBackend};
use nvent_native::stream::{MemoryStream, Message, StreamBackend, SubscribeSpec};
use nvent_native::time::{ManualClock, system_clock};
use nvent_native::wiring::coordinator::CONSUMER;
use nvent_native::wiring::{Publisher, Wiring};
use serde_json::json;
use support::Recorder;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

const START: u64 = 1_767_225_600_000;

fn in_memory() -> Arc<dyn StoreBackend> {
    Arc::new(MemoryStore::new(ManualClock::at(START)))
}

fn on_file(dir: &Path, keep: Option<u64>) -> (Arc<dyn StoreBackend>, Arc<ManualClock>) {
    let clock = ManualClock::at(START);
    let retention = Retention { max_age_ms: None, max_events_per_subject: keep };
    let options = FileStoreOptions { retention, ..FileStoreOptions::new(dir) };
    (Arc::new(FileStore::new(options, clock.clone(), Handle::current())), clock)
}

fn append(store: &Arc<dyn StoreBackend>, subject: &str, n: usize) -> Op<Event> {
    let event = NewEvent::parse(&format!(r#"{{"type":"t","n":{n}}}"#)).unwrap();
    store.append(name(subject), event, None, None)
}

/// Returns the numbers that arrived of a subject, in order.
fn numbers(stream: &Recorder, subject: &str) -> Vec<usize> {
    let messages = stream.on(&format!("store-sync:append:{subject}"));
    messages.iter().map(|message| message["data"]["event"]["n"].as_u64().unwrap() as usize).collect()
}

/// Returns the numbers that arrived of a subject, each where it arrived first.
fn firsts(stream: &Recorder, subject: &str) -> Vec<usize> {
    let mut seen = Vec::new();
    numbers(stream, subject).into_iter().for_each(|n| {
        if !seen.contains(&n) {
            seen.push(n);
        }
    });
    seen
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it happens in the end");
}

/// Appends to a subject of its own until an event is published in its append. For a store in memory and a test with one
/// thread, on which nothing else runs meanwhile.
async fn until_published_at_once(store: &Arc<dyn StoreBackend>, stream: &Recorder) {
    let mut n = 0;
    until(|| {
        let before = stream.arrived().len();
        drop(append(store, "probe", n));
        n += 1;
        stream.arrived().len() > before
    })
    .await;
}

#[tokio::test]
async fn an_event_is_published_in_the_call_that_appended_it_and_the_cursor_follows() {
    let (store, stream) = (in_memory(), Recorder::accepting());
    let coordinator = started(&store, &stream, options()).await;
    until_published_at_once(&store, &stream).await;
    for n in 0..1_000 {
        drop(append(&store, "s", n));
        assert_eq!(numbers(&stream, "s").len(), n + 1);
    }
    assert_eq!(coordinator.stats().lag, 0);
    let head = store.feed_head().await.unwrap();
    let position = async || store.consumer_load(name(CONSUMER)).await.unwrap().unwrap().position;
    let stored = async {
        while position().await != head {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stored).await.unwrap();
    assert_eq!(numbers(&stream, "s"), (0..1_000).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn a_message_that_is_not_taken_at_once_is_begun_in_the_call_and_nothing_overtakes_it() {
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let is_open = Arc::new(AtomicBool::new(true));
    let stream = Recorder::new(true, {
        let (gate, begun, is_open) = (gate.clone(), begun.clone(), is_open.clone());
        move |_, _| {
            begun.fetch_add(1, Ordering::Relaxed);
            let gate = gate.clone();
            if is_open.load(Ordering::Relaxed) {
                return Op::ok(());
            }
            Op::pending(async move {
                gate.acquire().await.unwrap().forget();
                Ok(())
            })
        }
    });
    let store = in_memory();
    let coordinator = started(&store, &stream, options()).await;
    until_published_at_once(&store, &stream).await;
    is_open.store(false, Ordering::Relaxed);
    begun.store(0, Ordering::Relaxed);
    drop(append(&store, "s", 0));
    assert_eq!(begun.load(Ordering::Relaxed), 1, "begun in the call");
    drop(append(&store, "s", 1));
    drop(append(&store, "t", 2));
    assert_eq!(begun.load(Ordering::Relaxed), 1, "one is under way");
    is_open.store(true, Ordering::Relaxed);
    until(|| begun.load(Ordering::Relaxed) == 2 && numbers(&stream, "t") == [2]).await;
    assert_eq!(numbers(&stream, "s"), [] as [usize; 0], "the next of a subject waits for it");
    gate.add_permits(1);
    until(|| numbers(&stream, "s") == [0, 1]).await;
    until_published_at_once(&store, &stream).await;
    assert_eq!(coordinator.stats().failed, 0);
}

#[tokio::test]
async fn what_was_not_offered_is_published_from_the_feed_before_what_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _clock) = on_file(dir.path(), None);
    let stream = Recorder::accepting();
    let coordinator = started(&store, &stream, options()).await;
    for round in 0..10 {
        // Those that wait for the writer at the same time are committed together.
        let calls: Vec<_> = (10 * round..10 * round + 10)
            .map(|n| {
                let before = append(&store, "s", 3 * n);
                // An import is offered to no consumer.
                let id = EventId { ms: START + 1_000 * n as u64 + 1_000, seq: 0 };
                let hole = NewEvent::parse(&format!(r#"{{"type":"t","n":{}}}"#, 3 * n + 1)).unwrap().persist(id, START);
                (before, store.import_event(name("s"), hole), append(&store, "s", 3 * n + 2))
            })
            .collect();
        for (before, hole, after) in calls {
            before.await.unwrap();
            assert!(hole.await.unwrap());
            after.await.unwrap();
        }
        until(|| coordinator.stats().lag == 0).await;
    }
    until(|| coordinator.stats().lag == 0).await;
    assert_eq!(numbers(&stream, "s"), (0..300).collect::<Vec<_>>());
    coordinator.stop().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_refuses_for_a_while_gets_everything_in_order_and_then_at_once_again() {
    for (keeps_order, at_once) in [(true, true), (true, false), (false, true), (false, false)] {
        let down = Arc::new(AtomicBool::new(false));
        let stream = Recorder::new(keeps_order, {
            let down = down.clone();
            move |_, _| {
                let refuses = down.load(Ordering::Relaxed);
                let result = if refuses { Err(Error::unavailable("down")) } else { Ok(()) };
                if at_once || !refuses { Op::Ready(result) } else { Op::pending(async move { result }) }
            }
        });
        let store = in_memory();
        let coordinator = started(&store, &stream, options()).await;
        until_published_at_once(&store, &stream).await;
        for n in 0..60 {
            down.store((20..40).contains(&n), Ordering::Relaxed);
            drop(append(&store, ["s", "t"][n % 2], n));
            if n % 10 == 9 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        until(|| firsts(&stream, "s").len() + firsts(&stream, "t").len() == 60).await;
        assert_eq!(firsts(&stream, "s"), (0..60).step_by(2).collect::<Vec<_>>());
        assert_eq!(firsts(&stream, "t"), (1..60).step_by(2).collect::<Vec<_>>());
        until_published_at_once(&store, &stream).await;
        let stats = coordinator.stats();
        assert!((stats.failed, stats.dropped) == (0, 0) && stats.retries > 0, "{stats:?}");
    }
}

#[tokio::test]
async fn a_change_of_status_is_published_after_the_stream_refused_it() {
    let refused = Arc::new(AtomicUsize::new(0));
    let stream = Recorder::new(true, {
        let refused = refused.clone();
        move |message, _| {
            let refuses = message.topic().starts_with("client:ui:") && refused.fetch_add(1, Ordering::Relaxed) < 3;
            if refuses { Op::err(Error::unavailable("down")) } else { Op::ok(()) }
        }
    });
    let store = in_memory();
    let mut options = options();
    options.channels.client_messages = true;
    let _coordinator = started(&store, &stream, options).await;
    for kind in ["flow.start", "step.started", "flow.completed"] {
        let event = NewEvent::parse(&format!(r#"{{"type":"{kind}","runId":"r","flowName":"f"}}"#)).unwrap();
        store.append(name("nq:flow:r"), event, None, None).await.unwrap();
    }
    let statuses = || {
        let published = stream.on("client:ui:flow:f");
        published.iter().map(|message| message["data"]["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until(|| statuses().last().is_some_and(|status| status == "completed")).await;
    assert_eq!(statuses()[0], "running", "{:?}", statuses());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn appends_of_many_threads_arrive_in_the_order_of_their_subjects_however_the_stream_answers() {
    const EVENTS: usize = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let (store, _clock) = on_file(dir.path(), None);
    let stream = Recorder::new(false, |_, call| match call {
        call if call % 97 == 0 => Op::err(Error::unavailable("now and then")),
        call if call % 7 == 0 => Op::pending(async {
            tokio::task::yield_now().await;
            Ok(())
        }),
        _ => Op::ok(()),
    });
    let coordinator = started(&store, &stream, options()).await;
    let appending = (0..4).map(|thread| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (thread..EVENTS).step_by(4) {
                append(&store, &format!("s{}", n % 5), n).await.unwrap();
                if n % 50 == thread {
                    // Time for the coordinator to catch up, so that the next one is published in its append.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
    });
    for appended in appending.collect::<Vec<_>>() {
        appended.await.unwrap();
    }
    until(|| coordinator.stats().lag == 0).await;
    let page = store.feed_read(FeedQuery { limit: EVENTS, ..FeedQuery::default() }).await.unwrap();
    let mut stored: HashMap<String, Vec<usize>> = HashMap::new();
    for record in page.records {
        let n = nvent_native::json::parse_object("event", &record.event).unwrap()["n"].as_u64().unwrap() as usize;
        stored.entry(record.subject.to_string()).or_default().push(n);
    }
    for (subject, expected) in stored {
        assert_eq!(firsts(&stream, &subject), expected, "{subject}");
    }
    coordinator.stop().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn more_than_can_wait_is_read_from_the_feed_when_the_stream_goes_on() {
    let (stream, gate) = Recorder::gated();
    let store = in_memory();
    let coordinator = started(&store, &stream, options()).await;
    for n in 0..10_000 {
        drop(append(&store, "s", n));
        if n % 1_000 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    gate.add_permits(Semaphore::MAX_PERMITS);
    until(|| coordinator.stats().lag == 0).await;
    assert_eq!(numbers(&stream, "s"), (0..10_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn retention_counts_nothing_as_missed_that_was_published_in_its_append() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = on_file(dir.path(), Some(5));
    let stream = Recorder::accepting();
    let coordinator = started(&store, &stream, options()).await;
    for n in 0..200 {
        append(&store, "s", n).await.unwrap();
        if n % 20 == 0 {
            clock.advance(3_600_000);
            store.kv_clear(name("none")).await.unwrap();
        }
    }
    let left = async || store.read(name("s"), EventQuery::default()).await.unwrap().len();
    let trimmed = async {
        while left().await != 5 {
            clock.advance(3_600_000);
            store.kv_clear(name("none")).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), trimmed).await.unwrap();
    coordinator.stop().await.unwrap();
    // What was counted as missed would be reported with the next read.
    coordinator.start().await.unwrap();
    append(&store, "s", 200).await.unwrap();
    until(|| coordinator.stats().lag == 0).await;
    assert_eq!(numbers(&stream, "s"), (0..=200).collect::<Vec<_>>());
    assert_eq!(coordinator.stats().dropped, 0);
    coordinator.stop().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn after_a_restart_nothing_is_published_again_and_what_was_appended_meanwhile_is() {
    let (store, stream) = (in_memory(), Recorder::accepting());
    let coordinator = started(&store, &stream, options()).await;
    until_published_at_once(&store, &stream).await;
    for n in 0..300 {
        drop(append(&store, "s", n));
    }
    coordinator.stop().await.unwrap();
    for n in 300..310 {
        drop(append(&store, "s", n));
    }
    assert_eq!(numbers(&stream, "s").len(), 300, "a coordinator that has stopped publishes nothing");
    coordinator.start().await.unwrap();
    until(|| coordinator.stats().lag == 0).await;
    until_published_at_once(&store, &stream).await;
    drop(append(&store, "s", 310));
    assert_eq!(numbers(&stream, "s"), (0..=310).collect::<Vec<_>>());
    coordinator.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_publishes_what_was_stored_before_it() {
    let (stream, gate) = Recorder::gated();
    let store = in_memory();
    let coordinator = started(&store, &stream, options()).await;
    drop(append(&store, "s", 0));
    stream.calls(1).await;
    for n in 1..5 {
        drop(append(&store, "s", n));
    }
    let stopping = coordinator.stop();
    gate.add_permits(Semaphore::MAX_PERMITS);
    stopping.await.unwrap();
    assert_eq!(numbers(&stream, "s"), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_second_coordinator_works_under_a_name_of_its_own_that_is_deleted_when_it_stops() {
    let (store, streams) = (in_memory(), [Recorder::accepting(), Recorder::accepting()]);
    let first = started(&store, &streams[0], options()).await;
    first.start().await.unwrap();
    let second = started(&store, &streams[1], options()).await;
    let names = async || {
        let listed = store.consumer_list().await.unwrap();
        listed.iter().map(|consumer| consumer.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, [CONSUMER.to_owned(), format!("{CONSUMER}:2")]);
    append(&store, "s", 0).await.unwrap();
    until(|| streams.iter().all(|stream| numbers(stream, "s") == [0])).await;
    second.stop().await.unwrap();
    assert_eq!(names().await, [CONSUMER]);
    first.stop().await.unwrap();
    assert_eq!(names().await, [CONSUMER], "its cursor stays");
}

/// Returns a store of which retention has removed events 10 to 104 of a subject before the coordinator published them.
async fn overtaken(dir: &Path) -> Arc<dyn StoreBackend> {
    let (store, _) = on_file(dir, None);
    let coordinator = started(&store, &Recorder::accepting(), options()).await;
    for n in 0..10 {
        append(&store, "s", n).await.unwrap();
    }
    coordinator.stop().await.unwrap();
    for n in 10..110 {
        append(&store, "s", n).await.unwrap();
    }
    store.close().await.unwrap();
    let (store, clock) = on_file(dir, Some(5));
    let trimmed = async {
        while store.read(name("s"), EventQuery::default()).await.unwrap().len() != 5 {
            clock.advance(3_600_000);
            store.kv_clear(name("none")).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), trimmed).await.unwrap();
    store
}

#[tokio::test]
async fn what_retention_removed_unpublished_is_reported_to_the_subscribers_of_its_channels() {
    let dir = tempfile::tempdir().unwrap();
    let store = overtaken(dir.path()).await;
    let stream: Arc<dyn StreamBackend> = Arc::new(MemoryStream::new(None, system_clock()));
    let subscribe = async |topic: &str| {
        let spec = SubscribeSpec { buffer: 100, ..SubscribeSpec::default() };
        stream.subscribe(topic, spec, None).await.unwrap().mailbox
    };
    let (all, some, one) = (
        subscribe("store-sync:*").await,
        subscribe("store-sync:append:s*").await,
        subscribe("store-sync:append:s").await,
    );
    let other = subscribe("client:*").await;
    let coordinator = started(&store, &Arc::new(stream.clone()), options()).await;
    for (mailbox, missed) in [(all, Some(95)), (some, None), (one, None)] {
        let next = async || tokio::time::timeout(Duration::from_secs(60), mailbox.recv()).await.unwrap().unwrap();
        let gap = Gap { reason: GapReason::Trimmed, missed };
        assert!(matches!(next().await, Delivery::Gap(found) if found == gap), "before what is left");
        for n in 105..110 {
            let Delivery::Item(incoming) = next().await else { panic!("one gap only") };
            assert!(incoming.message.json().contains(&format!(r#""n":{n}"#)));
        }
    }
    assert!(other.is_empty());
    let stats = coordinator.stats();
    assert_eq!((stats.dropped, stats.gaps), (95, 1));
    coordinator.stop().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_knows_no_gaps_gets_one_as_a_message_for_each_channel_when_it_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = overtaken(dir.path()).await;
    let stream =
        Recorder::new(false, |_, call| if call < 3 { Op::err(Error::unavailable("down")) } else { Op::ok(()) });
    let coordinator = started(&store, &stream, options()).await;
    until(|| coordinator.stats().lag == 0).await;
    let gaps = stream.on("store-sync:append:*");
    assert_eq!(gaps[0]["type"], "stream.gap");
    assert_eq!((&gaps[0]["data"]["missed"], &gaps[0]["data"]["reason"]), (&json!(95), &json!("trimmed")));
    assert_eq!(numbers(&stream, "s"), (105..110).collect::<Vec<_>>());
    assert_eq!(stream.arrived()[0].0, "store-sync:append:*", "before what is left");
    coordinator.stop().await.unwrap();
    store.close().await.unwrap();
}

/// Where the child process has its store.
const DIR: &str = "NVENT_TEST_FEED_DIR";
const SUBJECTS: usize = 3;
const ROUNDS: usize = 25;

fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// A stream that prints what it takes.
struct Printing;

impl Publisher for Printing {
    fn publish(&self, message: Message) -> Op<()> {
        let message: serde_json::Value = serde_json::from_str(message.json()).unwrap();
        let (subject, n) = (&message["data"]["subject"], &message["data"]["event"]["n"]);
        say(format_args!("published {} {n}", subject.as_str().unwrap()));
        Op::ok(())
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

/// Runs as the child process, until it is killed: not a test of its own.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    // Where tests run one at a time, the name of this one stands before the first line.
    say(format_args!(""));
    let store: Arc<dyn StoreBackend> =
        Arc::new(FileStore::new(FileStoreOptions::new(Path::new(&dir)), system_clock(), Handle::current()));
    let _coordinator = started(&store, &Arc::new(Printing), options()).await;
    let stored = async |s: usize| store.read(name(&format!("s{s}")), EventQuery::default()).await.unwrap().len();
    let mut next = [stored(0).await, stored(1).await, stored(2).await];
    for i in 0.. {
        let (s, n) = (i % SUBJECTS, next[i % SUBJECTS]);
        next[s] += 1;
        append(&store, &format!("s{s}"), n).await.unwrap();
        say(format_args!("appended s{s} {n}"));
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_published_in_order_though_the_process_is_killed_while_appends_publish() {
    let dir = tempfile::tempdir().unwrap();
    let mut appended: HashMap<String, u64> = HashMap::new();
    // What arrived of each subject, in order, and how much of it before its append was acknowledged.
    let (mut published, mut at_once): (HashMap<String, Vec<u64>>, usize) = Default::default();
    for round in 0..=ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut last = String::new();
        let mut note = |line: String| {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["appended", subject, n] => {
                    at_once += usize::from(last == format!("published {subject} {n}"));
                    _ = appended.insert(subject.into(), n.parse().unwrap());
                }
                ["published", subject, n] => published.entry(subject.into()).or_default().push(n.parse().unwrap()),
                _ => {}
            }
            last = line;
        };
        // The last one goes on after all the others.
        lines.by_ref().take(if round < ROUNDS { 50 + round * 61 } else { 2_000 }).for_each(&mut note);
        child.kill().unwrap();
        if round < ROUNDS {
            lines.for_each(&mut note);
        }
        child.wait().unwrap();
    }
    for (subject, last) in appended {
        let mut next = 0;
        for n in &published[&subject] {
            assert!(*n <= next, "{subject}: {next} was overtaken by {n}");
            next = next.max(n + 1);
        }
        assert!(next + 1 >= last, "{subject}: {last} was acknowledged, {next} was not published");
    }
    assert!(at_once > 100, "{at_once} were published in their appends");
}
