//! Every key and channel of the Redis store, in one place.
//!
//! Subjects, kv keys and index keys are used as given: callers include the prefix, as with nvent's own adapters. The
//! store's prefix applies only to keys that nvent's adapters do not have. None of these is a string, so `kv.clear`, which
//! deletes strings only, cannot match them.

use crate::error::{Error, Result};

/// Separates an index from the id of an entry in the key of the entry's metadata.
const META: &str = ":meta:";

/// The names of one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Checks that a subject, kv key or index key is none of the store's own keys. `what` names it in the error.
    pub(super) fn check(&self, what: &str, name: &str) -> Result<()> {
        if name.strip_prefix(&*self.prefix).is_some_and(|rest| rest.starts_with(":~")) {
            return Err(Error::invalid(format!(
                "{what}: {name:?} is reserved: names that begin with \"{}:~\" are keys of the store itself",
                self.prefix
            )));
        }
        Ok(())
    }

    /// Checks the key of an index that is written to. `<index>:meta:<id>` is split at its first `:meta:`, so an index
    /// whose own key contains that would share metadata with another index.
    pub(super) fn check_index(&self, key: &str) -> Result<()> {
        self.check("key", key)?;
        if Self::meta(key, "").find(META) != Some(key.len()) {
            return Err(Error::invalid(format!(
                "key: {key:?} is ambiguous: \"{META}\" separates an index from its entries in Redis, so the key of an index \
                 contains no \"{META}\" and does not end in \":meta\": use another key"
            )));
        }
        Ok(())
    }

    /// Returns the key of the hash with the metadata of an index entry, as in nvent's layout.
    pub(super) fn meta(index: &str, id: &str) -> String {
        format!("{index}{META}{id}")
    }

    /// Returns the key of the hash that keeps the last id of a deleted subject for a day, so that later ids are greater.
    pub(super) fn deleted(&self, subject: &str) -> String {
        format!("{}:~deleted:{subject}", self.prefix)
    }

    /// Returns the key of the hash with the documents of a collection.
    pub(super) fn documents(&self, collection: &str) -> String {
        format!("{}:~documents:{collection}", self.prefix)
    }

    /// Returns the key of the set with the kv keys that native instances wrote.
    pub(super) fn kv(&self) -> String {
        format!("{}:~kv", self.prefix)
    }

    /// Returns the key of the stream that is the feed. An entry has the subject `s`, the id `i` and the type `t` of an event.
    pub(super) fn feed(&self) -> String {
        format!("{}:~feed", self.prefix)
    }

    /// Returns the key of the hash with the number of entries that the feed ever had (`n`), and the state of
    /// `feed_adopt.lua`.
    pub(super) fn feed_state(&self) -> String {
        format!("{}:~feed:state", self.prefix)
    }

    /// Returns the key of the hash with the last adopted id of each subject that other writers append to.
    pub(super) fn adopted(&self) -> String {
        format!("{}:~feed:adopted", self.prefix)
    }

    /// Returns the key of the hash with the holder of each piece of work of a subject.
    pub(super) fn claims(&self, subject: &str) -> String {
        format!("{}:~claims:{subject}", self.prefix)
    }

    /// Returns the key of the sorted set with the time when the lease of each holder of claims ends, in Unix ms.
    pub(super) fn holders(&self) -> String {
        format!("{}:~holders", self.prefix)
    }

    /// Returns the key of the hash with the positions of consumers by name.
    pub(super) fn consumers(&self) -> String {
        format!("{}:~consumers", self.prefix)
    }

    /// Returns the key of the hash with the holder of the lease of a consumer, and when it ends.
    pub(super) fn lease(&self, consumer: &str) -> String {
        format!("{}:~consumer:lease:{consumer}", self.prefix)
    }

    /// Returns the key of the sorted set with the positions of a consumer's parked events by their number.
    pub(super) fn parked_positions(&self, consumer: &str) -> String {
        format!("{}:~consumer:parked:{consumer}", self.prefix)
    }

    /// Returns the key of the set with the positions of a consumer's parked events that are to be delivered again.
    pub(super) fn replays(&self, consumer: &str) -> String {
        format!("{}:~consumer:replay:{consumer}", self.prefix)
    }

    /// Returns the key of the hash with a consumer's parked events by position, as JSON.
    pub(super) fn parked_events(&self, consumer: &str) -> String {
        format!("{}:~consumer:events:{consumer}", self.prefix)
    }

    /// Returns the name of the channel that announces appends to all subjects. A message is the position and the text of
    /// an entry of the feed, empty where the feed has to be read, or `released` where the lease of a consumer was released.
    pub(super) fn appended(&self) -> String {
        format!("{}:~appended", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_key_of_the_store_is_another_or_a_name_of_a_caller() {
        let keys = Keys::new("p");
        let all = [
            keys.deleted("x"),
            keys.documents("x"),
            keys.kv(),
            keys.feed(),
            keys.feed_state(),
            keys.adopted(),
            keys.claims("x"),
            keys.holders(),
            keys.consumers(),
            keys.lease("x"),
            keys.parked_positions("x"),
            keys.replays("x"),
            keys.parked_events("x"),
            keys.appended(),
        ];
        assert_eq!(BTreeSet::from_iter(&all).len(), all.len());
        for key in &all {
            assert!(keys.check("key", key).unwrap_err().message().contains("p:~"), "{key}");
        }
        for name in ["p", "p:x", "p~", "~kv", "x:p:~kv", ":~p"] {
            keys.check("key", name).unwrap();
        }
    }

    #[test]
    fn the_key_of_an_index_does_not_look_like_that_of_an_entry() {
        let keys = Keys::new("p");
        for name in ["a:meta:b", "a:meta", "p:~kv"] {
            assert!(keys.check_index(name).is_err(), "{name}");
        }
        for name in ["a", "a:metadata", "meta:a", "a:met"] {
            keys.check_index(name).unwrap();
        }
    }
}
