//! An index of patterns by what their topics begin with.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::topic::Glob;

/// Patterns of one literal beginning, with their values.
type Patterns<V> = BTreeMap<Arc<str>, (Glob, V)>;

/// Values by pattern. A lookup visits only the patterns whose literal beginning the topic shares, so that thousands of
/// patterns such as `run:<id>:*` cost what one does.
pub(super) struct PatternIndex<V> {
    by_prefix: BTreeMap<Box<[u8]>, Patterns<V>>,
}

impl<V> Default for PatternIndex<V> {
    fn default() -> Self {
        Self { by_prefix: BTreeMap::new() }
    }
}

impl<V: Default> PatternIndex<V> {
    /// Returns the value of a pattern, which is added if it is missing.
    pub(super) fn entry(&mut self, pattern: &Arc<str>) -> &mut V {
        let glob = Glob::new(pattern);
        let patterns = self.by_prefix.entry(glob.literal_prefix().as_bytes().into()).or_default();
        &mut patterns.entry(pattern.clone()).or_insert_with(|| (glob, V::default())).1
    }

    /// Returns the value of a pattern.
    pub(super) fn get(&self, pattern: &str) -> Option<&V> {
        let patterns = self.by_prefix.get(Glob::new(pattern).literal_prefix().as_bytes())?;
        patterns.get(pattern).map(|(_, value)| value)
    }

    /// Returns the value of a pattern, to be changed.
    pub(super) fn get_mut(&mut self, pattern: &str) -> Option<&mut V> {
        let patterns = self.by_prefix.get_mut(Glob::new(pattern).literal_prefix().as_bytes())?;
        patterns.get_mut(pattern).map(|(_, value)| value)
    }

    /// Removes a pattern.
    pub(super) fn remove(&mut self, pattern: &str) {
        let glob = Glob::new(pattern);
        let prefix = glob.literal_prefix().as_bytes();
        if let Some(patterns) = self.by_prefix.get_mut(prefix) {
            patterns.remove(pattern);
            if patterns.is_empty() {
                self.by_prefix.remove(prefix);
            }
        }
    }

    /// Calls `each` for the value of every pattern that matches a topic.
    pub(super) fn for_each_match(&self, topic: &str, mut each: impl FnMut(&V)) {
        let mut bound = topic.as_bytes();
        // The beginnings of the topic, longest first. A key between one of them and the topic shares less with the topic
        // than any that is left, so what it shares is the next bound.
        while let Some((prefix, patterns)) =
            self.by_prefix.range::<[u8], _>((Bound::Unbounded, Bound::Included(bound))).next_back()
        {
            if bound.starts_with(prefix) {
                for (glob, value) in patterns.values() {
                    if glob.matches(topic) {
                        each(value);
                    }
                }
                let Some(shorter) = prefix.len().checked_sub(1) else { break };
                bound = &bound[..shorter];
            } else {
                let shared = bound.iter().zip(prefix).take_while(|(a, b)| a == b).count();
                bound = &bound[..shared];
            }
        }
    }

    /// Returns every pattern and its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.by_prefix.values().flatten().map(|(pattern, (_, value))| (pattern, value))
    }

    /// Removes every pattern.
    pub(super) fn clear(&mut self) {
        self.by_prefix.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn finds_what_matching_every_pattern_finds() {
        let patterns = proptest::collection::vec("[ab:]{0,4}[*?\\[\\]^a]{0,2}[ab:]{0,2}", 0..24);
        proptest::proptest!(|(patterns in patterns, topic in "[ab:]{1,6}")| {
            let mut index: PatternIndex<Option<Arc<str>>> = PatternIndex::default();
            for pattern in &patterns {
                let pattern: Arc<str> = pattern.as_str().into();
                *index.entry(&pattern) = Some(pattern.clone());
            }
            let mut found = BTreeSet::new();
            index.for_each_match(&topic, |pattern| assert!(found.insert(pattern.clone().unwrap().to_string())));
            let expected: BTreeSet<_> = patterns.iter().filter(|pattern| Glob::new(pattern).matches(&topic)).cloned().collect();
            proptest::prop_assert_eq!(found, expected);
        });
    }

    #[test]
    fn a_removed_pattern_is_gone_and_its_neighbours_stay() {
        let mut index: PatternIndex<u32> = PatternIndex::default();
        for (pattern, value) in [("a:*", 1), ("a:?", 2), ("a:b:*", 3)] {
            *index.entry(&pattern.into()) = value;
        }
        index.remove("a:*");
        index.remove("a:unknown*");
        assert_eq!((index.get("a:*"), index.get("a:?"), index.iter().count()), (None, Some(&2), 2));
        let mut found = vec![];
        index.for_each_match("a:b:c", |value| found.push(*value));
        assert_eq!(found, [3]);
    }
}
