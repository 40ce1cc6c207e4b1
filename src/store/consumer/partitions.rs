//! Events between the feed and the handlers: in partitions, each of which is handled in order, and in a window that knows up to
//! where everything was handled.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::ConsumerEvent;
use crate::store::feed::{FeedPage, Position};

/// An event that waits for its handler.
pub(super) struct Pending {
    pub(super) event: ConsumerEvent,
    /// Its place in the window. None: it is delivered again after it was parked.
    pub(super) ticket: Option<u64>,
    /// Deliveries before those of `event.attempt`.
    pub(super) attempts_before: u32,
}

#[derive(Default)]
struct Partition {
    pending: VecDeque<Pending>,
    busy: bool,
}

struct Place {
    position: Position,
    done: bool,
}

/// Partitions and window.
pub(super) struct Partitions {
    /// Each subject has a partition. Otherwise all events are in one.
    by_subject: bool,
    partitions: HashMap<Arc<str>, Partition>,
    /// Partitions that are not busy and have events, in the order in which they got them.
    ready: VecDeque<Arc<str>>,
    window: VecDeque<Place>,
    /// Ticket of the first place in the window.
    first: u64,
    pending: usize,
}

impl Partitions {
    pub(super) fn new(by_subject: bool) -> Self {
        let (partitions, ready, window) = (HashMap::new(), VecDeque::new(), VecDeque::new());
        Self { by_subject, partitions, ready, window, first: 0, pending: 0 }
    }

    /// Returns the partition of a subject.
    pub(super) fn key(&self, subject: &Arc<str>) -> Arc<str> {
        if self.by_subject { subject.clone() } else { Arc::default() }
    }

    /// Adds the events of a page, and its end.
    pub(super) fn push_page(&mut self, page: FeedPage) {
        for record in page.records {
            let ticket = Some(self.first + self.window.len() as u64);
            self.window.push_back(Place { position: record.position.clone(), done: false });
            let event = ConsumerEvent {
                subject: record.subject,
                position: record.position,
                event: record.event,
                origin: record.origin,
                attempt: 1,
            };
            self.push(Pending { event, ticket, attempts_before: 0 });
        }
        if let Some(end) = page.end
            && self.window.back().is_none_or(|last| last.position != end)
        {
            self.window.push_back(Place { position: end, done: true });
        }
    }

    /// Adds an event to the end of its partition.
    pub(super) fn push(&mut self, pending: Pending) {
        let key = self.key(&pending.event.subject);
        let partition = self.partitions.entry(key.clone()).or_default();
        if !partition.busy && partition.pending.is_empty() {
            self.ready.push_back(key);
        }
        partition.pending.push_back(pending);
        self.pending += 1;
    }

    /// Takes events of ready partitions, of at most `max_partitions` partitions and `max_events` events. These partitions are busy until
    /// [`Partitions::release`].
    pub(super) fn take(&mut self, max_partitions: usize, max_events: usize) -> Vec<Pending> {
        let mut taken = Vec::new();
        for _ in 0..max_partitions {
            if taken.len() >= max_events {
                break;
            }
            let Some(key) = self.ready.pop_front() else { break };
            let Some(partition) = self.partitions.get_mut(&key) else { continue };
            partition.busy = true;
            let count = partition.pending.len().min(max_events - taken.len());
            taken.extend(partition.pending.drain(..count));
        }
        self.pending -= taken.len();
        taken
    }

    /// Puts events of a busy partition back to its beginning.
    pub(super) fn put_back(&mut self, events: Vec<Pending>) {
        for pending in events.into_iter().rev() {
            let key = self.key(&pending.event.subject);
            self.partitions.entry(key).or_default().pending.push_front(pending);
            self.pending += 1;
        }
    }

    /// Makes a partition ready again.
    pub(super) fn release(&mut self, key: &Arc<str>) {
        let Some(partition) = self.partitions.get_mut(key) else { return };
        partition.busy = false;
        if partition.pending.is_empty() {
            self.partitions.remove(key);
        } else {
            self.ready.push_back(key.clone());
        }
    }

    /// Records that an event was handled or parked.
    pub(super) fn done(&mut self, ticket: u64) {
        let at = usize::try_from(ticket - self.first).unwrap_or(usize::MAX);
        if let Some(place) = self.window.get_mut(at) {
            place.done = true;
        }
    }

    /// Removes the places up to which everything is done. Returns the position of the last one.
    pub(super) fn advance(&mut self) -> Option<Position> {
        let mut reached = None;
        while self.window.front().is_some_and(|place| place.done) {
            reached = self.window.pop_front().map(|place| place.position);
            self.first += 1;
        }
        reached
    }

    /// Returns whether no event waits or is being handled.
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Returns the number of partitions that can be taken.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Returns the number of events that wait.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// Returns the number of places in the window.
    pub(super) fn window(&self) -> usize {
        self.window.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::feed::{FeedRecord, Origin};

    fn page(from: u64, subjects: &[&str]) -> FeedPage {
        let record = |(n, subject): (usize, &&str)| FeedRecord {
            position: (from + n as u64).into(),
            subject: (*subject).into(),
            event: "{}".into(),
            origin: Origin::Unknown,
        };
        let end = Some((from + subjects.len() as u64).into());
        FeedPage { records: subjects.iter().enumerate().map(record).collect(), end, missed: 0 }
    }

    fn positions(taken: &[Pending]) -> Vec<&str> {
        taken.iter().map(|pending| pending.event.position.as_str()).collect()
    }

    #[test]
    fn a_partition_is_taken_once_at_a_time_and_in_order() {
        let mut partitions = Partitions::new(true);
        partitions.push_page(page(1, &["a", "b", "a", "c"]));
        let first = partitions.take(1, 10);
        assert_eq!(positions(&first), ["1", "3"]);
        assert_eq!((partitions.ready(), partitions.pending()), (2, 2));
        let mut others = partitions.take(5, 10);
        assert_eq!(positions(&others), ["2", "4"]);
        partitions.push_page(page(6, &["a", "d"]));
        let fresh = partitions.take(5, 10);
        assert_eq!(positions(&fresh), ["7"], "a is busy");
        partitions.put_back(vec![others.remove(1)]);
        partitions.release(&"c".into());
        partitions.release(&"a".into());
        assert_eq!(positions(&partitions.take(5, 10)), ["4", "6"]);
    }

    #[test]
    fn the_window_advances_over_what_is_done_without_a_hole() {
        let mut partitions = Partitions::new(true);
        partitions.push_page(page(1, &["a", "b", "c"]));
        let tickets: Vec<u64> = partitions.take(3, 10).iter().filter_map(|pending| pending.ticket).collect();
        partitions.done(tickets[1]);
        assert_eq!(partitions.advance(), None);
        partitions.done(tickets[0]);
        assert_eq!(partitions.advance(), Some(2.into()));
        partitions.done(tickets[2]);
        assert_eq!(partitions.advance(), Some(4.into()), "the end of the page is behind its last event");
        partitions.push_page(FeedPage { records: Vec::new(), end: Some(9.into()), missed: 0 });
        assert_eq!(partitions.advance(), Some(9.into()));
        assert_eq!(partitions.window(), 0);
    }

    #[test]
    fn a_batch_ends_at_its_bound_and_the_partitions_behind_it_stay_ready() {
        let mut partitions = Partitions::new(true);
        partitions.push_page(page(1, &["a", "b", "b", "c", "c", "b"]));
        assert_eq!(partitions.window(), 7, "each event, and the end of the page behind them");
        assert_eq!(positions(&partitions.take(3, 3)), ["1", "2", "3"]);
        assert_eq!((partitions.ready(), partitions.pending(), partitions.is_empty()), (1, 3, false));
        assert_eq!(positions(&partitions.take(1, 2)), ["4", "5"]);
        partitions.release(&"b".into());
        assert_eq!(positions(&partitions.take(3, 3)), ["6"]);
        for key in ["a", "b", "c"] {
            partitions.release(&key.into());
        }
        assert!(partitions.is_empty() && partitions.partitions.is_empty(), "nothing is kept of a subject");
        partitions.push_page(FeedPage { end: Some(20.into()), ..page(20, &["a"]) });
        assert_eq!(partitions.window(), 8, "the end of the page is its event");
    }

    #[test]
    fn without_partitions_by_subject_all_events_are_in_order() {
        let mut partitions = Partitions::new(false);
        partitions.push_page(page(1, &["a", "b", "a"]));
        assert_eq!(positions(&partitions.take(9, 2)), ["1", "2"]);
        assert!(partitions.take(9, 9).is_empty());
        partitions.release(&partitions.key(&"b".into()));
        assert_eq!(positions(&partitions.take(9, 9)), ["3"]);
    }
}
