//! What messages say: made from their ids, so that nobody has to remember it to see whether it was changed.

use sotto_client::protocol::message::Message;
use sotto_client::protocol::{Binary, DeviceId, MessageId};

use crate::book::Body;

/// The ciphertext that everybody gets.
pub fn shared(message: MessageId, size: usize) -> Binary {
    filled(format!("{message} for all "), size)
}

/// The ciphertext for one device.
pub fn own(message: MessageId, device: DeviceId, size: usize) -> Binary {
    filled(format!("{message} for {device} "), size)
}

fn filled(text: String, size: usize) -> Binary {
    let mut bytes = text.into_bytes();
    let kernel = bytes.clone();
    let missing = size.saturating_sub(bytes.len());
    bytes.extend(kernel.iter().cycle().take(missing));
    Binary(bytes)
}

/// What a device finds in a message.
pub fn body(message: &Message, device: DeviceId, size: usize) -> Body {
    match &message.ciphertext {
        None => Body::Absent,
        Some(text) if *text == shared(message.message_id, size) => Body::Shared,
        Some(text) if *text == own(message.message_id, device, size) => Body::Own,
        Some(_) => Body::Other,
    }
}
