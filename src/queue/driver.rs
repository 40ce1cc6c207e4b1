//! How calls reach an engine: under a lock (memory), or through a thread that commits many at a time (file).

use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use crate::error::{Error, Result};
use crate::op::{BoxFuture, Op, completion};

/// Completion when the step of a command is over: with an error, nothing of the step counts.
pub(super) type Reply = Box<dyn FnOnce(Option<Error>) + Send>;

/// Calls the engine, or gets the error why there is none.
pub(super) type Command = Box<dyn FnOnce(Result<&mut Engine>) -> Reply + Send>;

/// Runs commands in the order in which they were submitted.
pub(super) trait Driver: Send + Sync {
    /// Runs a command, now or later.
    fn submit(&self, command: Command);
    /// Ends the driver: no command is submitted any more. Resolves when every resource is released.
    fn end(&self) -> BoxFuture<()>;
}

/// Returns how long a timer sleeps until this time: at most a few seconds, as the clock may be set meanwhile.
pub(super) fn wait_for(wake: Option<u64>, now: u64) -> Duration {
    const MAX_SLEEP: u64 = 5_000;
    match wake {
        Some(wake) => Duration::from_millis(wake.saturating_sub(now).min(MAX_SLEEP)),
        None => Duration::from_secs(24 * 3_600),
    }
}

/// Calls the engine; the result is known when the step is committed.
pub(super) fn call<T: Send + 'static>(
    driver: &Arc<dyn Driver>,
    work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
) -> Op<T> {
    let (completer, completion) = completion(|| Error::closed("the queue"));
    driver.submit(Box::new(move |engine| {
        let result = engine.and_then(|engine| {
            let result = work(engine);
            if let Err(error) = &result {
                engine.note_failure(error);
            }
            result
        });
        Box::new(move |failure| completer.complete(failure.map_or(result, Err)))
    }));
    completion.into_op()
}
