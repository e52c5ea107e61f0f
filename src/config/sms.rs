//! How sign-in codes reach a telephone.

use std::path::PathBuf;

use super::{
    dialling::{Prefix, Price},
    secret::Secret,
    section::section,
    url::Url,
    value::{Seconds, words},
};

words! {
    /// Who carries a code to the user.
    pub enum Sender as "`log`, `outbox` or `twilio`" {
        /// The server's log; for development.
        Log = "log",
        /// A file of JSON lines; for development and tests.
        Outbox = "outbox",
        /// Twilio's HTTP API.
        Twilio = "twilio",
    }
}

section! {
    /// Text messages with sign-in codes.
    pub struct Sms in "sms" {
        /// `log` writes codes to the server's log, `outbox` appends JSON lines to a file, `twilio` sends them. The first two work only on loopback or with `dev.insecure`.
        /// `SOTTO_SMS__SENDER`
        pub sender: Sender = Sender::Log;
        /// File of the sender `outbox`: one line `{"at","to","body","code"}` per message, on disk before the answer. Unset: `outbox.jsonl` in `data.dir`.
        /// `SOTTO_SMS__OUTBOX`
        pub outbox: Option<PathBuf> = None, unset means "data/outbox.jsonl";
        /// Beginnings of the numbers that codes go to, as `+41`. Empty: all numbers.
        /// `SOTTO_SMS__COUNTRIES`
        pub countries: Vec<Prefix> = Vec::new();
        /// What a message costs by the beginning of its number, as `+41=8`; the longest that fits counts, and 1 where none does. The unit is yours.
        /// `SOTTO_SMS__PRICES`
        pub prices: Vec<Price> = Vec::new();
        /// Units that text messages may cost in an hour, over all nodes, each code that is asked for counted as if it were sent; a quarter of it is kept for purposes that need an account, an eighth for signed-in devices and known networks, which take half at most, and one range of numbers (the first four digits) takes a quarter at most. Counted in the database; without it no code is sent.
        /// `SOTTO_SMS__BUDGET_PER_HOUR`
        pub budget_per_hour: u32 = 1_000, within 4..=20_000;
    }
    with {
        /// The account at Twilio.
        pub twilio: Twilio;
    }
}

section! {
    /// The account at Twilio; needed by `sms.sender = "twilio"` alone.
    pub struct Twilio in "sms.twilio" {
        /// The account's SID, `AC…`.
        /// `SOTTO_SMS__TWILIO__ACCOUNT_SID`
        pub account_sid: Option<String> = None;
        /// The account's token; better from a file, by `SOTTO_SMS__TWILIO__AUTH_TOKEN_FILE`.
        /// `SOTTO_SMS__TWILIO__AUTH_TOKEN`
        pub auth_token: Option<Secret> = None;
        /// The number (E.164) or messaging service (`MG…`) that sends.
        /// `SOTTO_SMS__TWILIO__FROM`
        pub from: Option<String> = None;
        /// Where the API is, for a proxy or a test.
        /// `SOTTO_SMS__TWILIO__BASE_URL`
        pub base_url: Url = Url::new("https://api.twilio.com");
        /// How long one call may take.
        /// `SOTTO_SMS__TWILIO__TIMEOUT`
        pub timeout: Seconds = Seconds(10), within 1..=120;
    }
}
