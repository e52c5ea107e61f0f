//! Switches for development, which a reachable server must not have.

use super::section::section;

section! {
    /// Development and load tests.
    pub struct Dev in "dev" {
        /// Lets a server that others can reach use what is meant for development: the senders `log` and `outbox`, `limits.enabled = false`, `dev.echo` and `user seed`. It prints a banner and shows in `/health`.
        /// `SOTTO_DEV__INSECURE`
        pub insecure: bool = false;
        /// Serves the echo route, which load tests measure the transport with.
        /// `SOTTO_DEV__ECHO`
        pub echo: bool = false;
    }
}
