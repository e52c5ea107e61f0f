//! The life of a device's socket: its pulse and its patience.

use super::{
    section::section,
    value::{Millis, Seconds},
};

section! {
    /// Device sockets.
    pub struct Socket in "socket" {
        /// How often the server pings; told to clients in `welcome`. Twice as long without a sign of life ends the socket with 4408.
        /// `SOTTO_SOCKET__HEARTBEAT_MS`
        pub heartbeat_ms: Millis = Millis(30_000), within 10..=600_000;
        /// How long a new socket may take to say `hello`; then it is closed with 4408.
        /// `SOTTO_SOCKET__HELLO_TIMEOUT`
        pub hello_timeout: Seconds = Seconds(10), within 1..=600;
        /// How long a device may acknowledge nothing while something is due; then it is closed with 4421.
        /// `SOTTO_SOCKET__ACK_TIMEOUT`
        pub ack_timeout: Seconds = Seconds(60), within 1..=3_600;
    }
}
