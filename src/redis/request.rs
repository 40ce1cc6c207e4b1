//! What is sent to Redis, and what may be done with it when a connection breaks.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ::redis::Cmd;

use super::Script;
use crate::error::{Error, Result};

/// What makes a command when it is its turn to be sent.
type Make = Box<dyn FnOnce() -> Result<Cmd> + Send>;

/// A command to send.
pub struct Request {
    pub(super) cmd: Cmd,
    make: Option<Make>,
    /// Names the command in errors.
    pub(super) what: &'static str,
    /// Whether it changes anything.
    pub(super) write: bool,
    pub(super) script: Option<&'static Script>,
    /// Whether it waits for a connection as long as it takes, and is sent again when one breaks.
    pub(super) patient: bool,
    /// What to send instead when a connection broke before the reply came.
    pub(super) again: Option<Box<dyn Fn() -> Cmd + Send>>,
}

impl Request {
    /// A command that changes nothing.
    pub fn read(what: &'static str, cmd: Cmd) -> Self {
        Self { cmd, make: None, what, write: false, script: None, patient: false, again: None }
    }

    /// A command that changes something: if it is sent and not answered, it may have been applied.
    pub fn write(what: &'static str, cmd: Cmd) -> Self {
        Self { write: true, ..Self::read(what, cmd) }
    }

    /// Like [`Request::write`], for a command that takes some making: that is left to the connection's task.
    pub fn write_made(what: &'static str, make: impl FnOnce() -> Result<Cmd> + Send + 'static) -> Self {
        Self { make: Some(Box::new(make)), ..Self::write(what, Cmd::new()) }
    }

    /// Makes the command, if that was left.
    pub(super) fn made(&mut self) -> Result<&Cmd> {
        if let Some(make) = self.make.take() {
            let made = catch_unwind(AssertUnwindSafe(make));
            self.cmd = made.unwrap_or_else(|_| Err(Error::io(format!("{}: the command cannot be made", self.what))))?;
        }
        Ok(&self.cmd)
    }

    /// A command that changes nothing and keeps its place among the calls however long the outage.
    pub fn patient_read(what: &'static str, cmd: Cmd) -> Self {
        Self { patient: true, ..Self::read(what, cmd) }
    }

    /// Where the reply does not come as the connection breaks, it is sent again in this form, which must have no effect if
    /// it had one before.
    #[must_use]
    pub fn or_again(self, again: impl Fn() -> Cmd + Send + 'static) -> Self {
        Self { again: Some(Box::new(again)), ..self }
    }

    /// The command is a call of this script.
    #[must_use]
    pub fn of(self, script: &'static Script) -> Self {
        Self { script: Some(script), ..self }
    }
}
