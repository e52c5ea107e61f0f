//! Who somebody is: codes, tokens, keys and their checks, second factors, secrets at rest.
//!
//! One noun per file. Most of them are pure: bytes and a moment come in, a verdict goes out. [`Identity`] joins them
//! with the database: `verifications`, `sign_in`, `second_factor`, `registration_lock`, `reauthentication`, `number`, `recovery`, `history`, `deletion`,
//! `export`, `session` and `directory` hold its methods. HTTP and the socket ask it and nobody else. Time comes in as a parameter everywhere.

pub mod access_token;
pub mod backup_code;
mod captcha;
mod challenge;
pub mod changes;
pub mod code;
mod deletion;
pub mod device_link;
pub mod device_proof;
mod devices;
mod directory;
pub mod export;
mod hashing;
pub mod history;
pub mod key_check;
pub mod network;
mod number;
pub mod phone;
pub mod pin;
mod proofs;
pub mod qr;
mod reauthentication;
mod recovery;
pub mod refresh_token;
mod registration_lock;
pub mod rotation;
pub mod sealed;
pub mod second_factor;
pub mod secret_key;
pub mod session;
mod sign_in;
pub mod sms;
mod spending;
mod stock;
mod sweep;
pub mod totp;
mod verifications;
pub mod xeddsa;

use std::fmt;
use std::sync::{Arc, Mutex};

use ring::rand::SystemRandom;
use sotto_protocol::Timestamp;
use sotto_schema::Store;

use self::challenge::Challenges;
use self::changes::Changes;
use self::history::History;
use self::secret_key::SecretKeys;
use self::session::Sessions;
use self::sms::Sms;
use self::spending::Spending;
use crate::config::Config;
use crate::config::auth::Auth;
use crate::config::limits::Limits;

/// Sign-in, sessions and the key directory of one node.
pub struct Identity {
    store: Store,
    keys: Arc<SecretKeys>,
    sms: Sms,
    changes: Arc<dyn Changes>,
    auth: Auth,
    limits: Limits,
    spending: Spending,
    challenges: Challenges,
    /// The node's name: the cap on codes is per node.
    node: String,
    random: SystemRandom,
    sessions: Sessions,
    links: device_link::Waiting,
    hashing: hashing::Hashing,
    heard: Mutex<sweep::Heard>,
    history: History,
    exports: export::Exports,
}

impl Identity {
    /// On a store whose schema is up to date. `node` names this node in its own counts.
    #[must_use]
    pub fn new(
        store: Store,
        keys: Arc<SecretKeys>,
        sms: Sms,
        changes: Arc<dyn Changes>,
        config: &Config,
        node: impl Into<String>,
    ) -> Self {
        Self {
            store,
            keys,
            sms,
            changes,
            auth: config.auth.clone(),
            limits: config.limits.clone(),
            spending: Spending::new(&config.sms),
            challenges: Challenges::new(&config.challenge),
            node: node.into(),
            random: SystemRandom::new(),
            sessions: Sessions::default(),
            links: device_link::Waiting::default(),
            hashing: hashing::Hashing::default(),
            heard: Mutex::new(sweep::Heard::since(Timestamp::now())),
            history: History::default(),
            exports: export::Exports::default(),
        }
    }

    /// The server's own keys, for cursors and secrets in columns.
    #[must_use]
    pub fn secret_keys(&self) -> &Arc<SecretKeys> {
        &self.keys
    }

    /// The carrier of codes, to be drained when the server stops.
    #[must_use]
    pub fn sms(&self) -> &Sms {
        &self.sms
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("node", &self.node).finish_non_exhaustive()
    }
}
