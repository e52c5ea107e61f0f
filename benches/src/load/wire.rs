//! The wire: how a connection speaks to a kind of server, as bytes in and bytes out.
//!
//! A [`Wire`] does no I/O and knows no time. The generator owns the TCP connection: it hands over what was read and
//! writes what the wire has put into `out`. Another kind of server is another implementation in `wire/`, a variant of
//! [`Protocol`], and an arm of [`Protocol::wire`]; scenarios and ledger stay as they are.
//!
//! The life of a wire: [`Wire::open`] once TCP is connected, [`Event::Ready`] and [`Event::Drained`] when it is signed
//! in and has its backlog; then [`Wire::send`], events and [`Wire::acknowledge`] in any order; at last [`Wire::close`].

mod http;
mod json;
mod rest;
mod sotto;
mod websocket;
mod xml;
mod xmpp;

use std::borrow::Cow;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::name::Name;
use super::users::User;

/// What a connection tells the generator. Counts are those of [`Name`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Signed in.
    Ready,
    /// What had waited for this device has come; what follows is live. A server without this notion: right after `Ready`.
    Drained,
    /// A message of this device is stored.
    Answered {
        /// Which one.
        count: u32,
        /// Its number in the conversation, where the server numbers.
        seq: Option<u64>,
        /// The server says that it had it already.
        is_duplicate: bool,
    },
    /// A request of this device was refused.
    Refused {
        /// Which message; none: another request, or none at all.
        count: Option<u32>,
        /// The server's stable code.
        code: Cow<'static, str>,
        /// When it may be asked again.
        retry_after_ms: Option<u64>,
        /// Whether it may have been stored in spite of it.
        is_unknown: bool,
    },
    /// A message came.
    Delivered {
        /// The connection's number of this event, from 1, one more each time. A wire without such numbers counts itself.
        n: u64,
        /// What it is; none: its id was made elsewhere.
        name: Option<Name>,
        /// Its number in the conversation, where the server numbers.
        seq: Option<u64>,
        /// The number of the one before it on this connection, where the server tells.
        after: Option<u64>,
    },
    /// Something durable that is no message: it only wants to be acknowledged.
    Noted {
        /// As in [`Event::Delivered`].
        n: u64,
    },
    /// Everything up to this event is acknowledged durably.
    Acked {
        /// As in [`Event::Delivered`].
        n: u64,
    },
    /// The server ends the connection.
    Closed {
        /// Its code, 0 for none.
        code: u16,
    },
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The server did not take the connection.
    #[error("refused with {status} {code}")]
    Upgrade {
        /// HTTP's status, or what the protocol has in its place.
        status: String,
        /// A stable code, or nothing.
        code: String,
    },
    /// What came is not the protocol.
    #[error("{0}")]
    Strange(String),
}

/// A connection of one device, without the connection.
pub trait Wire {
    /// TCP is connected: the first bytes.
    fn open(&mut self, out: &mut Vec<u8>);

    /// Takes in what was read and tells what it means; the number of bytes that were used. What is left comes again,
    /// with more behind it. Answers that the protocol itself wants (pongs, the sign-in's next step) go to `out`.
    ///
    /// # Errors
    /// When the connection is of no more use.
    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> Result<usize, WireError>;

    /// Sends a message with `size` bytes of ciphertext to all other members of the device's conversation. `millis` is
    /// the time since 1970, for its id.
    fn send(&mut self, name: Name, size: usize, millis: u64, out: &mut Vec<u8>);

    /// Acknowledges every event up to `n`. A protocol without acknowledgements must report [`Event::Acked`] from the
    /// next [`Wire::receive`] or leave `n` in [`Event::Delivered`] at 0, which the generator does not acknowledge.
    fn acknowledge(&mut self, n: u64, out: &mut Vec<u8>);

    /// Tells that the user is writing, or has stopped; nothing where the protocol has no such thing.
    fn typing(&mut self, _is_started: bool, _out: &mut Vec<u8>) {}

    /// Tells that the user has read up to this number; nothing where the protocol has no such thing.
    fn read(&mut self, _seq: u64, _out: &mut Vec<u8>) {}

    /// Says goodbye.
    fn close(&mut self, out: &mut Vec<u8>);
}

/// A kind of server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Sotto's own, and whoever speaks it.
    #[default]
    Sotto,
    /// XMPP over plain TCP, for servers that are measured beside it: a user's id is a JID, the token a password.
    Xmpp,
}

impl Protocol {
    /// As it is written in settings and summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sotto => "sotto",
            Self::Xmpp => "xmpp",
        }
    }

    /// `HOST:PORT` of an address; none: it is not of the right form.
    #[must_use]
    pub fn host(self, url: &str) -> Option<&str> {
        let scheme = match self {
            Self::Sotto => "http://",
            Self::Xmpp => "xmpp://",
        };
        let host = url.strip_prefix(scheme)?.trim_end_matches('/');
        (!host.is_empty() && !host.contains('/') && host.contains(':')).then_some(host)
    }

    /// What is wrong with an address that is not of the right form.
    #[must_use]
    pub fn url_form(self) -> &'static str {
        match self {
            Self::Sotto => "write it as http://HOST:PORT; TLS ends before the server, and so does the load",
            Self::Xmpp => "write it as xmpp://HOST:PORT; the load has no TLS",
        }
    }

    /// A wire for a device that is about to connect.
    #[must_use]
    pub fn wire(self, opening: Opening) -> Box<dyn Wire> {
        match self {
            Self::Sotto => Box::new(sotto::Sotto::new(opening)),
            Self::Xmpp => Box::new(xmpp::Xmpp::new(opening)),
        }
    }

    /// A wire that only sends, each message by a request of its own; none: the protocol has no such way.
    #[must_use]
    pub fn rest(self, opening: Opening) -> Option<Box<dyn Wire>> {
        match self {
            Self::Sotto => Some(Box::new(rest::Rest::new(opening))),
            Self::Xmpp => None,
        }
    }

    /// A wire that reads the backlog by requests and is drained then; none: the protocol has no such way.
    #[must_use]
    pub fn sync(self, opening: &Opening) -> Option<Box<dyn Wire>> {
        match self {
            Self::Sotto => Some(Box::new(rest::Sync::new(opening))),
            Self::Xmpp => None,
        }
    }
}

/// What a message carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// One ciphertext for each device of the other members.
    #[default]
    Envelopes,
    /// One ciphertext for all, as sender keys and MLS make it.
    Shared,
}

/// What a wire is made from.
pub struct Opening {
    /// `HOST:PORT` as the user gave it.
    pub host: Rc<str>,
    /// Whose device.
    pub user: Rc<User>,
    /// The devices of the other members, in the file's order; empty in a group whose messages name nobody.
    pub others: Rc<[Rc<User>]>,
    /// An envelope for each of them, or one ciphertext for all.
    pub content: Content,
    /// A number of its own, for masks.
    pub seed: u64,
}
