//! Every key and channel of the Redis store, in one place.
//!
//! Subjects, kv keys and index keys are used as given: callers include the prefix, as with nvent's own adapters. The
//! store's prefix applies only to keys that nvent's adapters do not have. None of these is a string, so `kv.clear`, which
//! deletes strings only, cannot match them.

/// The names of one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Hash: metadata of an index entry, as in nvent's layout.
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

    /// Channel: announces appends to this subject; the message is the event's id.
    pub(super) fn appended(&self, subject: &str) -> String {
        format!("{}:~appended:{subject}", self.prefix)
    }

    /// Returns the common beginning of the channels of [`Keys::appended`].
    pub(super) fn appended_prefix(&self) -> String {
        self.appended("")
    }
}
