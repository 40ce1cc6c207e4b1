//! One error for the whole crate: a stable code, a message for people, and whether trying again makes sense.

use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a code that callers may match on. It never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// An argument or option is not usable.
    Invalid,
    /// The stored value has another type.
    Type,
    /// The entry that the call needs is not there.
    NotFound,
    /// `expected_last_id` did not hold.
    Conflict,
    /// Used after `close()`.
    Closed,
    /// Another process holds the data directory.
    Locked,
    /// The data directory, or a stored value, cannot be read.
    Corrupt,
    /// The other side cannot be reached, or did not answer in time.
    Unavailable,
    /// The file system failed.
    Io,
}

impl Code {
    /// The code as JavaScript sees it, for example `NVENT_INVALID`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "NVENT_INVALID",
            Self::Type => "NVENT_TYPE",
            Self::NotFound => "NVENT_NOT_FOUND",
            Self::Conflict => "NVENT_CONFLICT",
            Self::Closed => "NVENT_CLOSED",
            Self::Locked => "NVENT_LOCKED",
            Self::Corrupt => "NVENT_CORRUPT",
            Self::Unavailable => "NVENT_UNAVAILABLE",
            Self::Io => "NVENT_IO",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an operation failed: what was wrong, where, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    code: Code,
    message: String,
    retryable: bool,
    maybe_applied: bool,
}

impl Error {
    /// An error with this code. [`Code::Unavailable`] is retryable unless [`Error::permanent`] says otherwise.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: matches!(code, Code::Unavailable), maybe_applied: false }
    }

    /// [`Code::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// [`Code::Type`].
    pub fn wrong_type(message: impl Into<String>) -> Self {
        Self::new(Code::Type, message)
    }

    /// [`Code::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// [`Code::Closed`], naming what was closed.
    pub fn closed(what: &str) -> Self {
        Self::new(Code::Closed, format!("{what} is closed: create a new one to go on"))
    }

    /// [`Code::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// [`Code::Io`].
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(Code::Io, message)
    }

    /// [`Code::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Code::Corrupt, message)
    }

    /// Marks an error that will not go away by trying again (a wrong password, say).
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// Marks a write that was sent and not answered: it may or may not have been applied.
    #[must_use]
    pub fn maybe_applied(mut self) -> Self {
        self.maybe_applied = true;
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the same call may succeed later without a change to it.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Whether the write may have been applied although it failed.
    pub fn is_maybe_applied(&self) -> bool {
        self.maybe_applied
    }
}
