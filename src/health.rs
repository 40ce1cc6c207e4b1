//! The health and the counters of a backend.

/// Whether a backend is usable.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Whether calls can be expected to succeed.
    pub ok: bool,
    /// More for people, never a secret.
    pub detail: Option<String>,
}

/// Named counters and gauges of a backend.
pub type Stats = Vec<(&'static str, f64)>;
