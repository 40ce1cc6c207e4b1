//! Places in an index and in a list of documents. A page that begins after the last row of the page before does not shift
//! while others write, as one at an offset does.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value;

use super::{DocQuery, compare_values};
use crate::json::{Object, at_path};

/// A place in an index: that of an entry, whether or not it is still there.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexPlace {
    /// The entry's score.
    pub score: f64,
    /// The entry's id.
    pub id: Arc<str>,
}

/// A place in a list of documents: that of a document, whether or not it is still there.
#[derive(Debug, Clone, PartialEq)]
pub struct DocPlace {
    /// The document's id.
    pub id: Arc<str>,
    /// What the documents are sorted by; null where it is missing. Unused if they are sorted by id.
    pub value: Value,
}

impl DocQuery {
    /// Returns whether a document comes after the place where the list begins.
    pub(super) fn is_after(&self, id: &str, document: &Object) -> bool {
        let Some(place) = &self.after else { return true };
        let directed = |order: Ordering| if self.descending { order.reverse() } else { order };
        let order = match &self.sort_by {
            None => directed(id.cmp(&place.id)),
            Some(path) => {
                let value = at_path(document, path).unwrap_or(&Value::Null);
                directed(compare_values(value, &place.value)).then_with(|| id.cmp(&place.id))
            }
        };
        order == Ordering::Greater
    }
}
