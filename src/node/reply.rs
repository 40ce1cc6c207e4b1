//! From core results to what a native method returns: the result, an error, or a ticket for later.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use napi::bindgen_prelude::Either;

use crate::error::{Error, Result};
use crate::json::push_string;
use crate::node::bridge::Shared;
use crate::node::runtime;
use crate::op::Op;
use crate::wake;

/// JSON text (null for nothing), or the ticket of an operation that is settled later. Methods return it in a
/// `napi::Result` that is spelt out: behind an alias the macro would return an error rather than throw it.
pub(super) type Reply = Option<Either<u32, String>>;

/// An error as JSON, for the JavaScript face to make an `NventError` of.
pub(super) fn error_json(error: &Error) -> String {
    let mut json = format!("{{\"code\":\"{}\",\"message\":", error.code());
    push_string(&mut json, error.message());
    json.push_str(&format!(",\"retryable\":{},\"maybeApplied\":{}", error.is_retryable(), error.is_maybe_applied()));
    if let Some(operation) = error.operation() {
        json.push_str(",\"operation\":");
        push_string(&mut json, operation);
    }
    if let Some(cause) = std::error::Error::source(error) {
        json.push_str(",\"cause\":");
        push_string(&mut json, &cause.to_string());
    }
    json.push('}');
    json
}

/// An error to throw.
pub(super) fn throw(error: &Error) -> napi::Error {
    napi::Error::from_reason(error_json(error))
}

/// Runs synchronous work; a panic becomes an error.
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::panicked())).map_err(|error| throw(&error))
}

/// Starts an operation and replies with its JSON, at once or later.
pub(super) fn reply<T: Send + 'static>(
    bridge: &Arc<Shared>,
    start: impl FnOnce() -> Result<Op<T>>,
    to_json: fn(T) -> Option<String>,
) -> napi::Result<Reply> {
    let (started, wakes) = wake::defer_wakes(|| guard(start));
    match started? {
        Op::Ready(Ok(value)) => Ok(to_json(value).map(Either::B)),
        Op::Ready(Err(error)) => Err(throw(&error)),
        Op::Completion(completion) => {
            let ticket = bridge.next_ticket();
            bridge.keep_wakes(wakes);
            let bridge = bridge.clone();
            completion.on_complete(move |result| {
                let json =
                    catch_unwind(AssertUnwindSafe(|| result.map(to_json))).unwrap_or_else(|_| Err(Error::panicked()));
                bridge.settle(ticket, json);
            });
            Ok(Some(Either::A(ticket)))
        }
        Op::Pending(future) => {
            let ticket = bridge.next_ticket();
            let bridge = bridge.clone();
            runtime().spawn(async move {
                let result = AssertUnwindSafe(future).catch_unwind().await.unwrap_or_else(|_| Err(Error::panicked()));
                bridge.settle(ticket, result.map(to_json));
            });
            Ok(Some(Either::A(ticket)))
        }
    }
}
