//! The health and the counters of a backend.

use serde::Serialize;

/// Whether a backend is usable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// Whether calls can be expected to succeed.
    pub ok: bool,
    /// More for people, never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Named counters and gauges of a backend.
pub type Stats = Vec<(&'static str, f64)>;
