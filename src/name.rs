//! Names that were checked: what has one of these types is not empty and not longer than its limit.
//!
//! Each is a borrowed text, as [`std::path::Path`] is: `Subject::new("orders")?` gives a `&Subject`, which can be used
//! wherever a `&str` is expected. They are made where names enter the crate, so that nothing behind has to check again.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ref_cast::RefCast;

use crate::error::{Error, Result};
use crate::topic::check_name;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $argument:literal, $check:path;)*) => {$(
        $(#[$doc])*
        #[derive(RefCast, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(transparent)]
        pub struct $name(str);

        impl $name {
            #[doc = concat!("Checks a name that was given as the argument `", $argument, "`.")]
            pub fn new(text: &str) -> Result<&Self> {
                Self::named($argument, text)
            }

            /// Checks a name that was given as this argument, which an error names.
            pub fn named<'a>(argument: &str, text: &'a str) -> Result<&'a Self> {
                $check(argument, text)?;
                Ok(Self::ref_cast(text))
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl<'a> TryFrom<&'a str> for &'a $name {
            type Error = Error;

            fn try_from(text: &'a str) -> Result<Self> {
                $name::new(text)
            }
        }

        impl From<&$name> for Arc<str> {
            fn from(name: &$name) -> Self {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

/// Checks the name and the depth of a dotted path.
fn check_field(argument: &str, path: &str) -> Result<()> {
    check_name(argument, path)?;
    crate::json::check_path(argument, path)
}

names! {
    /// Under which a store keeps a log of events.
    Subject: "subject", check_name;
    /// Of a value, or of an index.
    Key: "key", check_name;
    /// Of an entry in an index.
    EntryId: "id", check_name;
    /// A set of documents.
    Collection: "collection", check_name;
    /// Of a document in a collection.
    DocId: "id", check_name;
    /// A field in an object, or with dots a field in objects inside it.
    FieldPath: "field", check_field;
    /// Of a durable consumer.
    ConsumerName: "name", check_name;
    /// A glob that names are matched with; a plain name matches itself.
    Pattern: "pattern", check_name;
    /// Where a stream delivers messages.
    Topic: "topic", check_name;
    /// Subscribers of a topic that share its messages.
    Group: "group", check_name;
}

/// Returns `; did you mean …? (known: …)`, with the known name that a wrong one most resembles, if one is near.
pub fn did_you_mean(wrong: &str, known: &[&str]) -> String {
    let distance = |name: &&str| strsim::levenshtein(&wrong.to_lowercase(), &name.to_lowercase());
    let nearest = known.iter().copied().min_by_key(distance);
    let near = nearest.filter(|name| distance(name) <= (wrong.chars().count() / 3).max(2));
    let hint = near.map_or(String::new(), |name| format!("; did you mean {name:?}?"));
    format!("{hint} (known: {})", known.join(", "))
}

/// Returns whether two names differ by at most two edits, so that one may be a misspelling of the other.
pub fn is_near(a: &str, b: &str) -> bool {
    a.len().abs_diff(b.len()) <= 8 && a.len() <= 800 && strsim::levenshtein(&a.to_lowercase(), &b.to_lowercase()) <= 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::MAX_NAME_BYTES;

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest_one() {
        assert_eq!(
            did_you_mean("atempts", &["attempts", "delay"]),
            "; did you mean \"attempts\"? (known: attempts, delay)"
        );
        assert_eq!(did_you_mean("DELAY", &["attempts", "delay"]), "; did you mean \"delay\"? (known: attempts, delay)");
        assert_eq!(did_you_mean("zzzzzz", &["attempts", "delay"]), " (known: attempts, delay)");
        assert!(is_near("order.payd", "order.paid") && !is_near("paid", "order.paid"));
    }

    #[test]
    fn a_name_is_neither_empty_nor_endless_and_the_error_says_which_argument_it_was() {
        assert_eq!(&**Subject::new("orders").unwrap(), "orders");
        let message = |result: Result<&Key>| result.unwrap_err().to_string();
        assert!(message(Key::new("")).starts_with("key: "));
        assert!(FieldPath::new(&["x"; 600].join(".")).is_err() && FieldPath::new(&["x"; 100].join(".")).is_ok());
        assert!(Key::new(&"x".repeat(MAX_NAME_BYTES)).is_ok());
        let longer = "x".repeat(MAX_NAME_BYTES + 1);
        assert!(message(Key::named("options.key", &longer)).starts_with("options.key: "));
    }
}
