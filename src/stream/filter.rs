//! Filters on the type of messages.

use crate::error::{Error, Result};
use crate::topic::Glob;

/// A filter on the type of messages. A message without a type matches no filter.
#[derive(Debug, Clone)]
pub enum TypeFilter {
    /// The whole type matches the glob.
    Glob(Glob),
    /// The expression is found in the type.
    Regex(regex::Regex),
}

impl TypeFilter {
    /// Creates a filter from a glob.
    pub fn glob(pattern: &str) -> Self {
        Self::Glob(Glob::new(pattern))
    }

    /// Creates a filter from the source and flags of a JavaScript RegExp. Fails with [`crate::error::Code::Invalid`] for what
    /// the regex crate cannot do (look-around, back-references).
    pub fn regex(source: &str, flags: &str) -> Result<Self> {
        let mut builder = regex::RegexBuilder::new(source);
        for flag in flags.chars() {
            match flag {
                'i' => _ = builder.case_insensitive(true),
                's' => _ = builder.dot_matches_new_line(true),
                'm' => _ = builder.multi_line(true),
                // Global, sticky, unicode and indices change nothing for a test from the start.
                'g' | 'u' | 'v' | 'd' => {}
                other => {
                    return Err(Error::invalid(format!(
                        "options.filter: the RegExp flag {other:?} is not supported; i, s, m, g and u are"
                    )));
                }
            }
        }
        let regex = builder.build().map_err(|e| {
            Error::invalid(format!(
                "options.filter: /{source}/ cannot be matched natively (look-around and back-references are not supported): {e}"
            ))
        })?;
        Ok(Self::Regex(regex))
    }

    /// Returns whether a message of this type passes.
    pub fn matches(&self, kind: Option<&str>) -> bool {
        match (self, kind) {
            (_, None) => false,
            (Self::Glob(glob), Some(kind)) => glob.matches(kind),
            (Self::Regex(regex), Some(kind)) => regex.is_match(kind),
        }
    }
}
