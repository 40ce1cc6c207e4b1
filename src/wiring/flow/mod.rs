//! Flow wiring.

pub mod definition;
pub mod reducer;
