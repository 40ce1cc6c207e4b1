//! How a backend tells that it is well, and what it counts.

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
