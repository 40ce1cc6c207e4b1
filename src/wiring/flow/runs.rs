//! The mailbox of each active run and a cache of idle ones.
//!
//! An active run has a slot and one task that drives it, so its events are handled in order and runs do not wait for each
//! other. When nothing is left to do its state moves to the cache of idle runs; an evicted state is folded from the log
//! again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::error::Error;
use crate::event::NewEvent;
use crate::op::{Completer, Completion, completion};
use crate::sync::lock;

/// Limit of ingress events that a task takes at a time.
const MAX_BATCH: usize = 64;

/// Work for a run's task.
#[derive(Default)]
pub(super) struct Work {
    /// Events to persist, in order, each with its number for [`Runs::complete_ingress`].
    pub(super) ingress: Vec<(u64, NewEvent)>,
    /// The id of the last event announced as persisted.
    pub(super) last_persisted: Option<Box<str>>,
    /// Whether to read the log although no new event was announced.
    pub(super) refresh: bool,
    /// Whether to compare the log with the state of the run's jobs, and the name of the flow.
    pub(super) reconcile: Option<Arc<str>>,
    /// Jobs that failed permanently.
    pub(super) failed_jobs: Vec<FailedJob>,
}

/// A job that failed permanently.
pub(super) struct FailedJob {
    pub(super) id: String,
    pub(super) step: String,
    pub(super) reason: Option<String>,
    /// The flow of a run that may have no log: its process ended before the first event was stored.
    pub(super) unlogged: Option<Arc<str>>,
}

/// A message to a run.
pub(super) enum Signal {
    /// An event to persist.
    Ingress(NewEvent),
    /// An event with this id was persisted.
    Persisted(Box<str>),
    /// The log may have changed.
    Refresh,
    /// The log of a run of this flow may differ from the state of its jobs.
    Reconcile(Arc<str>),
    /// A job failed permanently.
    JobFailed(FailedJob),
}

/// The result of [`Runs::signal`].
pub(super) enum Admission {
    /// The run has a task, which will handle the signal.
    Queued,
    /// The signal is queued and the caller must spawn the run's task.
    Spawn,
    /// The limit of ingress events is reached; the event was not queued.
    Rejected,
}

#[derive(Default)]
struct Slot {
    ingress: VecDeque<(u64, NewEvent)>,
    last_persisted: Option<Box<str>>,
    refresh: bool,
    reconcile: Option<Arc<str>>,
    failed_jobs: Vec<FailedJob>,
    wake: Arc<Notify>,
}

impl Slot {
    fn has_work(&self) -> bool {
        !self.ingress.is_empty()
            || self.last_persisted.is_some()
            || self.refresh
            || self.reconcile.is_some()
            || !self.failed_jobs.is_empty()
    }
}

/// The ingress events that are not persisted yet, numbered in the order of receipt.
#[derive(Default)]
struct Ingress {
    /// The number of the first entry of `completed`: all events before it are completed.
    first: u64,
    /// Whether each event from `first` on is completed.
    completed: VecDeque<bool>,
    pending: usize,
    /// Completers of flushes, by the number before which every event must be completed.
    flushes: VecDeque<(u64, Completer<()>)>,
}

impl Ingress {
    fn receive(&mut self) -> u64 {
        self.pending += 1;
        self.completed.push_back(false);
        self.first + self.completed.len() as u64 - 1
    }

    /// Returns the flushes that this event was the last one of.
    fn complete(&mut self, number: u64) -> Vec<Completer<()>> {
        self.pending -= 1;
        if let Some(completed) = self.completed.get_mut((number - self.first) as usize) {
            *completed = true;
        }
        while self.completed.front() == Some(&true) {
            self.completed.pop_front();
            self.first += 1;
        }
        let ready = self.flushes.partition_point(|(end, _)| *end <= self.first);
        self.flushes.drain(..ready).map(|(_, completer)| completer).collect()
    }

    fn flush(&mut self) -> Option<Completion<()>> {
        if self.pending == 0 {
            return None;
        }
        let (completer, completion) = completion(|| Error::closed("flow wiring"));
        self.flushes.push_back((self.first + self.completed.len() as u64, completer));
        Some(completion)
    }
}

struct State<R> {
    slots: HashMap<Arc<str>, Slot>,
    ingress: Ingress,
    idle: HashMap<Arc<str>, (u64, R)>,
    /// Idle runs in the order in which they became idle.
    order: BTreeMap<u64, Arc<str>>,
    tick: u64,
}

/// The runs known in this process, by subject.
pub(super) struct Runs<R> {
    state: Mutex<State<R>>,
    max_ingress: usize,
    max_idle: usize,
    all_idle: Notify,
}

impl<R> Runs<R> {
    pub(super) fn new(max_ingress: usize, max_idle: usize) -> Self {
        let state = State {
            slots: HashMap::new(),
            ingress: Ingress::default(),
            idle: HashMap::new(),
            order: BTreeMap::new(),
            tick: 0,
        };
        Self { state: Mutex::new(state), max_ingress, max_idle, all_idle: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        lock(&self.state)
    }

    pub(super) fn signal(&self, subject: &Arc<str>, signal: Signal) -> Admission {
        let state = &mut *self.lock();
        if matches!(signal, Signal::Ingress(_)) && state.ingress.pending >= self.max_ingress {
            return Admission::Rejected;
        }
        let (slot, admission) = match state.slots.entry(subject.clone()) {
            Entry::Occupied(entry) => (entry.into_mut(), Admission::Queued),
            Entry::Vacant(entry) => (entry.insert(Slot::default()), Admission::Spawn),
        };
        match signal {
            Signal::Ingress(event) => {
                slot.ingress.push_back((state.ingress.receive(), event));
            }
            Signal::Persisted(id) => slot.last_persisted = Some(id),
            Signal::Refresh => slot.refresh = true,
            Signal::Reconcile(flow) => slot.reconcile = Some(flow),
            Signal::JobFailed(job) => slot.failed_jobs.push(job),
        }
        slot.wake.notify_one();
        admission
    }

    /// Takes the cached state of a run whose task begins.
    pub(super) fn take_idle(&self, subject: &str) -> Option<R> {
        let mut state = self.lock();
        let (tick, run) = state.idle.remove(subject)?;
        state.order.remove(&tick);
        Some(run)
    }

    /// Takes the work of a run's task; None if there is none.
    pub(super) fn take(&self, subject: &str) -> Option<Work> {
        let state = &mut *self.lock();
        let slot = state.slots.get_mut(subject)?;
        if !slot.has_work() {
            return None;
        }
        let count = slot.ingress.len().min(MAX_BATCH);
        Some(Work {
            ingress: slot.ingress.drain(..count).collect(),
            last_persisted: slot.last_persisted.take(),
            refresh: std::mem::take(&mut slot.refresh),
            reconcile: slot.reconcile.take(),
            failed_jobs: std::mem::take(&mut slot.failed_jobs),
        })
    }

    /// Records that an ingress event was persisted or dropped.
    pub(super) fn complete_ingress(&self, number: u64) {
        // Completed after the lock is released, as that may run callbacks.
        let flushed = self.lock().ingress.complete(number);
        flushed.into_iter().for_each(|completer| completer.complete(Ok(())));
    }

    /// Returns a completion that resolves when every ingress event received so far has been persisted or dropped. None:
    /// there is none.
    pub(super) fn flush(&self) -> Option<Completion<()>> {
        self.lock().ingress.flush()
    }

    /// Returns whether ingress events of this run are queued.
    pub(super) fn has_ingress(&self, subject: &str) -> bool {
        self.lock().slots.get(subject).is_some_and(|slot| !slot.ingress.is_empty())
    }

    /// Returns the notification of new work for a run's task.
    pub(super) fn wake(&self, subject: &str) -> Arc<Notify> {
        self.lock().slots.get(subject).map(|slot| slot.wake.clone()).unwrap_or_default()
    }

    /// Ends a run's task and caches its state. Returns false, and does neither, if there is work.
    pub(super) fn park_idle(&self, subject: &Arc<str>, run: &mut Option<R>) -> bool {
        let state = &mut *self.lock();
        if let Some(slot) = state.slots.get(subject)
            && slot.has_work()
        {
            return false;
        }
        if let Some(run) = run.take() {
            state.tick += 1;
            state.order.insert(state.tick, subject.clone());
            state.idle.insert(subject.clone(), (state.tick, run));
            if state.idle.len() > self.max_idle
                && let Some((_, oldest)) = state.order.pop_first()
            {
                state.idle.remove(&oldest);
            }
        }
        state.slots.remove(subject);
        if state.slots.is_empty() {
            self.all_idle.notify_waiters();
        }
        true
    }

    /// Returns the number of ingress events that are not persisted yet.
    pub(super) fn ingress(&self) -> usize {
        self.lock().ingress.pending
    }

    /// Resolves when no run is active.
    pub(super) async fn all_idle(&self) {
        loop {
            let all_idle = self.all_idle.notified();
            tokio::pin!(all_idle);
            all_idle.as_mut().enable();
            if self.lock().slots.is_empty() {
                return;
            }
            all_idle.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Op;

    fn ingress() -> Signal {
        Signal::Ingress(NewEvent::parse(r#"{"type":"a"}"#).unwrap())
    }

    #[test]
    fn a_run_has_one_task_until_it_has_no_work() {
        let runs: Runs<u32> = Runs::new(10, 10);
        let subject: Arc<str> = "a".into();
        assert!(matches!(runs.signal(&subject, ingress()), Admission::Spawn));
        assert_eq!(runs.take("a").unwrap().ingress.len(), 1);
        assert!(runs.take("a").is_none());
        assert!(matches!(runs.signal(&subject, Signal::Persisted("1-0".into())), Admission::Queued));
        let mut state = Some(7);
        assert!(!runs.park_idle(&subject, &mut state));
        assert_eq!(runs.take("a").unwrap().last_persisted.as_deref(), Some("1-0"));
        assert!(runs.park_idle(&subject, &mut state));
        assert!(matches!(runs.signal(&subject, Signal::Refresh), Admission::Spawn));
        assert_eq!((runs.take_idle("a"), runs.take_idle("a")), (Some(7), None));
    }

    #[test]
    fn ingress_is_bounded_until_it_is_completed() {
        let runs: Runs<()> = Runs::new(1, 1);
        let subject: Arc<str> = "a".into();
        runs.signal(&subject, ingress());
        assert!(matches!(runs.signal(&"b".into(), ingress()), Admission::Rejected));
        assert!(matches!(runs.signal(&"b".into(), Signal::Refresh), Admission::Spawn));
        let (first, _) = runs.take("a").unwrap().ingress.remove(0);
        assert!(matches!(runs.signal(&subject, ingress()), Admission::Rejected));
        runs.complete_ingress(first);
        assert!(matches!(runs.signal(&subject, ingress()), Admission::Queued));
    }

    #[test]
    fn a_flush_completes_when_every_event_received_before_it_has() {
        let runs: Runs<()> = Runs::new(10, 1);
        assert!(runs.flush().is_none());
        for run in ["a", "b", "a"] {
            runs.signal(&run.into(), ingress());
        }
        let is_complete = |flush: Completion<()>| match flush.into_op() {
            Op::Completion(flush) => Err(flush),
            _ => Ok(()),
        };
        let before = runs.flush().unwrap();
        runs.signal(&"c".into(), ingress());
        runs.complete_ingress(2);
        runs.complete_ingress(0);
        let before = is_complete(before).unwrap_err();
        runs.complete_ingress(1);
        assert!(is_complete(before).is_ok());
        let after = runs.flush().unwrap();
        runs.complete_ingress(3);
        assert!(is_complete(after).is_ok() && runs.flush().is_none());
    }

    #[test]
    fn the_run_that_was_idle_longest_is_evicted_first() {
        let runs: Runs<usize> = Runs::new(1, 2);
        let names: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
        names.iter().enumerate().for_each(|(i, name)| assert!(runs.park_idle(name, &mut Some(i))));
        assert_eq!(names.iter().map(|name| runs.take_idle(name)).collect::<Vec<_>>(), [None, Some(1), Some(2)]);
    }
}
