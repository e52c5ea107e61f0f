//! How a node takes its leave.

use super::{section::section, value::Seconds};

section! {
    /// Stopping in order.
    pub struct Drain in "drain" {
        /// How long SIGTERM waits for sockets and requests to end before the program exits 0. A second signal exits at once.
        /// `SOTTO_DRAIN__TIMEOUT`
        pub timeout: Seconds = Seconds(10), within 0..=3_600;
    }
}
