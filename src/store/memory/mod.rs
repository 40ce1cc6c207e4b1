//! The memory store. It has no options, and nothing outlives it.
//!
//! | file | what it does |
//! |---|---|
//! | `backend` | the contract of stores |
//! | `state` | what the store holds: subjects, the feed, consumers, keys, documents |
//! | `index` | one index: entries by id, in the order of their scores, with columns for filters |
//! | `column` | the values of one field, for filters |
//! | `ranking` | a sorted list with fast access by position |

mod backend;
mod column;
mod index;
mod ranking;
mod state;

pub use backend::MemoryStore;
