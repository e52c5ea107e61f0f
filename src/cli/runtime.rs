//! The runtime that commands which wait for something run in.

use std::future::Future;

/// Runs a command's future to its end on this thread, with actors and timers at hand.
pub fn block_on<F: Future>(future: F) -> F::Output {
    actix_rt::System::new().block_on(future)
}
