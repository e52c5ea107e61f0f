//! Durable events as text on the wire.

use serde::Serialize;
use sotto_protocol::event::{Delivered, Event, Read};
use sotto_protocol::message::Message;
use sotto_protocol::{ConversationId, DeviceId, Seq, Timestamp};
use sotto_schema::rows::{MessageRow, ReceiptRow};
use std::sync::OnceLock;

/// A `new_message` for one device. What all readers share is made once.
pub(crate) fn new_message(
    n: u64,
    row: &MessageRow,
    device: DeviceId,
    after: Seq,
    shared: Option<&OnceLock<String>>,
) -> String {
    let text = || json(&row.for_device(device, Timestamp::now()));
    let own;
    let body = match shared {
        // Envelopes differ by reader, and a sender's own ciphertext is not given back.
        Some(shared) if row.envelopes.is_none() => shared.get_or_init(text),
        _ => {
            own = text();
            &own
        }
    };
    let open = body.strip_suffix('}').unwrap_or(body);
    format!(r#"{{"t":"new_message","n":{n},"d":{open},"after_seq":{after}}}}}"#)
}

/// Any other durable event.
pub(crate) fn event(n: u64, event: &Event) -> String {
    // `{"t":"…","d":{…}}` with the number in between.
    let text = json(event);
    match text.split_once(r#","d":"#) {
        Some((t, d)) => format!(r#"{t},"n":{n},"d":{d}"#),
        None => text,
    }
}

/// A receipt as an event.
pub(crate) fn receipt(conversation_id: ConversationId, row: &ReceiptRow) -> Event {
    match row.device_id {
        Some(device_id) => Event::MessageDelivered(Delivered {
            conversation_id,
            user_id: row.user_id,
            device_id,
            up_to: row.up_to,
            at: row.at,
        }),
        None => Event::MessageReadUpdate(Read { conversation_id, user_id: row.user_id, up_to: row.up_to, at: row.at }),
    }
}

/// A message as an event of `GET /v1/sync`.
pub(crate) fn message_event(message: Message) -> Event {
    Event::NewMessage(message)
}

/// How many bytes an event has on the wire.
pub(crate) fn size(event: &Event) -> usize {
    json(event).len()
}

/// Our own types always serialize; should one not, the reader sees an empty object.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sotto_protocol::UserId;

    #[test]
    fn the_number_stands_between_type_and_content() {
        let read = Read {
            conversation_id: ConversationId::random(),
            user_id: UserId::random(),
            up_to: 7,
            at: Timestamp::now(),
        };
        let text = event(5, &Event::MessageReadUpdate(read));
        assert!(text.starts_with(r#"{"t":"message_read_update","n":5,"d":{"#), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["d"]["up_to"], 7);
    }
}
