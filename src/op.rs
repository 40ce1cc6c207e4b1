//! Operations: started by the call that makes them, completed at once or later.
//!
//! A backend starts its work before it returns the [`Op`], so operations take effect in the order of the calls,
//! whether or not the caller awaits them. Work that takes microseconds returns [`Op::Ready`] (waking another thread would
//! cost more than the work), work done by another thread returns [`Op::Completion`], everything else [`Op::Pending`].

use std::fmt;
use std::future::{Future, IntoFuture, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sync::lock;

/// A boxed future of a result.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'static>>;

/// An operation in progress. Dropping it does not cancel it; awaiting it returns its result.
#[must_use = "dropping an operation discards its error"]
pub enum Op<T> {
    /// The operation has completed.
    Ready(Result<T>),
    /// The operation completes on another thread, through a [`Completer`].
    Completion(Completion<T>),
    /// The operation completes when the future does.
    Pending(BoxFuture<T>),
}

impl<T: Send + 'static> Op<T> {
    /// Returns an operation that has succeeded.
    pub fn ok(value: T) -> Self {
        Self::Ready(Ok(value))
    }

    /// Returns an operation that has failed.
    pub fn err(error: Error) -> Self {
        Self::Ready(Err(error))
    }

    /// Returns an operation that completes when `future` does. Work whose order matters must be queued before the future
    /// is created.
    pub fn pending(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self::Pending(Box::pin(future))
    }

    /// Runs `work` and returns its result as a completed operation.
    pub fn run(work: impl FnOnce() -> Result<T>) -> Self {
        Self::Ready(work())
    }

    /// Maps the value of a successful operation.
    pub fn map<U: Send + 'static>(self, f: impl FnOnce(T) -> U + Send + 'static) -> Op<U> {
        self.and_then(|value| Ok(f(value)))
    }

    /// Maps the value of a successful operation with a function that can fail.
    pub fn and_then<U: Send + 'static>(self, f: impl FnOnce(T) -> Result<U> + Send + 'static) -> Op<U> {
        match self {
            Self::Ready(result) => Op::Ready(result.and_then(f)),
            Self::Completion(first) => {
                let (completer, then) = completion(first.slot.on_dropped);
                first.on_complete(move |result| {
                    // A panic of `f` drops the completer, which reports it. The completing thread completes others as well.
                    _ = catch_unwind(AssertUnwindSafe(|| completer.complete(result.and_then(f))));
                });
                Op::Completion(then)
            }
            Self::Pending(future) => Op::pending(async move { future.await.and_then(f) }),
        }
    }

    /// Bounds an operation that may never be answered: of an object of the application's own. Without an answer of `who` in
    /// time it has failed, possibly with an effect.
    pub fn within(self, timeout: Duration, who: impl fmt::Display + Send + 'static) -> Self {
        if matches!(self, Self::Ready(_)) {
            return self;
        }
        let answer = self.into_future();
        Self::pending(async move {
            tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
                let secs = timeout.as_secs();
                Err(Error::unavailable(format!("{who} did not answer within {secs} s")).maybe_applied())
            })
        })
    }
}

impl<T> From<Result<T>> for Op<T> {
    fn from(result: Result<T>) -> Self {
        Self::Ready(result)
    }
}

impl<T> IntoFuture for Op<T>
where
    T: Send + 'static,
{
    type Output = Result<T>;
    type IntoFuture = OpFuture<T>;

    fn into_future(self) -> OpFuture<T> {
        match self {
            Self::Ready(result) => OpFuture(Box::pin(ready(result))),
            Self::Completion(completion) => OpFuture(Box::pin(completion)),
            Self::Pending(future) => OpFuture(future),
        }
    }
}

/// The future of an [`Op`].
pub struct OpFuture<T>(BoxFuture<T>);

impl<T> Future for OpFuture<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// Creates a linked completer and completion. If the completer is dropped without completing, the completion resolves to
/// `on_dropped()`, or where a panic drops it to [`Error::panicked`].
pub fn completion<T>(on_dropped: fn() -> Error) -> (Completer<T>, Completion<T>) {
    let slot = Arc::new(Slot { state: Mutex::new(State::Open), on_dropped });
    (Completer { slot: Some(slot.clone()) }, Completion { slot })
}

struct Slot<T> {
    state: Mutex<State<T>>,
    on_dropped: fn() -> Error,
}

enum State<T> {
    Open,
    Awaited(Waker),
    Callback(Box<dyn FnOnce(Result<T>) + Send>),
    Completed(Result<T>),
    /// The result has been taken.
    Taken,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }

    fn complete(&self, result: Result<T>) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Callback(callback) => {
                drop(state);
                callback(result);
            }
            State::Awaited(waker) => {
                *state = State::Completed(result);
                drop(state);
                waker.wake();
            }
            State::Open | State::Completed(_) | State::Taken => *state = State::Completed(result),
        }
    }
}

/// The side of an operation that reports its result.
pub struct Completer<T> {
    slot: Option<Arc<Slot<T>>>,
}

impl<T> Completer<T> {
    /// Completes the operation with `result`.
    pub fn complete(mut self, result: Result<T>) {
        if let Some(slot) = self.slot.take() {
            slot.complete(result);
        }
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.complete(Err(dropped(slot.on_dropped)));
        }
    }
}

/// Returns the error of an operation that is not completed any more: that of a panic, where one ends the work.
fn dropped(on_dropped: fn() -> Error) -> Error {
    let error = on_dropped();
    match (std::thread::panicking(), error.is_maybe_applied()) {
        (false, _) => error,
        (true, false) => Error::panicked(),
        (true, true) => Error::panicked().maybe_applied(),
    }
}

/// The side of an operation that receives its result: awaited as a future, or given a callback, which needs no runtime.
pub struct Completion<T> {
    slot: Arc<Slot<T>>,
}

impl<T> Completion<T> {
    /// Calls `callback` with the result: now if the operation has completed, otherwise on the completing thread.
    pub fn on_complete(self, callback: impl FnOnce(Result<T>) + Send + 'static) {
        let mut state = self.slot.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Completed(result) => {
                drop(state);
                callback(result);
            }
            _ => *state = State::Callback(Box::new(callback)),
        }
    }

    /// Converts this into an [`Op`], which is ready if the operation has completed already.
    pub fn into_op(self) -> Op<T> {
        let ended = {
            let mut state = self.slot.lock();
            match std::mem::replace(&mut *state, State::Taken) {
                State::Completed(result) => Some(result),
                other => {
                    *state = other;
                    None
                }
            }
        };
        ended.map_or(Op::Completion(self), Op::Ready)
    }
}

impl<T> Future for Completion<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Completed(result) => Poll::Ready(result),
            _ => {
                *state = State::Awaited(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn on_dropped() -> Error {
        Error::io("dropped")
    }

    #[tokio::test]
    async fn a_result_reaches_a_waiter_that_awaits_before_or_after_completion() {
        let (completer, early) = completion(on_dropped);
        let awaited = tokio::spawn(early);
        tokio::task::yield_now().await;
        completer.complete(Ok(1));
        assert_eq!(awaited.await.unwrap().unwrap(), 1);

        let (completer, late) = completion(on_dropped);
        completer.complete(Ok(2));
        assert_eq!(late.await.unwrap(), 2);
    }

    #[test]
    fn a_panic_of_the_work_is_an_error_of_the_operation_and_what_it_maps_to_ends_no_thread() {
        let panicking = |on_dropped| {
            let (completer, op) = completion::<()>(on_dropped);
            let work = move || {
                let _completer = completer;
                panic!("on purpose");
            };
            assert!(std::thread::spawn(work).join().is_err());
            match op.into_op() {
                Op::Ready(Err(error)) => (error.code(), error.is_maybe_applied()),
                _ => panic!("it has not failed"),
            }
        };
        assert_eq!(panicking(on_dropped), (Code::Internal, false));
        assert_eq!(panicking(|| on_dropped().maybe_applied()), (Code::Internal, true));

        let (completer, op) = completion(|| on_dropped().maybe_applied());
        let Op::Completion(op) = Op::Completion(op).map(|(): ()| -> () { panic!("on purpose") }) else {
            panic!("map changed the kind of operation")
        };
        std::thread::spawn(move || completer.complete(Ok(()))).join().unwrap();
        assert!(
            matches!(op.into_op(), Op::Ready(Err(error)) if error.code() == Code::Internal && error.is_maybe_applied())
        );
    }

    #[test]
    fn a_callback_runs_on_the_completing_thread() {
        let (completer, op) = completion(on_dropped);
        let (sender, receiver) = std::sync::mpsc::channel();
        let Op::Completion(op) = Op::Completion(op).map(|n: i32| n + 1) else {
            panic!("map changed the kind of operation")
        };
        op.on_complete(move |result| sender.send((result, std::thread::current().id())).unwrap());
        let thread = std::thread::spawn(move || completer.complete(Ok(1)));
        let id = thread.thread().id();
        thread.join().unwrap();
        let (result, on) = receiver.recv().unwrap();
        assert_eq!((result.unwrap(), on), (2, id));
    }

    #[test]
    fn a_dropped_completer_completes_with_an_error() {
        let (completer, op) = completion::<()>(on_dropped);
        drop(completer);
        assert!(matches!(op.into_op(), Op::Ready(Err(error)) if error.code() == Code::Io));
    }
}
