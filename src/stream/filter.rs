//! Filters on the type of messages.

use serde::Deserialize;

use super::regexp::RegExp;
use crate::error::Result;
use crate::topic::Glob;

/// A filter on the type of messages. A message without a type matches no filter.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Given")]
pub struct TypeFilter(Kind);

/// A filter as an application gives it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Glob(String),
    RegExp { source: String, flags: String },
}

impl TryFrom<Given> for TypeFilter {
    type Error = String;

    fn try_from(given: Given) -> std::result::Result<Self, String> {
        match given {
            Given::Glob(pattern) => Ok(Self::glob(&pattern)),
            Given::RegExp { source, flags } => Self::regex(&source, &flags).map_err(|e| e.message().to_owned()),
        }
    }
}

#[derive(Debug, Clone)]
enum Kind {
    /// The whole type matches the glob.
    Glob(Glob),
    /// The expression is found in the type.
    RegExp(RegExp),
}

impl TypeFilter {
    /// Creates a filter from a glob.
    pub fn glob(pattern: &str) -> Self {
        Self(Kind::Glob(Glob::new(pattern)))
    }

    /// Creates a filter from the source and flags of a JavaScript RegExp, with the meaning that it has there. Fails with
    /// [`crate::error::Code::Invalid`] for what cannot be matched in linear time (look-around, back-references).
    pub fn regex(source: &str, flags: &str) -> Result<Self> {
        Ok(Self(Kind::RegExp(RegExp::new(source, flags)?)))
    }

    /// Returns whether a message of this type passes.
    pub fn matches(&self, kind: Option<&str>) -> bool {
        match (&self.0, kind) {
            (_, None) => false,
            (Kind::Glob(glob), Some(kind)) => glob.matches(kind),
            (Kind::RegExp(regex), Some(kind)) => regex.is_match(kind),
        }
    }
}
