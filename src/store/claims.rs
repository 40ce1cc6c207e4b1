//! Claims: which of several processes on one store carries out a piece of work.
//!
//! A *holder* is alive while it renews its lease. A *claim* names the holder of one piece of work of a subject; the first
//! one to claim it has it, and it can be taken over when the lease of its holder has ended.

use std::sync::Arc;
use std::time::Duration;

use crate::op::Op;

/// The result of [`Claims::claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The holder has it now, or had it already.
    Own,
    /// The holder has taken it over from one whose lease had ended.
    TakenOver,
    /// Another holder has it, or it is unclaimed and was not to be claimed.
    Other,
}

/// The claims of a store that several processes can open.
pub trait Claims: Send + Sync {
    /// Renews the lease of a holder. Returns the holders whose leases have ended.
    fn renew(&self, holder: &str, lease: Duration) -> Op<Vec<Arc<str>>>;
    /// Ends the lease of a holder. Its claims remain, and can be taken over.
    fn release(&self, holder: &str) -> Op<()>;
    /// Removes holders from those that [`Claims::renew`] returns, unless they are alive again.
    fn forget(&self, holders: &[Arc<str>]) -> Op<()>;
    /// Claims a piece of work. Unless `is_new`, only work that was claimed before.
    fn claim(&self, subject: &str, id: &str, holder: &str, is_new: bool) -> Op<Claim>;
    /// Returns the holder of a piece of work. None: it is unclaimed.
    fn holder_of(&self, subject: &str, id: &str) -> Op<Option<Arc<str>>>;
    /// Lets the claims of a subject expire soon: its work is over.
    fn expire(&self, subject: &str) -> Op<()>;
}
