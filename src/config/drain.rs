//! How a node takes its leave.

use super::{section::section, value::Seconds};

section! {
    /// Stopping in order.
    pub struct Drain in "drain" {
        /// How long the node goes on serving after `/readyz` has turned red, so that a load balancer takes it out before its sockets close. Give as much as the balancer needs to notice: its interval times the failures that it wants to see.
        /// `SOTTO_DRAIN__NOTICE`
        pub notice: Seconds = Seconds(0), within 0..=3_600;
        /// How long SIGTERM waits for sockets and requests to end before the program exits 0. A second signal exits at once.
        /// `SOTTO_DRAIN__TIMEOUT`
        pub timeout: Seconds = Seconds(10), within 0..=3_600;
    }
}
