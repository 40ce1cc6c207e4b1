//! The stream in memory: a broker inside the process, one per adapter.

mod backend;
mod config;
mod retained;

pub use backend::MemoryStream;
pub use config::{MemoryStreamOptions, Retain};
