//! How calls reach an engine: at once under a lock (memory), or through a thread that commits many at a time (file).

use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use crate::error::{Error, Result};
use crate::op::{BoxFuture, Op, completion};

/// Completion when the step of a command is over: with an error, nothing of the step counts.
pub(super) type Reply = Box<dyn FnOnce(Option<Error>) + Send>;

/// Does something with the engine, or hears why there is none.
pub(super) type Command = Box<dyn FnOnce(Result<&mut Engine>) -> Reply + Send>;

/// Runs commands, in the order in which they come.
pub(super) trait Driver: Send + Sync {
    /// Takes a command. It has run when this returns, or runs later.
    fn submit(&self, command: Command);
    /// No command comes any more. The future ends when nothing is left behind.
    fn end(&self) -> BoxFuture<()>;
}

/// How long a timer sleeps until this time. Never long, as the clock may be set while it sleeps.
pub(super) fn wait_for(wake: Option<u64>, now: u64) -> Duration {
    const LONGEST: u64 = 5_000;
    match wake {
        Some(wake) => Duration::from_millis(wake.saturating_sub(now).min(LONGEST)),
        None => Duration::from_secs(24 * 3_600),
    }
}

/// Calls the engine.
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
