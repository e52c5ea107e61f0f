//! The configuration: one small struct per concern, read from a file, the environment and flags.
//!
//! Each field's row in `config/*.rs` is the one place that knows its meaning, default, bounds and variable; the
//! parser, `docs/configuration.md` and the default file are made from it. This module is the only one that reads
//! the process environment, and only in [`environment`].

mod check;
mod error;
mod reference;
mod section;
mod source;

pub mod auth;
pub mod challenge;
pub mod cluster;
pub mod data;
pub mod dev;
pub mod dialling;
pub mod drain;
pub mod http;
pub mod limits;
pub mod log;
pub mod network;
pub mod secret;
pub mod sms;
pub mod socket;
pub mod store;
pub mod url;
pub mod value;

use std::path::PathBuf;

pub use self::{
    error::{ConfigError, Problem},
    reference::{changed, default_file, reference},
    secret::Secret,
    section::{Section, Setting},
    source::Sources,
    url::Url,
};

/// Declares the configuration and where each of its sections is found by name.
macro_rules! configuration {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty;)+ find { $($name:literal => $($path:ident).+;)+ }) => {
        /// Everything that can be set. `Config::default()` runs on loopback with SQLite in `data/`.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Config {
            /// Every section, in the order of the documentation.
            #[must_use]
            pub fn sections(&self) -> Vec<&dyn Section> {
                vec![$(&self.$($path).+),+]
            }

            fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
                match name {
                    $($name => Some(&mut self.$($path).+),)+
                    _ => None,
                }
            }
        }
    };
}

configuration! {
    /// The listeners.
    http: http::Http;
    /// The node's folder.
    data: data::Data;
    /// The database.
    store: store::Store;
    /// Other nodes.
    cluster: cluster::Cluster;
    /// Text messages.
    sms: sms::Sms;
    /// Tokens and codes.
    auth: auth::Auth;
    /// Rate limits.
    limits: limits::Limits;
    /// Challenges for strangers who ask for codes.
    challenge: challenge::Challenge;
    /// Device sockets.
    socket: socket::Socket;
    /// Stopping.
    drain: drain::Drain;
    /// Logs.
    log: log::Log;
    /// Development.
    dev: dev::Dev;

    find {
        "http" => http;
        "data" => data;
        "store" => store;
        "cluster" => cluster;
        "sms" => sms;
        "sms.twilio" => sms.twilio;
        "auth" => auth;
        "limits" => limits;
        "challenge" => challenge;
        "socket" => socket;
        "drain" => drain;
        "log" => log;
        "dev" => dev;
    }
}

impl Config {
    /// Reads every source over the defaults and checks the whole.
    ///
    /// # Errors
    /// Names everything that is wrong, not only the first thing.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut problems = sources.read_into(&mut config);
        problems.extend(check::check(&config));
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// Checks a configuration that was made in code, as [`Config::load`] does.
    ///
    /// # Errors
    /// Names everything that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems = check::check(self);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// The database: `store.url`, or the file in `data.dir`.
    #[must_use]
    pub fn store_url(&self) -> Url {
        match &self.store.url {
            Some(url) => url.clone(),
            None => Url::new(format!("sqlite:{}", self.data.dir.join("sotto.db").display())),
        }
    }

    /// The key file: `auth.secret_key_file`, or the one in `data.dir`.
    #[must_use]
    pub fn secret_key_file(&self) -> PathBuf {
        self.auth.secret_key_file.clone().unwrap_or_else(|| self.data.dir.join("secret.key"))
    }

    /// The outbox: `sms.outbox`, or the one in `data.dir`.
    #[must_use]
    pub fn outbox(&self) -> PathBuf {
        self.sms.outbox.clone().unwrap_or_else(|| self.data.dir.join("outbox.jsonl"))
    }

    /// Whether what is meant for development may be used: nobody else can reach the server, or the operator insists.
    #[must_use]
    pub fn allows_development(&self) -> bool {
        self.http.is_private() || self.dev.insecure
    }

    /// What to tell loudly at the start, if the operator switched safety off.
    #[must_use]
    pub fn banner(&self) -> Option<&'static str> {
        if cfg!(feature = "planted-bugs") {
            return Some("this program has PLANTED BUGS, for tests of the ledger. It loses messages.");
        }
        self.dev.insecure.then_some(
            "dev.insecure is set: sign-in codes may be readable, limits may be off. Never let strangers reach this server.",
        )
    }

    fn keys(&self) -> Vec<String> {
        self.sections().into_iter().flat_map(Section::settings).map(|setting| setting.key()).collect()
    }

    fn has(&self, key: &str) -> bool {
        self.keys().iter().any(|known| known == key)
    }

    fn has_section(&self, name: &str) -> bool {
        self.sections().iter().any(|section| section.name() == name)
    }
}

/// The bug that this process is to have.
#[cfg(feature = "planted-bugs")]
#[must_use]
#[allow(clippy::disallowed_methods, reason = "a program that only tests build")]
pub fn planted_bug() -> Option<String> {
    std::env::var("PLANTED_BUG").ok()
}

/// The environment of this process, for [`Sources`]. Nobody else reads it.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}
