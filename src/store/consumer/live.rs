//! Events that a consumer takes as they are appended, so that it does not read them from the feed.
//!
//! While the worker has read everything, this is open: it takes the event whose number is the very next one. If nothing is
//! under way the handler may handle it in the call that appended it; otherwise it waits for the worker. Any other number,
//! or news of an event that was not offered, closes it, and the worker goes on from the feed. So an event is never taken
//! behind one that was not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, watch};

use super::{BatchOutcome, ConsumerHandler, ConsumerStats, MAX_UNSAVED, Offer};
use crate::op::BoxFuture;
use crate::store::feed::{Appended, FeedFollower, FeedPage, FeedRecord, Position};
use crate::sync::lock;
use crate::topic::Glob;
use crate::wake::{self, Wake};

/// Events that wait for the worker, and their bytes. Beyond, it reads the feed.
const MAX_WAITING: usize = 1_024;
const MAX_WAITING_BYTES: usize = 4 << 20;

/// What a consumer takes as it is appended.
pub(super) struct Live {
    handler: Arc<dyn ConsumerHandler>,
    stats: Arc<Mutex<ConsumerStats>>,
    subjects: Vec<Glob>,
    types: Vec<Glob>,
    /// Becomes true when the lease is lost: nothing is taken any more.
    lost: watch::Receiver<bool>,
    state: Mutex<State>,
    /// Notified when the worker has something to do.
    changed: Notify,
}

#[derive(Default)]
struct State {
    open: bool,
    /// Number of the last event that was taken or read.
    number: u64,
    /// Number of the newest event known.
    newest: u64,
    /// Counts what was not taken.
    version: u64,
    /// The worker has something under way, so nothing is handled in the call that appended it.
    busy: bool,
    /// Everything up to here was handled in calls.
    reached: Option<Position>,
    /// How many events were passed in calls since the worker was last given `reached`.
    passed: usize,
    waiting: FeedPage,
    waiting_bytes: usize,
    /// The outcome of the first that waits, which was begun in the call.
    begun: Option<BoxFuture<BatchOutcome>>,
}

/// What the worker goes on with.
#[derive(Default)]
pub(super) struct Taken {
    /// Everything up to here was handled.
    pub(super) reached: Option<Position>,
    /// How many events that were.
    pub(super) passed: usize,
    /// Events after those, in the order of the feed.
    pub(super) page: FeedPage,
    /// The outcome of the first of them, if it was begun.
    pub(super) begun: Option<BoxFuture<BatchOutcome>>,
}

impl Live {
    pub(super) fn new(
        handler: Arc<dyn ConsumerHandler>,
        stats: Arc<Mutex<ConsumerStats>>,
        (subjects, types): (Vec<Glob>, Vec<Glob>),
        lost: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Notify::new());
        Arc::new(Self { handler, stats, subjects, types, lost, state, changed })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Resolves when there is something for the worker.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns what [`Live::open`] compares with. To be called before a read of the feed.
    pub(super) fn version(&self) -> u64 {
        self.lock().version
    }

    /// Takes what comes after this number. Returns false where there has been more since the version: the feed is to be
    /// read again.
    pub(super) fn open(&self, number: u64, version: u64) -> bool {
        let mut state = self.lock();
        if state.version != version && state.newest > number {
            return false;
        }
        (state.number, state.newest, state.open, state.busy) = (number, number, true, true);
        true
    }

    /// Takes nothing any more.
    pub(super) fn close(&self) {
        self.lock().open = false;
    }

    /// Returns whether it takes what comes next.
    pub(super) fn is_open(&self) -> bool {
        self.lock().open
    }

    /// Records whether the worker has anything under way.
    pub(super) fn set_busy(&self, busy: bool) {
        let mut state = self.lock();
        state.busy = busy || state.waiting.end.is_some();
    }

    /// Returns how many events were passed in calls of which the worker does not know.
    pub(super) fn passed(&self) -> usize {
        self.lock().passed
    }

    /// Takes the events that wait, with everything that was handled before them. With `all`, also if none waits.
    pub(super) fn take(&self, all: bool) -> Option<Taken> {
        let mut state = self.lock();
        if state.waiting.end.is_none() && !(all && state.reached.is_some()) {
            return None;
        }
        state.busy |= state.waiting.end.is_some();
        state.waiting_bytes = 0;
        Some(Taken {
            reached: state.reached.take(),
            passed: std::mem::take(&mut state.passed),
            page: std::mem::take(&mut state.waiting),
            begun: state.begun.take(),
        })
    }

    fn wake_worker(self: &Arc<Self>) {
        if !wake::defer(self) {
            self.wake();
        }
    }

    fn is_wanted(&self, appended: &Appended<'_>) -> bool {
        let any = |globs: &[Glob], text: &str| globs.is_empty() || globs.iter().any(|glob| glob.matches(text));
        any(&self.subjects, appended.subject) && any(&self.types, appended.event.kind())
    }

    /// Offers an event to the handler.
    fn handle(&self, appended: &Appended<'_>) -> Offer {
        // A panic must not end the thread that appended; the worker's call of the handler reports it.
        catch_unwind(AssertUnwindSafe(|| self.handler.offer(appended))).unwrap_or(Offer::Declined)
    }
}

impl Wake for Live {
    fn wake(&self) {
        self.changed.notify_one();
    }
}

impl FeedFollower for Live {
    fn offer(self: Arc<Self>, appended: &Appended<'_>) -> bool {
        let mut state = self.lock();
        let has_room = state.waiting.records.len() < MAX_WAITING && state.waiting_bytes < MAX_WAITING_BYTES;
        let is_next = state.open && appended.number == state.number + 1;
        if !is_next || !has_room || *self.lost.borrow() {
            state.version += 1;
            state.newest = appended.number.max(state.newest);
            let closed = std::mem::take(&mut state.open);
            drop(state);
            if closed {
                self.wake_worker();
            }
            return false;
        }
        // While it is open, no newer one is known.
        (state.number, state.newest) = (appended.number, appended.number);
        let is_wanted = self.is_wanted(appended);
        let is_idle = !state.busy && state.waiting.end.is_none();
        let offered = match (is_idle, is_wanted) {
            (true, true) => self.handle(appended),
            (true, false) => Offer::Handled,
            (false, _) => Offer::Declined,
        };
        let begun = match offered {
            Offer::Handled => {
                let mut stats = lock(&self.stats);
                stats.delivered += u64::from(is_wanted);
                stats.position = Some(appended.position.clone());
                drop(stats);
                state.reached = Some(appended.position.clone());
                state.passed += 1;
                // The first, so that the cursor is stored some time later, and when it is to be stored at once.
                if state.passed == 1 || state.passed == MAX_UNSAVED {
                    drop(state);
                    self.wake_worker();
                }
                return true;
            }
            Offer::Started(begun) => Some(begun),
            Offer::Declined => None,
        };
        let is_first = state.waiting.end.is_none();
        state.begun = state.begun.take().or(begun);
        state.waiting.end = Some(appended.position.clone());
        if is_wanted {
            state.waiting_bytes += appended.event.json().len();
            state.waiting.records.push(FeedRecord {
                position: appended.position.clone(),
                subject: appended.subject.clone(),
                event: appended.event.json().clone(),
                origin: appended.origin.clone(),
            });
        }
        drop(state);
        if is_first {
            self.wake_worker();
        }
        true
    }

    fn notify(self: Arc<Self>, newest: u64) {
        let mut state = self.lock();
        if newest <= state.number && state.open {
            return;
        }
        state.version += 1;
        state.newest = newest.max(state.newest);
        if std::mem::take(&mut state.open) {
            drop(state);
            self.wake_worker();
        }
    }

    fn interrupt(self: Arc<Self>) {
        let mut state = self.lock();
        state.version += 1;
        state.newest = u64::MAX;
        if std::mem::take(&mut state.open) {
            drop(state);
            self.wake_worker();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::event::Event;
    use crate::store::consumer::Batch;
    use crate::store::feed::Origin;

    /// Handles each event in its append.
    struct Handling;

    impl ConsumerHandler for Handling {
        fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
            let handled = batch.events.len();
            Box::pin(async move { Ok(BatchOutcome { handled, failure: None }) })
        }

        fn offer(&self, _: &Appended<'_>) -> Offer {
            Offer::Handled
        }
    }

    fn live() -> (Arc<Live>, watch::Sender<bool>) {
        let (lost, receiver) = watch::channel(false);
        (Live::new(Arc::new(Handling), Arc::default(), Default::default(), receiver), lost)
    }

    /// Returns a consumer that has read everything up to a number, and has nothing under way.
    fn caught_up(number: u64) -> (Arc<Live>, watch::Sender<bool>) {
        let (live, lost) = live();
        assert!(live.open(number, live.version()));
        live.set_busy(false);
        (live, lost)
    }

    fn offer_of(live: &Arc<Live>, number: u64, subject: &str, kind: &str) -> bool {
        let event = Event::parse(&format!(r#"{{"type":"{kind}","id":"{number}-0","ts":1}}"#)).unwrap();
        let (position, subject) = (number.into(), &subject.into());
        live.clone().offer(&Appended { number, position, subject, event: &event, origin: Origin::Unknown })
    }

    fn offer(live: &Arc<Live>, number: u64) -> bool {
        offer_of(live, number, "s", "t")
    }

    fn reached(live: &Live) -> Option<Position> {
        live.take(true).and_then(|taken| taken.reached)
    }

    #[test]
    fn only_the_very_next_event_is_taken_and_nothing_after_a_hole() {
        let (live, _lost) = caught_up(4);
        assert!(offer(&live, 5) && offer(&live, 6));
        assert!(!offer(&live, 8), "7 is missing");
        assert!(!offer(&live, 7) && !offer(&live, 9), "the feed is read");
        assert!(!live.is_open());
        assert_eq!(reached(&live), Some(6.into()));
    }

    #[test]
    fn it_is_not_opened_where_more_was_appended_than_was_read() {
        let (live, _lost) = live();
        let version = live.version();
        assert!(!offer(&live, 3), "it is not open");
        assert!(!live.open(2, version), "3 was appended during the read");
        assert!(live.open(3, version), "3 was read");
        assert!(offer(&live, 4));
        live.close();
        let version = live.version();
        live.clone().notify(6);
        assert!(!live.open(5, version) && live.open(6, version));
        let version = live.version();
        live.clone().interrupt();
        assert!(!live.is_open() && !live.open(6, version), "numbers may have been given again during the read");
        assert!(live.open(2, live.version()), "a server that lost writes counts from an earlier number");
    }

    #[test]
    fn news_of_an_event_that_was_not_offered_close_it() {
        let (live, _lost) = caught_up(0);
        assert!(offer(&live, 1));
        live.clone().notify(1);
        assert!(live.is_open(), "that one was taken");
        live.clone().notify(2);
        assert!(!offer(&live, 3) && !offer(&live, 2));
    }

    #[test]
    fn while_the_worker_has_something_under_way_events_wait_for_it_up_to_a_bound() {
        let (live, _lost) = caught_up(0);
        live.set_busy(true);
        let bound = MAX_WAITING as u64;
        assert!((1..=bound).all(|number| offer(&live, number)));
        assert!(!offer(&live, bound + 1), "no more can wait");
        let taken = live.take(false).unwrap();
        assert_eq!((taken.reached, taken.page.records.len(), taken.page.end), (None, MAX_WAITING, Some(bound.into())));
        assert!(live.take(true).is_none() && !live.is_open());
    }

    /// Declines every event.
    struct Declining;

    impl ConsumerHandler for Declining {
        fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
            Handling.handle(batch)
        }
    }

    #[test]
    fn what_the_worker_has_taken_is_not_overtaken_by_an_append() {
        let (_lost, receiver) = watch::channel(false);
        let live = Live::new(Arc::new(Declining), Arc::default(), Default::default(), receiver);
        assert!(live.open(0, live.version()));
        live.set_busy(false);
        assert!(live.take(true).is_none(), "there is nothing");
        assert!(offer(&live, 1));
        assert_eq!(live.take(false).unwrap().page.records.len(), 1);
        assert!(live.lock().busy, "the worker has it under way");
        live.set_busy(false);
        assert!(!live.lock().busy && offer(&live, 2));
        live.set_busy(false);
        assert!(live.lock().busy, "one waits");
    }

    #[test]
    fn events_that_wait_are_bounded_in_bytes_until_the_worker_has_taken_them() {
        let (live, _lost) = caught_up(0);
        live.set_busy(true);
        let large = "t".repeat(1 << 20);
        assert!((1..=4).all(|number| offer_of(&live, number, "s", &large)));
        assert!(!offer(&live, 5), "no more bytes can wait");
        assert_eq!(live.take(false).unwrap().page.records.len(), 4);
        assert!(live.open(5, live.version()) && offer(&live, 6));
    }

    #[test]
    fn an_event_is_delivered_where_any_of_the_globs_matches_its_subject_and_any_its_type() {
        let (_lost, receiver) = watch::channel(false);
        let globs = |texts: [&str; 2]| texts.map(Glob::new).to_vec();
        let filter = (globs(["a*", "b*"]), globs(["t1", "t2"]));
        let stats = Arc::new(Mutex::new(ConsumerStats::default()));
        let live = Live::new(Arc::new(Handling), stats.clone(), filter, receiver);
        assert!(live.open(0, live.version()));
        live.set_busy(false);
        let delivered = |number: u64, subject: &str, kind: &str| {
            let before = lock(&stats).delivered;
            assert!(offer_of(&live, number, subject, kind), "what is excluded counts as handled");
            lock(&stats).delivered - before
        };
        assert_eq!((delivered(1, "a1", "t1"), delivered(2, "b1", "t2")), (1, 1));
        assert_eq!((delivered(3, "c1", "t1"), delivered(4, "a1", "t3")), (0, 0));
        assert_eq!(reached(&live), Some(4.into()));
    }

    #[test]
    fn the_worker_is_notified_where_it_has_to_read_the_feed() {
        let is_notified = |live: &Live| live.changed().now_or_never().is_some();
        let closes: [fn(&Arc<Live>); 3] =
            [|live| _ = offer(live, 8), |live| live.clone().notify(2), |live| live.clone().interrupt()];
        for close in closes {
            let (live, _lost) = caught_up(0);
            assert!(!is_notified(&live));
            close(&live);
            assert!(is_notified(&live));
            close(&live);
            assert!(!is_notified(&live), "it is closed already");
        }
    }

    #[test]
    fn the_worker_is_notified_of_the_first_event_that_is_passed_and_where_the_cursor_is_to_be_stored() {
        let (live, _lost) = caught_up(0);
        for number in 1..=MAX_UNSAVED as u64 + 1 {
            assert!(offer(&live, number));
            let is_notified = live.changed().now_or_never().is_some();
            assert_eq!(is_notified, number == 1 || number == MAX_UNSAVED as u64, "{number}");
        }
    }

    #[test]
    fn nothing_is_taken_once_it_is_closed() {
        let (live, _lost) = caught_up(0);
        assert_eq!(live.passed(), 0);
        assert!(offer(&live, 1) && offer(&live, 2));
        assert_eq!(live.passed(), 2);
        live.close();
        assert!(!live.is_open() && !offer(&live, 3));
        assert_eq!(reached(&live), Some(2.into()), "what was handled before");
        assert_eq!(live.passed(), 0, "the worker knows of them");
    }

    #[test]
    fn nothing_is_taken_once_the_lease_is_lost() {
        let (live, lost) = caught_up(0);
        assert!(offer(&live, 1));
        lost.send_replace(true);
        assert!(!offer(&live, 2));
    }
}
