//! Entries of an index as `index_read.lua` encodes them: one JSON array of ids, scores and lists of fields in turn. Lua's
//! encoder cannot distinguish an empty list from an empty object and writes `{}`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Ids with scores and fields.
pub(super) struct Page(pub(super) Vec<(String, String, Fields)>);

/// Fields of a hash with their texts.
pub(super) struct Fields(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = Page;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Page, A::Error> {
                let mut rows = Vec::new();
                while let Some(id) = seq.next_element()? {
                    match (seq.next_element()?, seq.next_element()?) {
                        (Some(score), Some(fields)) => rows.push((id, score, fields)),
                        _ => return Err(A::Error::custom("an entry is incomplete")),
                    }
                }
                Ok(Page(rows))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Page(Vec::new()))
            }
        }
        deserializer.deserialize_any(Rows)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of fields")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let (Some(name), Some(text)) = (seq.next_element()?, seq.next_element()?) {
                    fields.push((name, text));
                }
                Ok(Fields(fields))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Fields(Vec::new()))
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_whole_or_not_at_all() {
        let read = |text: &str| {
            let Page(rows) = serde_json::from_str(text).ok()?;
            Some(rows.into_iter().map(|(id, score, Fields(fields))| (id, score, fields)).collect::<Vec<_>>())
        };
        let field = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(read("{}"), Some(vec![]));
        assert_eq!(
            read(r#"["a","1.5",["x","\/\u0001"],"b","-inf",{}]"#),
            Some(vec![("a".into(), "1.5".into(), vec![field("x", "/\u{1}")]), ("b".into(), "-inf".into(), vec![])])
        );
        assert_eq!(read(r#"["a","1.5"]"#), None);
    }
}
