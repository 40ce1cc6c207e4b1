//! Every key and channel of the Redis store, in one place.
//!
//! Subjects, kv keys and index keys are used as they are: whoever calls puts the prefix in front, as with nvent's own
//! adapters. The prefix of the store names only what nvent's adapters do not have. None of that is a string, so that
//! `kv.clear`, which touches strings alone, cannot meet it.

/// The names that belong to one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Hash: metadata of an index entry. nvent's.
    pub(super) fn meta(index: &str, id: &str) -> String {
        format!("{index}:meta:{id}")
    }

    /// Hash, for a day: the last id of a deleted subject, so that later ids are greater.
    pub(super) fn deleted(&self, subject: &str) -> String {
        format!("{}:~deleted:{subject}", self.prefix)
    }

    /// Hash: the documents of a collection.
    pub(super) fn documents(&self, collection: &str) -> String {
        format!("{}:~documents:{collection}", self.prefix)
    }

    /// Channel: an event was appended to this subject; the message is its id.
    pub(super) fn appended(&self, subject: &str) -> String {
        format!("{}:~appended:{subject}", self.prefix)
    }

    /// What every channel of [`Keys::appended`] begins with.
    pub(super) fn appended_prefix(&self) -> String {
        self.appended("")
    }
}
