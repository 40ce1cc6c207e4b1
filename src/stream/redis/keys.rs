//! Every key of the Redis stream, in one place. Channels are named like topics, as with nvent's own adapter; the prefix
//! names only what that adapter does not have. None of it is a string, so `kv.clear` of a store cannot meet it.

/// The names that belong to one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Stream: the retained messages of a topic; `message` is the event, `origin` who published it, `n` its number
    /// there.
    pub(super) fn retained(&self, topic: &str) -> String {
        format!("{}:~retained:{topic}", self.prefix)
    }

    /// What every key of [`Keys::retained`] begins with.
    pub(super) fn retained_prefix(&self) -> String {
        self.retained("")
    }

    /// Set: the topics of which something is retained.
    pub(super) fn topics(&self) -> String {
        format!("{}:~topics", self.prefix)
    }

    /// Stream: what a group failed at too often; `id`, `deliveries`, `message` and `origin`.
    pub(super) fn parked(&self, topic: &str, group: &str) -> String {
        format!("{}:~parked:{group}:{topic}", self.prefix)
    }
}
