//! Operations: started by the call that makes them, finished at once or later.
//!
//! A backend starts its work before it returns the [`Op`], so operations take effect in the order of the calls,
//! whether or not anyone awaits them. What costs microseconds is [`Op::Ready`] (waking another thread would cost more
//! than the work); what waits for a disk or a network is [`Op::Pending`].

use std::future::{Future, IntoFuture, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::{Error, Result};

/// A boxed future of a result.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'static>>;

/// An operation under way. It goes on when dropped: awaiting only tells how it ended.
#[must_use = "an operation that nobody awaits hides its error"]
pub enum Op<T> {
    /// It is over.
    Ready(Result<T>),
    /// It ends later.
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
