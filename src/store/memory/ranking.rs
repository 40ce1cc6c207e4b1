//! What is in an index, in order: sorted chunks, so that a place in it costs a few comparisons, an insertion moves little,
//! and an offset is skipped by whole chunks.

use std::cmp::Ordering;

/// Size at which a chunk is split.
const CHUNK: usize = 512;

/// Sorted items. The comparison is given with each call, because items alone are not comparable.
#[derive(Debug)]
pub(super) struct Ranking<T> {
    /// None of them is empty.
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Ranking<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Copy> Ranking<T> {
    /// Returns the position of something: the chunk, and the place in it. `compare` compares an item with it.
    fn place(&self, compare: impl Fn(T) -> Ordering) -> (usize, usize) {
        let before = |item: &T| compare(*item) == Ordering::Less;
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(before));
        // What comes after everything belongs at the end of the last chunk.
        let chunk = chunk.min(self.chunks.len().saturating_sub(1));
        (chunk, self.chunks.get(chunk).map_or(0, |items| items.partition_point(before)))
    }

    pub(super) fn insert(&mut self, item: T, compare: impl Fn(T) -> Ordering) {
        let (at, place) = self.place(compare);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(vec![item]);
            return;
        };
        chunk.insert(place, item);
        if chunk.len() >= CHUNK {
            let upper = chunk.split_off(CHUNK / 2);
            self.chunks.insert(at + 1, upper);
        }
    }

    /// Removes the item that compares as equal.
    pub(super) fn remove(&mut self, compare: impl Fn(T) -> Ordering) {
        let (at, place) = self.place(&compare);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        if chunk.get(place).is_some_and(|item| compare(*item) == Ordering::Equal) {
            chunk.remove(place);
            if chunk.is_empty() {
                self.chunks.remove(at);
            }
        }
    }

    /// Iterates over what comes after something, whether or not it is there. `compare` compares an item with it.
    pub(super) fn iter_after(&self, compare: impl Fn(T) -> Ordering) -> impl Iterator<Item = T> + '_ {
        let (first, place) =
            self.place(|item| if compare(item) == Ordering::Greater { Ordering::Greater } else { Ordering::Less });
        self.chunks.get(first..).unwrap_or(&[]).iter().flatten().copied().skip(place)
    }

    /// Iterates from the given place.
    pub(super) fn iter_from(&self, offset: usize) -> impl Iterator<Item = T> + '_ {
        let (mut first, mut skip) = (0, offset);
        while let Some(chunk) = self.chunks.get(first)
            && chunk.len() <= skip
        {
            skip -= chunk.len();
            first += 1;
        }
        self.chunks.get(first..).unwrap_or(&[]).iter().flatten().copied().skip(skip)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ranking_is_as_a_sorted_set(steps in prop::collection::vec((any::<bool>(), 0_u16..2_000), 0..4_000), offset in 0_usize..2_500) {
            let (mut ranking, mut set) = (Ranking::default(), std::collections::BTreeSet::new());
            for (add, item) in steps {
                if add {
                    if set.insert(item) {
                        ranking.insert(item, |other: u16| other.cmp(&item));
                    }
                } else {
                    set.remove(&item);
                    ranking.remove(|other| other.cmp(&item));
                }
            }
            prop_assert!(ranking.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() < CHUNK));
            let after = u16::try_from(offset).unwrap_or(u16::MAX);
            prop_assert_eq!(
                ranking.iter_after(|other| other.cmp(&after)).collect::<Vec<_>>(),
                set.range(after + 1..).copied().collect::<Vec<_>>()
            );
            prop_assert_eq!(ranking.iter_from(offset).collect::<Vec<_>>(), set.into_iter().skip(offset).collect::<Vec<_>>());
        }
    }

    #[test]
    fn thousands_of_items_in_any_direction_are_cut_into_chunks() {
        for reverse in [false, true] {
            let mut ranking = Ranking::default();
            for n in 0..10_000_u32 {
                let item = if reverse { 10_000 - n } else { n };
                ranking.insert(item, |other: u32| other.cmp(&item));
            }
            assert!(ranking.iter_from(0).is_sorted());
            assert_eq!(ranking.iter_from(9_990).count(), 10);
            assert_eq!(ranking.iter_from(10_001).count(), 0);
        }
    }
}
