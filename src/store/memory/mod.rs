//! The memory store. It has no options, and nothing outlives it.
//!
//! | file | what it does |
//! |---|---|
//! | `backend` | the contract of stores |
//! | `index` | one index: entries by id, in the order of their scores, with columns for filters |
//! | `ranking` | a sorted list with fast access by position |

mod backend;
mod column;
mod index;
mod ranking;

pub use backend::MemoryStore;
