//! Flow wiring: what it persists, triggers and ends, and what it does when its parts fail.

mod faults;
mod process;
mod runs;
mod support;
