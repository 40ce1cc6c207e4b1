//! How a store sends its requests and converts their replies.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::redis::Value;
use serde_json::Number;

use crate::error::{Code, Error, Result};
use crate::json;
use crate::op::{Completer, Op, completion};
use crate::redis::client::unanswered;
use crate::redis::{Client, Request, reply};

/// The most entries or events that one call of a read examines. The server serves no other client during a call, which takes
/// about 20 ms at most.
pub(super) const MAX_SCANNED: usize = 10_000;
/// The most entries, events or documents that one call of a read returns.
pub(super) const MAX_ROWS: usize = 2_000;

/// Counts calls.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) appends: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) errors: Arc<AtomicU64>,
}

/// Sends requests and counts them.
pub(super) struct Calls {
    client: Arc<Client>,
    pub(super) counters: Counters,
}

impl Calls {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client, counters: Counters::default() }
    }

    /// Sends a request, converts its result and counts errors.
    fn submit<T: Send + 'static>(
        &self,
        request: Request,
        convert: impl FnOnce(Result<Value>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let errors = self.counters.errors.clone();
        let (completer, completion) = completion(unanswered);
        self.client.submit(request, move |result| {
            completer.complete(convert(result).inspect_err(|_| _ = errors.fetch_add(1, Ordering::Relaxed)));
        });
        completion.into_op()
    }

    /// Sends a request that counts as neither read nor write.
    pub(super) fn send<T: Send + 'static>(
        &self,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.submit(request, |result| result.and_then(convert))
    }

    /// Sends a read.
    pub(super) fn read<T: Send + 'static>(
        &self,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.send(request, convert)
    }

    /// Sends a read of many rows as several requests, each after the reply to the one before, so that the server answers
    /// others between them. `convert` takes a reply and returns the next request, or the result.
    pub(super) fn read_pages<T: Send + 'static>(
        &self,
        first: Request,
        convert: impl FnMut(Value) -> Result<ControlFlow<T, Request>> + Send + 'static,
    ) -> Op<T> {
        fn send<T: Send + 'static>(
            client: Arc<Client>,
            request: Request,
            errors: Arc<AtomicU64>,
            mut convert: impl FnMut(Value) -> Result<ControlFlow<T, Request>> + Send + 'static,
            completer: Completer<T>,
        ) {
            let next_client = client.clone();
            client.submit(request, move |result| match result.and_then(&mut convert) {
                Ok(ControlFlow::Continue(next)) => send(next_client, next, errors, convert, completer),
                Ok(ControlFlow::Break(rows)) => completer.complete(Ok(rows)),
                Err(error) => {
                    errors.fetch_add(1, Ordering::Relaxed);
                    completer.complete(Err(error));
                }
            });
        }
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        let (completer, completion) = completion(unanswered);
        send(self.client.clone(), first, self.counters.errors.clone(), convert, completer);
        completion.into_op()
    }

    /// Sends a write.
    pub(super) fn write<T: Send + 'static>(
        &self,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.send(request, convert)
    }

    /// Sends a write whose errors of type and value name what it was about.
    pub(super) fn write_named<T: Send + 'static>(
        &self,
        name: String,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.submit(request, move |result| result.map_err(|error| about(&name, error)).and_then(convert))
    }
}

/// Names the key in an error that is about what it holds.
fn about(name: &str, error: Error) -> Error {
    match error.code() {
        Code::Type => Error::wrong_type(format!("{name}: {}", error.message())),
        Code::Invalid => Error::invalid(format!("{name}: {}", error.message())),
        _ => error,
    }
}

/// Converts a reply that says nothing.
pub(super) fn ignore(_: Value) -> Result<()> {
    Ok(())
}

/// Converts a reply of 0 or 1.
pub(super) fn flag(value: Value) -> Result<bool> {
    reply::int(value).map(|n| n != 0)
}

/// Parses a number as Redis prints it.
pub(super) fn number(text: &str) -> Result<Number> {
    let unexpected = || Error::corrupt(format!("Redis sent {text:?} where a number was expected"));
    json::number(text.parse().map_err(|_| unexpected())?)
}

/// Returns a number as text that parses to the same number; whole numbers have no fraction.
pub(super) fn decimal(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 && (number != 0.0 || number.is_sign_positive()) {
        return (number as i64).to_string();
    }
    format!("{number:?}")
}
