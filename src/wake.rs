//! Deferred wake-ups. Within [`defer_wakes`] each waker is recorded once and woken when the scope ends, because a wake-up
//! costs more than most of the work it announces.

use std::cell::RefCell;
use std::sync::Arc;

/// A thread or task that sleeps until it has work.
pub(crate) trait Wake: Send + Sync {
    /// Wakes it. Has no effect if it is awake.
    fn wake(&self);
}

/// Recorded wake-ups. They happen on drop, so that none is missed when the scope panics.
#[derive(Default)]
pub(crate) struct DeferredWakes(Vec<Arc<dyn Wake>>);

impl DeferredWakes {
    fn add(&mut self, waker: Arc<dyn Wake>) {
        if !self.0.iter().any(|other| Arc::ptr_eq(other, &waker)) {
            self.0.push(waker);
        }
    }

    /// Removes the wake-up of one thread or task. Returns whether it was recorded.
    #[cfg(feature = "node")]
    pub(crate) fn remove<S: Wake>(&mut self, waker: &Arc<S>) -> bool {
        let before = self.0.len();
        self.0.retain(|other| !std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(waker)));
        self.0.len() < before
    }

    /// Moves the wake-ups of `other` into this one.
    #[cfg(any(feature = "node", test))]
    pub(crate) fn append(&mut self, mut other: Self) {
        other.0.drain(..).for_each(|waker| self.add(waker));
    }
}

impl Drop for DeferredWakes {
    fn drop(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }
}

thread_local! {
    static DEFERRED: RefCell<Option<DeferredWakes>> = const { RefCell::new(None) };
}

/// Runs `work` and returns its value with the wake-ups it requested.
pub(crate) fn defer_wakes<T>(work: impl FnOnce() -> T) -> (T, DeferredWakes) {
    /// Restores what an outer scope has recorded, also when `work` panics.
    struct Outer(Option<DeferredWakes>);
    impl Drop for Outer {
        fn drop(&mut self) {
            let inner = DEFERRED.replace(self.0.take());
            drop(inner);
        }
    }
    let _outer = Outer(DEFERRED.replace(Some(DeferredWakes::default())));
    let value = work();
    (value, DEFERRED.take().unwrap_or_default())
}

/// Runs `work`, then wakes each requested waker once.
pub(crate) fn coalesce_wakes<T>(work: impl FnOnce() -> T) -> T {
    defer_wakes(work).0
}

/// Records a wake-up in the current scope. Returns false where this thread has no such scope, so the caller must wake.
pub(crate) fn defer<S: Wake + 'static>(waker: &Arc<S>) -> bool {
    DEFERRED.with_borrow_mut(|deferred| deferred.as_mut().map(|wakes| wakes.add(waker.clone())).is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Default)]
    struct CountingWaker(AtomicU32);

    impl Wake for CountingWaker {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_waker_is_woken_once_when_the_scope_ends() {
        let (one, other) = (Arc::new(CountingWaker::default()), Arc::new(CountingWaker::default()));
        assert!(!defer(&one), "there is no scope");
        coalesce_wakes(|| {
            assert!(defer(&one) && defer(&other) && defer(&one));
            let (_, mut wakes) = defer_wakes(|| defer(&one));
            wakes.append(defer_wakes(|| defer(&one)).1);
            assert_eq!(one.0.load(Ordering::Relaxed), 0);
            drop(wakes);
            assert_eq!(one.0.load(Ordering::Relaxed), 1);
        });
        assert_eq!((one.0.load(Ordering::Relaxed), other.0.load(Ordering::Relaxed)), (2, 1));
        assert!(!defer(&one), "the scope has ended");
    }

    #[test]
    fn a_panic_loses_no_wake_up() {
        let waker = Arc::new(CountingWaker::default());
        let panics = std::panic::AssertUnwindSafe(|| {
            coalesce_wakes(|| {
                defer(&waker);
                panic!("on purpose");
            });
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(waker.0.load(Ordering::Relaxed), 1);
        assert!(!defer(&waker));
    }
}
