//! Places in an index and in a list of documents. A page that begins after the last row of the page before does not shift
//! while others write, as one at an offset does.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{DocQuery, compare_values};
use crate::json::{Filter, Object, at_path};

/// A place in an index: that of an entry, whether or not it is still there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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

/// A list of documents as an application asks for it. What its cursor counts depends on what it is sorted by.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct ListOptions {
    cursor: Option<DocCursor>,
    filter: Filter,
    offset: usize,
    limit: Option<usize>,
    sort_by: Option<String>,
    #[serde(deserialize_with = "is_descending")]
    order: bool,
}

#[derive(Deserialize)]
struct DocCursor {
    id: Arc<str>,
    #[serde(default)]
    doc: Object,
}

impl From<ListOptions> for DocQuery {
    fn from(ListOptions { cursor, filter, offset, limit, sort_by, order }: ListOptions) -> Self {
        let value = |doc: &Object| sort_by.as_deref().and_then(|path| at_path(doc, path)).cloned().unwrap_or_default();
        let after = cursor.map(|cursor| DocPlace { value: value(&cursor.doc), id: cursor.id });
        Self { filter, after, offset, limit, sort_by, descending: order }
    }
}

/// Reads `asc` or `desc`.
pub(super) fn is_descending<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Order {
        Asc,
        Desc,
    }
    Ok(matches!(Order::deserialize(deserializer)?, Order::Desc))
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
