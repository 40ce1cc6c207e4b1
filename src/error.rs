//! The error of the whole crate: a stable code, a message for people, and whether a retry can succeed.

use std::fmt;
use std::sync::Arc;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a code that callers may match on. A code never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// A defect of this package: a panic, or a state that should not occur.
    Internal,
}

impl Code {
    /// Returns the code as JavaScript sees it, for example `NVENT_INVALID`.
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
            Self::Internal => "NVENT_INTERNAL",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an operation failed: what was wrong, where, and what to do about it.
#[derive(Debug, Clone)]
pub struct Error {
    code: Code,
    message: String,
    retryable: bool,
    maybe_applied: bool,
    operation: Option<&'static str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl Error {
    /// Creates an error with this code. [`Code::Unavailable`] and [`Code::Locked`] are retryable unless
    /// [`Error::permanent`] says otherwise.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: matches!(code, Code::Unavailable | Code::Locked),
            maybe_applied: false,
            operation: None,
            source: None,
        }
    }

    /// Creates an error with [`Code::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// Creates an error with [`Code::Type`].
    pub fn wrong_type(message: impl Into<String>) -> Self {
        Self::new(Code::Type, message)
    }

    /// Creates an error with [`Code::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// Creates an error with [`Code::Closed`] that names what was closed.
    pub fn closed(what: &str) -> Self {
        Self::new(Code::Closed, format!("{what} is closed: create a new one to go on"))
    }

    /// Creates an error with [`Code::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// Creates an error with [`Code::Io`].
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(Code::Io, message)
    }

    /// Creates an error with [`Code::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Code::Corrupt, message)
    }

    /// Creates an error with [`Code::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Creates the error of an operation that panicked.
    pub fn panicked() -> Self {
        Self::internal("this is a defect of nvent-native: please report it with the lines above")
    }

    /// Marks an error that a retry does not resolve, such as a wrong password.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// Marks a write that was sent but not answered: it may or may not have been applied.
    #[must_use]
    pub fn maybe_applied(mut self) -> Self {
        self.maybe_applied = true;
        self
    }

    /// Names the operation that failed, unless the error names one already.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.operation.get_or_insert(operation);
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Returns the stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns the message for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether the same call may succeed later without a change to it.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Returns whether the write may have been applied although it failed.
    pub fn is_maybe_applied(&self) -> bool {
        self.maybe_applied
    }

    /// Returns the operation that failed, where it is known.
    pub fn operation(&self) -> Option<&'static str> {
        self.operation
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_innermost_operation_is_kept_and_the_cause_is_the_source() {
        let cause = std::io::Error::other("no space");
        let error = Error::io("cannot write").with_source(cause).with_operation("append").with_operation("flush");
        assert_eq!(error.operation(), Some("append"));
        let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        assert_eq!(cause.map(ToString::to_string).as_deref(), Some("no space"));
    }

    #[test]
    fn an_outage_and_a_lock_are_retryable_and_nothing_else_is() {
        let retryable = |code| Error::new(code, "").is_retryable();
        assert!(retryable(Code::Unavailable) && retryable(Code::Locked));
        for code in [Code::Invalid, Code::Type, Code::NotFound, Code::Conflict, Code::Closed, Code::Corrupt, Code::Io] {
            assert!(!retryable(code), "{code}");
        }
        assert!(!Error::unavailable("").permanent().is_retryable() && !Error::panicked().is_retryable());
    }
}
