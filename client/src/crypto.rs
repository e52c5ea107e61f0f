//! End-to-end encryption with Olm and Megolm, on the store's transactions and without any network.

pub(crate) mod account;
pub(crate) mod group;
pub(crate) mod pairwise;
pub(crate) mod payload;

use crate::event::Reason;
use payload::Header;
use sotto_protocol::message::Sender;
use vodozemac::Curve25519PublicKey;
use zeroize::Zeroizing;

/// What came out of a ciphertext.
pub(crate) struct Opened {
    pub(crate) header: Header,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// A message that was opened, or why it was not. The store's own failures are errors around this.
pub(crate) type Opening = Result<Opened, Reason>;

/// This device.
pub(crate) type Me = Sender;

fn curve_key(bytes: &[u8]) -> Option<Curve25519PublicKey> {
    Curve25519PublicKey::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests;
