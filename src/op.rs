//! Operations: started by the call that makes them, finished at once or later.
//!
//! A backend starts its work before it returns the [`Op`], so operations take effect in the order of the calls,
//! whether or not anyone awaits them. What costs microseconds is [`Op::Ready`] (waking another thread would cost more
//! than the work); what another thread carries out is [`Op::Told`], and whatever else takes time [`Op::Pending`].

use std::future::{Future, IntoFuture, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};

/// A boxed future of a result.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'static>>;

/// An operation under way. It goes on when dropped: awaiting only tells how it ended.
#[must_use = "an operation that nobody awaits hides its error"]
pub enum Op<T> {
    /// It is over.
    Ready(Result<T>),
    /// It ends when another thread says so.
    Told(Told<T>),
    /// It ends when the future does.
    Pending(BoxFuture<T>),
}

impl<T: Send + 'static> Op<T> {
    /// It succeeded.
    pub fn ok(value: T) -> Self {
        Self::Ready(Ok(value))
    }

    /// It failed.
    pub fn err(error: Error) -> Self {
        Self::Ready(Err(error))
    }

    /// It ends when the future does. What has an order must be queued before the future is made.
    pub fn pending(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self::Pending(Box::pin(future))
    }

    /// Runs synchronous work now.
    pub fn run(work: impl FnOnce() -> Result<T>) -> Self {
        Self::Ready(work())
    }

    /// Changes the value of an operation that succeeds.
    pub fn map<U: Send + 'static>(self, f: impl FnOnce(T) -> U + Send + 'static) -> Op<U> {
        self.and_then(|value| Ok(f(value)))
    }

    /// Like [`Op::map`], for a change that can fail.
    pub fn and_then<U: Send + 'static>(self, f: impl FnOnce(T) -> Result<U> + Send + 'static) -> Op<U> {
        match self {
            Self::Ready(result) => Op::Ready(result.and_then(f)),
            Self::Told(first) => {
                let (teller, then) = told(first.slot.lost);
                first.when(move |result| teller.tell(result.and_then(f)));
                Op::Told(then)
            }
            Self::Pending(future) => Op::pending(async move { future.await.and_then(f) }),
        }
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
            Self::Told(told) => OpFuture(Box::pin(told)),
            Self::Pending(future) => OpFuture(future),
        }
    }
}

/// What awaiting an [`Op`] polls.
pub struct OpFuture<T>(BoxFuture<T>);

impl<T> Future for OpFuture<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// Who carries out an operation tells its end with the one, who called for it is told by the other. `lost` is what is
/// told when the teller is dropped.
pub fn told<T>(lost: fn() -> Error) -> (Teller<T>, Told<T>) {
    let slot = Arc::new(Slot { state: Mutex::new(State::Open), lost });
    (Teller { slot: Some(slot.clone()) }, Told { slot })
}

struct Slot<T> {
    state: Mutex<State<T>>,
    lost: fn() -> Error,
}

enum State<T> {
    Open,
    Awaited(Waker),
    Called(Box<dyn FnOnce(Result<T>) + Send>),
    Ended(Result<T>),
    /// Somebody was told.
    Over,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, result: Result<T>) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Called(callback) => {
                drop(state);
                callback(result);
            }
            State::Awaited(waker) => {
                *state = State::Ended(result);
                drop(state);
                waker.wake();
            }
            State::Open | State::Ended(_) | State::Over => *state = State::Ended(result),
        }
    }
}

/// Tells how an operation ended.
pub struct Teller<T> {
    slot: Option<Arc<Slot<T>>>,
}

impl<T> Teller<T> {
    /// Tells it.
    pub fn tell(mut self, result: Result<T>) {
        if let Some(slot) = self.slot.take() {
            slot.tell(result);
        }
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.tell(Err((slot.lost)()));
        }
    }
}

/// Is told how an operation ended: to be awaited, or given a callback, which needs no runtime.
pub struct Told<T> {
    slot: Arc<Slot<T>>,
}

impl<T> Told<T> {
    /// Calls `callback` with the end: now if it is known, otherwise on the thread that tells it.
    pub fn when(self, callback: impl FnOnce(Result<T>) + Send + 'static) {
        let mut state = self.slot.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Ended(result) => {
                drop(state);
                callback(result);
            }
            _ => *state = State::Called(Box::new(callback)),
        }
    }

    /// The operation, over if it has ended already.
    pub fn into_op(self) -> Op<T> {
        let ended = {
            let mut state = self.slot.lock();
            match std::mem::replace(&mut *state, State::Over) {
                State::Ended(result) => Some(result),
                other => {
                    *state = other;
                    None
                }
            }
        };
        ended.map_or(Op::Told(self), Op::Ready)
    }
}

impl<T> Future for Told<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Ended(result) => Poll::Ready(result),
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

    fn lost() -> Error {
        Error::io("lost")
    }

    #[tokio::test]
    async fn an_end_is_told_to_whoever_awaits_it_before_or_after() {
        let (teller, early) = told(lost);
        let awaited = tokio::spawn(early);
        tokio::task::yield_now().await;
        teller.tell(Ok(1));
        assert_eq!(awaited.await.unwrap().unwrap(), 1);

        let (teller, late) = told(lost);
        teller.tell(Ok(2));
        assert_eq!(late.await.unwrap(), 2);
    }

    #[test]
    fn a_callback_runs_on_the_thread_that_tells() {
        let (teller, op) = told(lost);
        let (sender, receiver) = std::sync::mpsc::channel();
        let Op::Told(op) = Op::Told(op).map(|n: i32| n + 1) else { panic!("changed what tells") };
        op.when(move |result| sender.send((result, std::thread::current().id())).unwrap());
        let thread = std::thread::spawn(move || teller.tell(Ok(1)));
        let id = thread.thread().id();
        thread.join().unwrap();
        let (result, on) = receiver.recv().unwrap();
        assert_eq!((result.unwrap(), on), (2, id));
    }

    #[test]
    fn a_teller_that_is_dropped_tells_that_the_end_is_lost() {
        let (teller, op) = told::<()>(lost);
        drop(teller);
        assert!(matches!(op.into_op(), Op::Ready(Err(error)) if error.code() == Code::Io));
    }
}
