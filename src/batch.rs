//! Wakes that can wait. Waking a thread costs more than most of what is handed to it, so whoever hands over many things
//! in a row collects whom to wake, and wakes each once.

use std::cell::RefCell;
use std::sync::Arc;

/// Somebody who sleeps until there is something to do.
pub(crate) trait Sleeper: Send + Sync {
    /// Wakes it. Waking who is awake does nothing.
    fn wake(&self);
}

/// Who is to be woken: when it is dropped, so that nobody is forgotten.
#[derive(Default)]
pub(crate) struct Wakes(Vec<Arc<dyn Sleeper>>);

impl Wakes {
    fn add(&mut self, sleeper: Arc<dyn Sleeper>) {
        if !self.0.iter().any(|other| Arc::ptr_eq(other, &sleeper)) {
            self.0.push(sleeper);
        }
    }

    /// Takes over whom the other was to wake.
    #[cfg(any(feature = "node", test))]
    pub(crate) fn append(&mut self, mut other: Self) {
        other.0.drain(..).for_each(|sleeper| self.add(sleeper));
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        for sleeper in self.0.drain(..) {
            sleeper.wake();
        }
    }
}

thread_local! {
    static COLLECTED: RefCell<Option<Wakes>> = const { RefCell::new(None) };
}

/// Runs `work`; whom it would wake is returned beside what it returns.
pub(crate) fn collect<T>(work: impl FnOnce() -> T) -> (T, Wakes) {
    /// Puts back what an outer call has collected, also when `work` panics.
    struct Outer(Option<Wakes>);
    impl Drop for Outer {
        fn drop(&mut self) {
            let inner = COLLECTED.replace(self.0.take());
            drop(inner);
        }
    }
    let _outer = Outer(COLLECTED.replace(Some(Wakes::default())));
    let value = work();
    (value, COLLECTED.take().unwrap_or_default())
}

/// Runs `work`, and wakes whom it would wake at its end.
pub(crate) fn together<T>(work: impl FnOnce() -> T) -> T {
    collect(work).0
}

/// Leaves waking to whoever collects on this thread. False: nobody does.
pub(crate) fn leave<S: Sleeper + 'static>(sleeper: &Arc<S>) -> bool {
    COLLECTED.with_borrow_mut(|collected| collected.as_mut().map(|wakes| wakes.add(sleeper.clone())).is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicU32);

    impl Sleeper for Counting {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn everybody_is_woken_once_at_the_end() {
        let (one, other) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
        assert!(!leave(&one), "nobody collects");
        together(|| {
            assert!(leave(&one) && leave(&other) && leave(&one));
            let (_, mut wakes) = collect(|| leave(&one));
            wakes.append(collect(|| leave(&one)).1);
            assert_eq!(one.0.load(Ordering::Relaxed), 0);
            drop(wakes);
            assert_eq!(one.0.load(Ordering::Relaxed), 1);
        });
        assert_eq!((one.0.load(Ordering::Relaxed), other.0.load(Ordering::Relaxed)), (2, 1));
        assert!(!leave(&one), "nobody collects any more");
    }

    #[test]
    fn a_panic_forgets_nobody() {
        let sleeper = Arc::new(Counting::default());
        let panics = std::panic::AssertUnwindSafe(|| {
            together(|| {
                leave(&sleeper);
                panic!("on purpose");
            });
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(sleeper.0.load(Ordering::Relaxed), 1);
        assert!(!leave(&sleeper));
    }
}
