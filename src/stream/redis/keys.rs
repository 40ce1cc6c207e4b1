//! All keys of the Redis stream. Channels are named like topics, as with nvent's own adapter; the prefix names only what
//! that adapter does not have. None of the keys holds a string, so `kv.clear` of a store cannot remove one.

/// The keys that begin with one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Returns the key of the stream with the retained messages of a topic. `message` is the event, `origin` who published
    /// it, `n` its number there, `s` its number in the topic.
    pub(super) fn retained(&self, topic: &str) -> String {
        format!("{}:~retained:{topic}", self.prefix)
    }

    /// Returns the prefix of every key of [`Keys::retained`].
    pub(super) fn retained_prefix(&self) -> String {
        self.retained("")
    }

    /// Returns the name of the channel that carries gaps of topics to the subscribers of all processes.
    pub(super) fn gaps(&self) -> String {
        format!("{}:~gaps", self.prefix)
    }

    /// Returns the key of the set with the topics that have retained messages.
    pub(super) fn topics(&self) -> String {
        format!("{}:~topics", self.prefix)
    }

    /// Returns the key of the hash with the number of the last message, by topic.
    pub(super) fn sequence(&self) -> String {
        format!("{}:~sequence", self.prefix)
    }

    /// Returns the key of the hash with the number of messages of a topic that each group missed by trimming.
    pub(super) fn trimmed(&self, topic: &str) -> String {
        format!("{}:~trimmed:{topic}", self.prefix)
    }

    /// Returns the key of the stream with the messages that a group has parked: `id`, `deliveries`, `message` and `origin`.
    pub(super) fn parked(&self, topic: &str, group: &str) -> String {
        // Colons of the group are escaped, so that no other group and topic have the same key.
        let group = group.replace('%', "%25").replace(':', "%3A");
        format!("{}:~parked:{group}:{topic}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_groups_and_topics_share_a_key() {
        let keys = Keys::new("nvent");
        assert_eq!(keys.parked("jobs:mail", "g"), "nvent:~parked:g:jobs:mail");
        assert_ne!(keys.parked("c", "a:b"), keys.parked("b:c", "a"));
        assert_ne!(keys.parked("t", "a:b"), keys.parked("t", "a%3Ab"));
    }
}
