//! Which runs have something to do, and what is remembered of the others.
//!
//! A run that has something to do has a slot, and one task that tends it: events of one run are handled in order, runs
//! do not wait for each other. When nothing is left its state rests here, as long as there is room; a state that had to
//! go is folded anew from the log.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::event::NewEvent;

/// Ingress events that a task takes at a time.
const BATCH: usize = 64;

/// What a run's task is to do.
#[derive(Default)]
pub(super) struct Work {
    /// Events to persist, in order.
    pub(super) ingress: Vec<NewEvent>,
    /// The id of the last event that was persisted by someone else.
    pub(super) noticed: Option<Box<str>>,
    /// Whether to look at the run although nothing new is known of it.
    pub(super) look: bool,
}

/// What happened to a run.
pub(super) enum News {
    /// An event to persist.
    Ingress(NewEvent),
    /// An event with this id was persisted.
    Persisted(Box<str>),
    /// Perhaps something: look.
    Look,
}

/// What came of telling [`Runs`] some news.
pub(super) enum Told {
    /// The run has a task, which will see to it.
    Waiting,
    /// The run needs a task now.
    NeedsTask,
    /// There is no room for another event to persist.
    Full,
}

#[derive(Default)]
struct Slot {
    ingress: VecDeque<NewEvent>,
    noticed: Option<Box<str>>,
    look: bool,
    wake: Arc<Notify>,
}

struct State<R> {
    slots: HashMap<Arc<str>, Slot>,
    /// Ingress events in all slots.
    ingress: usize,
    resting: HashMap<Arc<str>, (u64, R)>,
    /// Which of them has rested longest.
    order: BTreeMap<u64, Arc<str>>,
    tick: u64,
}

/// All runs that are known in this process, by subject.
pub(super) struct Runs<R> {
    state: Mutex<State<R>>,
    max_ingress: usize,
    max_resting: usize,
    quiet: Notify,
}

impl<R> Runs<R> {
    pub(super) fn new(max_ingress: usize, max_resting: usize) -> Self {
        let state =
            State { slots: HashMap::new(), ingress: 0, resting: HashMap::new(), order: BTreeMap::new(), tick: 0 };
        Self { state: Mutex::new(state), max_ingress, max_resting, quiet: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, subject: &Arc<str>, news: News) -> Told {
        let state = &mut *self.lock();
        if matches!(news, News::Ingress(_)) && state.ingress >= self.max_ingress {
            return Told::Full;
        }
        let (slot, told) = match state.slots.entry(subject.clone()) {
            Entry::Occupied(entry) => (entry.into_mut(), Told::Waiting),
            Entry::Vacant(entry) => (entry.insert(Slot::default()), Told::NeedsTask),
        };
        match news {
            News::Ingress(event) => {
                slot.ingress.push_back(event);
                state.ingress += 1;
            }
            News::Persisted(id) => slot.noticed = Some(id),
            News::Look => slot.look = true,
        }
        slot.wake.notify_one();
        told
    }

    /// The state of a run whose task begins, if it is remembered.
    pub(super) fn recall(&self, subject: &str) -> Option<R> {
        let mut state = self.lock();
        let (tick, run) = state.resting.remove(subject)?;
        state.order.remove(&tick);
        Some(run)
    }

    /// What there is to do for a run's task now.
    pub(super) fn take(&self, subject: &str) -> Option<Work> {
        let state = &mut *self.lock();
        let slot = state.slots.get_mut(subject)?;
        if slot.ingress.is_empty() && slot.noticed.is_none() && !slot.look {
            return None;
        }
        let count = slot.ingress.len().min(BATCH);
        Some(Work {
            ingress: slot.ingress.drain(..count).collect(),
            noticed: slot.noticed.take(),
            look: std::mem::take(&mut slot.look),
        })
    }

    /// An event that was taken is persisted, or given up.
    pub(super) fn settled(&self) {
        self.lock().ingress -= 1;
    }

    /// Whether more events of this run wait to be persisted.
    pub(super) fn has_ingress(&self, subject: &str) -> bool {
        self.lock().slots.get(subject).is_some_and(|slot| !slot.ingress.is_empty())
    }

    /// What a run's task awaits for more to do.
    pub(super) fn wake(&self, subject: &str) -> Arc<Notify> {
        self.lock().slots.get(subject).map(|slot| slot.wake.clone()).unwrap_or_default()
    }

    /// Ends a run's task, with the state to remember. False where there is more to do.
    pub(super) fn rest(&self, subject: &Arc<str>, run: &mut Option<R>) -> bool {
        let state = &mut *self.lock();
        if let Some(slot) = state.slots.get(subject)
            && (!slot.ingress.is_empty() || slot.noticed.is_some() || slot.look)
        {
            return false;
        }
        if let Some(run) = run.take() {
            state.tick += 1;
            state.order.insert(state.tick, subject.clone());
            state.resting.insert(subject.clone(), (state.tick, run));
            if state.resting.len() > self.max_resting
                && let Some((_, oldest)) = state.order.pop_first()
            {
                state.resting.remove(&oldest);
            }
        }
        state.slots.remove(subject);
        if state.slots.is_empty() {
            self.quiet.notify_waiters();
        }
        true
    }

    /// Ingress events that are not persisted yet.
    pub(super) fn ingress(&self) -> usize {
        self.lock().ingress
    }

    /// Waits until no run has anything to do.
    pub(super) async fn quiet(&self) {
        loop {
            let quiet = self.quiet.notified();
            tokio::pin!(quiet);
            quiet.as_mut().enable();
            if self.lock().slots.is_empty() {
                return;
            }
            quiet.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingress() -> News {
        News::Ingress(NewEvent::parse(r#"{"type":"a"}"#).unwrap())
    }

    #[test]
    fn a_run_has_one_task_until_it_has_nothing_to_do() {
        let runs: Runs<u32> = Runs::new(10, 10);
        let subject: Arc<str> = "a".into();
        assert!(matches!(runs.tell(&subject, ingress()), Told::NeedsTask));
        assert_eq!(runs.take("a").unwrap().ingress.len(), 1);
        assert!(runs.take("a").is_none());
        assert!(matches!(runs.tell(&subject, News::Persisted("1-0".into())), Told::Waiting));
        let mut state = Some(7);
        assert!(!runs.rest(&subject, &mut state));
        assert_eq!(runs.take("a").unwrap().noticed.as_deref(), Some("1-0"));
        assert!(runs.rest(&subject, &mut state));
        assert!(matches!(runs.tell(&subject, News::Look), Told::NeedsTask));
        assert_eq!((runs.recall("a"), runs.recall("a")), (Some(7), None));
    }

    #[test]
    fn ingress_is_bounded_until_it_is_settled() {
        let runs: Runs<()> = Runs::new(1, 1);
        let subject: Arc<str> = "a".into();
        runs.tell(&subject, ingress());
        assert!(matches!(runs.tell(&"b".into(), ingress()), Told::Full));
        assert!(matches!(runs.tell(&"b".into(), News::Look), Told::NeedsTask));
        runs.take("a");
        assert!(matches!(runs.tell(&subject, ingress()), Told::Full));
        runs.settled();
        assert!(matches!(runs.tell(&subject, ingress()), Told::Waiting));
    }

    #[test]
    fn the_run_that_rested_longest_is_forgotten_first() {
        let runs: Runs<usize> = Runs::new(1, 2);
        let names: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
        names.iter().enumerate().for_each(|(i, name)| assert!(runs.rest(name, &mut Some(i))));
        assert_eq!(names.iter().map(|name| runs.recall(name)).collect::<Vec<_>>(), [None, Some(1), Some(2)]);
    }
}
