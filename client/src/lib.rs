//! The Rust client of Sotto: signing in, an end-to-end-encrypted store, a connection that heals
//! itself, and the plain pieces under them for those who want control.
//!
//! # The tour
//!
//! - [`Client`] is what an application holds. It encrypts and decrypts, keeps everything in a
//!   [`Store`] on the device, and sends by socket or REST, whichever is there.
//! - [`Store`] is one SQLite file, sealed with a [`StoreKey`]. Ratchets, messages and outgoing bytes
//!   change in the same transaction, so that the process may be killed at any moment.
//! - [`Events`] tells what happens. Messages are read from the store where the reader was slow: none
//!   is lost, and an application that keeps [`event::Message::position`] goes on where it was.
//! - [`Socket`] and [`Rest`] are the contract itself, without state and without encryption. Tests
//!   and load tools use them: they decide when to acknowledge, and what to send. [`DeviceKeys`] are
//!   keys without a store, to sign such devices in with.
//!
//! # A bot
//!
//! ```no_run
//! use sotto_client::{Client, Options, Result, SignIn, Store};
//! use sotto_protocol::auth::{DeviceInfo, Platform, Purpose};
//!
//! # async fn run(read_code: impl Fn() -> String) -> Result<()> {
//! let server = "http://127.0.0.1:8080";
//! let store = Store::open_with_key_beside("bot.db").await?;
//! let client = match Client::open(Options::new(server), store.clone()).await {
//!     Ok(client) => client,
//!     Err(sotto_client::Error::NotSignedIn) => {
//!         let verification = Client::verify(server, "+41791234567", Purpose::Registration).await?;
//!         let device = DeviceInfo {
//!             name: "bot".to_owned(),
//!             platform: Platform::Desktop,
//!             fingerprint: None,
//!             model: None,
//!             os_version: None,
//!             app_version: None,
//!             push: None,
//!         };
//!         let sign_in = SignIn::new(verification.verification_id, read_code(), device);
//!         Client::register(Options::new(server), store, sign_in).await?
//!     }
//!     Err(error) => return Err(error),
//! };
//! let mut events = client.events();
//! client.connect();
//! loop {
//!     let message = events.next_message().await?;
//!     if let Some(text) = message.text() {
//!         client.send_text(message.conversation_id, text).await?;
//!         client.mark_read(message.conversation_id, message.seq).await?;
//!     }
//! }
//! # }
//! ```
//!
//! `examples/echo_bot.rs` is the same as a program, with a position that survives restarts.
//!
//! # What it promises
//!
//! - An event is acknowledged after it is stored, decrypted or not. Killed in between, it comes
//!   again and is recognised by its `message_id`: nothing is lost, nothing is told twice.
//! - A message that was given to [`Client::send_text`] is in the outbox before it is sent, and its
//!   bytes with it. Whatever happens to the connection, the same bytes go out under the same id
//!   until the server answers. Only a refusal, which changes nothing there, makes new bytes.
//! - Direct conversations are encrypted with Olm for each device. There is one line of sessions per
//!   conversation and device, because the server keeps the order within a conversation only.
//! - Groups are encrypted with Megolm. The key goes to each member through the direct conversation
//!   with him, and to the sender's own other devices with the same messages; it changes whenever
//!   the list of devices does, after 1,000 messages, and after a week.
//! - A ciphertext says inside where it belongs, what it is called and who made it. A server that
//!   moves one is found out. A device's identity key is fixed when it is first seen.
//!
//! # A second device
//!
//! [`Client::link`] gives a QR code for a store that is not signed in; the device that shows it waits with
//! [`PendingLink::wait`]. A signed-in one reads it with [`Client::scan_link`], shows who wants to join, and answers with
//! [`Client::confirm_link`] or [`Client::refuse_link`].
//!
//! # When everything is lost
//!
//! [`Client::set_registration_lock`] and [`Client::set_up_totp`] protect an account from whoever has its number.
//! [`Client::recover`] makes an empty store the account's only device, by a code and one of them. [`Client::change_phone`]
//! gives the account another number.
//!
//! # What it does not do
//!
//! It asks nobody for a missing group key, it does not sign devices for each other (compare
//! [`Client::identities`] by another way), and it does not encrypt for devices that speak another
//! suite: such a device gets an empty envelope as long as its user has one that speaks this one.

pub mod backoff;
pub mod client;
mod connection;
mod credentials;
mod crypto;
pub mod device_keys;
pub mod device_link;
mod devices;
pub mod error;
pub mod event;
mod events;
mod inbox;
mod link;
mod number;
mod outbox;
mod registration_lock;
pub mod rest;
mod seal;
mod second_factor;
mod sign_in;
pub mod socket;
mod store;
pub mod trail;
mod upkeep;

pub use client::{Client, Options, SendOptions};
pub use device_keys::DeviceKeys;
pub use device_link::PendingLink;
pub use error::{Error, Result};
pub use event::Event;
pub use events::Events;
pub use link::LinkState;
pub use reqwest::{Method, header::HeaderMap};
pub use rest::Rest;
pub use seal::StoreKey;
pub use sign_in::SignIn;
pub use socket::{Socket, SocketOptions};
pub use sotto_protocol as protocol;
pub use store::Store;
pub use trail::{Trail, TrailFault, TrailVerifier};
