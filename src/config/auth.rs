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
        /// How long the QR code of a device that is to be linked is valid.
        /// `SOTTO_AUTH__LINK_TTL`
        pub link_ttl: Seconds = Seconds(300), within 2..=3_600;
        /// The name of this service in people's authenticator apps. Codes that were set up under another name stay valid.
        /// `SOTTO_AUTH__TOTP_ISSUER`
        pub totp_issuer: String = String::from("Sotto");
        /// Whether the addresses that people sign in from are kept, for themselves to see: in the trail of their account, the history of sign-ins, the list of their devices, and while a device is linked.
        /// `SOTTO_AUTH__KEEP_ADDRESSES`
        pub keep_addresses: bool = true;
        /// Days between asking for the deletion of an account and its deletion, in which any of its devices can cancel; 0: within a minute.
        /// `SOTTO_AUTH__DELETION_GRACE_DAYS`
        pub deletion_grace_days: u32 = 14, within 0..=365;
        /// Hours for which a new second factor can be undone by another device or by the PIN from before. While it can, other devices, number, PIN and account stay as they are. 0: never.
        /// `SOTTO_AUTH__SECOND_FACTOR_UNDO_HOURS`
        pub second_factor_undo_hours: u32 = 24, within 0..=168;
        /// Days for which an account keeps its number after the last contact of a device. Then whoever has the number can register it anew, which deletes the account.
        /// `SOTTO_AUTH__REGISTRATION_LOCK_DAYS`
        pub registration_lock_days: u32 = 7, within 1..=3_650;
        /// How long the history of sign-ins goes back, in days; 0 keeps none.
        /// `SOTTO_AUTH__LOGIN_HISTORY_DAYS`
        pub login_history_days: u32 = 180, within 0..=3_650;
    }
}
