//! What strangers must do for a code when much of a budget is used.

use super::{
    secret::Secret,
    section::section,
    url::Url,
    value::{Seconds, words},
};

words! {
    /// What is demanded.
    pub enum Kind as "`none`, `proof_of_work` or `captcha`" {
        /// Nothing.
        None = "none",
        /// A computation that takes the device some time.
        ProofOfWork = "proof_of_work",
        /// An answer that a captcha service confirms.
        Captcha = "captcha",
    }
}

section! {
    /// Challenges for strangers who ask for codes. One is demanded above half of a budget: of a network, a block or range of numbers, this node, or all text messages.
    pub struct Challenge in "challenge" {
        /// `proof_of_work` takes the device some computation, `captcha` asks a service, `none` demands nothing.
        /// `SOTTO_CHALLENGE__KIND`
        pub kind: Kind = Kind::ProofOfWork;
        /// Leading zero bits that a proof of work needs at half of a budget; up to 4 more as it fills. Each bit doubles the work.
        /// `SOTTO_CHALLENGE__DIFFICULTY`
        pub difficulty: u32 = 18, within 1..=28;
        /// How long a proof of work may take.
        /// `SOTTO_CHALLENGE__VALID_FOR`
        pub valid_for: Seconds = Seconds(300), within 1..=3_600;
        /// Where the captcha service confirms answers, as `https://challenges.cloudflare.com/turnstile/v0/siteverify`: it is sent `secret`, `response` and `remoteip` as a form, and answers JSON with `success`.
        /// `SOTTO_CHALLENGE__CAPTCHA_URL`
        pub captcha_url: Option<Url> = None;
        /// The secret at the captcha service; better from a file, by `SOTTO_CHALLENGE__CAPTCHA_SECRET_FILE`.
        /// `SOTTO_CHALLENGE__CAPTCHA_SECRET`
        pub captcha_secret: Option<Secret> = None;
        /// The site key at the captcha service, which clients are told.
        /// `SOTTO_CHALLENGE__CAPTCHA_SITE_KEY`
        pub captcha_site_key: Option<String> = None;
        /// How long one call to the captcha service may take.
        /// `SOTTO_CHALLENGE__CAPTCHA_TIMEOUT`
        pub captcha_timeout: Seconds = Seconds(5), within 1..=60;
    }
}
