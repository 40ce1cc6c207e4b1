//! Panics. A defect fails the call that it ends, with [`Code::Internal`](crate::error::Code::Internal), and the process goes on.
//!
//! The boundary and the connections run the work of a call through [`catch`] or [`catch_async`]. On other threads the panic
//! drops the completer of the call, which reports it ([`completion`](crate::op::completion)).

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

/// Runs `work`. A panic becomes an error.
pub(crate) fn catch<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::panicked()))
}

/// Resolves as `work` does. A panic becomes an error.
#[cfg(any(feature = "node", test))]
pub(crate) async fn catch_async<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    use futures_util::FutureExt as _;
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(Error::panicked()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn fails() -> Result<u32> {
        panic!("on purpose")
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_call_and_everything_else_is_as_it_was() {
        for caught in [catch(fails), catch_async(async { fails() }).await] {
            let error = caught.unwrap_err();
            assert_eq!(error.code(), Code::Internal);
            assert!(!error.is_retryable() && !error.is_maybe_applied(), "{error}");
        }
        assert_eq!(catch(|| Ok(1)).unwrap(), 1);
        assert_eq!(catch_async(async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(catch(|| Err::<u32, _>(Error::closed("the store"))).unwrap_err().code(), Code::Closed);
        assert_eq!(catch_async(async { Err::<u32, _>(Error::closed("it")) }).await.unwrap_err().code(), Code::Closed);
    }
}
