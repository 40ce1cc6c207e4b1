//! A command to send, and what may be done with it when a connection breaks.

use ::redis::Cmd;

use super::Script;
use crate::error::Result;
use crate::panic;

/// Builds a command when it is about to be sent.
type Build = Box<dyn FnOnce() -> Result<Cmd> + Send>;

/// A command to send.
pub struct Request {
    pub(super) cmd: Cmd,
    build: Option<Build>,
    /// Names the operation in errors.
    pub(super) operation: &'static str,
    /// Whether the command changes anything.
    pub(super) is_write: bool,
    pub(super) script: Option<&'static Script>,
    /// Whether the command waits for a connection without a limit, and is sent again when one breaks.
    pub(super) survives_reconnect: bool,
    /// What to send instead when a connection broke before the reply came.
    pub(super) retry: Option<Box<dyn Fn() -> Cmd + Send>>,
}

impl Request {
    /// Creates a command that changes nothing.
    pub fn read(operation: &'static str, cmd: Cmd) -> Self {
        Self { cmd, build: None, operation, is_write: false, script: None, survives_reconnect: false, retry: None }
    }

    /// Creates a command that changes something: if it is sent and not answered, it may have been applied.
    pub fn write(operation: &'static str, cmd: Cmd) -> Self {
        Self { is_write: true, ..Self::read(operation, cmd) }
    }

    /// Creates a command as [`Request::write`] does, for one that is costly to build: the connection's task builds it.
    pub fn write_built(operation: &'static str, build: impl FnOnce() -> Result<Cmd> + Send + 'static) -> Self {
        Self { build: Some(Box::new(build)), ..Self::write(operation, Cmd::new()) }
    }

    /// Creates a command that changes nothing and keeps its place among the calls during an outage of any length.
    pub fn persistent_read(operation: &'static str, cmd: Cmd) -> Self {
        Self { survives_reconnect: true, ..Self::read(operation, cmd) }
    }

    /// Builds the command, if that was postponed. A panic of the builder becomes an error.
    pub(super) fn build(&mut self) -> Result<&Cmd> {
        if let Some(build) = self.build.take() {
            self.cmd = panic::catch(build)?;
        }
        Ok(&self.cmd)
    }

    /// Sends this form instead if the connection breaks before the reply. It must have no effect if the first one had.
    #[must_use]
    pub fn retry_with(self, retry: impl Fn() -> Cmd + Send + 'static) -> Self {
        Self { retry: Some(Box::new(retry)), ..self }
    }

    /// Marks the command as a call of this script.
    #[must_use]
    pub fn of(self, script: &'static Script) -> Self {
        Self { script: Some(script), ..self }
    }
}
