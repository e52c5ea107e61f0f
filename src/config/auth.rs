//! Tokens, codes and the keys behind them.

use std::path::PathBuf;

use super::{section::section, value::Seconds};

section! {
    /// Signing in and staying signed in.
    pub struct Auth in "auth" {
        /// Signing and encryption keys, made at the first start (mode 0600). One that others can read is refused. Unset: `secret.key` in `data.dir`.
        /// `SOTTO_AUTH__SECRET_KEY_FILE`
        pub secret_key_file: Option<PathBuf> = None, unset means "data/secret.key";
        /// How long an access token is valid.
        /// `SOTTO_AUTH__ACCESS_TTL`
        pub access_ttl: Seconds = Seconds(1_800), within 1..=86_400;
        /// How long a refresh token is valid; each use gives a new one.
        /// `SOTTO_AUTH__REFRESH_TTL`
        pub refresh_ttl: Seconds = Seconds(604_800), within 60..=31_536_000;
        /// Days without contact after which a device is removed.
        /// `SOTTO_AUTH__DEVICE_INACTIVE_DAYS`
        pub device_inactive_days: u32 = 45, within 1..=3_650;
        /// How long a code from a text message is valid.
        /// `SOTTO_AUTH__CODE_TTL`
        pub code_ttl: Seconds = Seconds(600), within 30..=3_600;
        /// How long to wait before the same number is sent another code for the same purpose (`resend_at`).
        /// `SOTTO_AUTH__RESEND_DELAY`
        pub resend_delay: Seconds = Seconds(60), within 0..=3_600;
    }
}
