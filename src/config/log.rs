//! What is logged, and how it looks.

use super::{section::section, value::words};

words! {
    /// The shape of a log line.
    pub enum Format as "`pretty` or `json`" {
        /// For people.
        Pretty = "pretty",
        /// One JSON object per line, for machines.
        Json = "json",
    }
}

section! {
    /// Logs go to standard error. No secret, telephone number or ciphertext is in them; the sender `log` of `sms.sender` is the exception that development asks for.
    pub struct Log in "log" {
        /// `pretty` for people, `json` for machines.
        /// `SOTTO_LOG__FORMAT`
        pub format: Format = Format::Pretty;
        /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,sotto_actors=debug`. Libraries log at `debug` and `trace` only if the filter names them; `tokio_postgres` and `rustls` then log secrets.
        /// `SOTTO_LOG__LEVEL`
        pub level: String = String::from("info");
    }
}
