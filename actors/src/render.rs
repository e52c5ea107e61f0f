//! Durable events as text on the wire.

use serde::Serialize;
use sotto_protocol::event::{Delivered, Event, Read};
use sotto_protocol::message::Message;
use sotto_protocol::{Binary, ConversationId, DeviceId, Seq, Timestamp};
use sotto_schema::rows::{MessageRow, ReceiptRow};
use std::fmt::{Display, Write};
use std::sync::OnceLock;
use uuid::Uuid;

/// A `new_message` for one device. What all readers share is made once.
///
/// Nearly everything that is ever sent is this event, so its text is written here member by member; the test holds it
/// against what serde makes of the contract's types.
pub(crate) fn new_message(
    n: u64,
    row: &MessageRow,
    device: DeviceId,
    after: Seq,
    shared: Option<&OnceLock<String>>,
) -> String {
    let mut text = String::with_capacity(row.wire_size());
    text.push_str(r#"{"t":"new_message","n":"#);
    number(n, &mut text);
    text.push_str(r#","d":"#);
    match shared {
        // Envelopes differ by reader, and a sender's own ciphertext is not given back.
        Some(shared) if row.envelopes.is_none() => text.push_str(shared.get_or_init(|| {
            let mut shared = String::with_capacity(row.wire_size());
            message(row, device, &mut shared);
            shared
        })),
        _ => message(row, device, &mut text),
    }
    text.push_str(r#","after_seq":"#);
    number(after, &mut text);
    text.push_str("}}");
    text
}

/// A message as an object that is still open.
fn message(row: &MessageRow, device: DeviceId, text: &mut String) {
    let now = Timestamp::now();
    if row.system.is_some() {
        let whole = json(&row.for_device(device, now));
        return text.push_str(whole.strip_suffix('}').unwrap_or(&whole));
    }
    text.push_str(r#"{"message_id":"#);
    uuid(row.message_id.0, text);
    text.push_str(r#","conversation_id":"#);
    uuid(row.conversation_id.0, text);
    text.push_str(r#","seq":"#);
    number(row.seq, text);
    text.push_str(r#","kind":""#);
    text.push_str(row.kind.as_str());
    match row.sender() {
        Some(sender) => {
            text.push_str(r#"","from":{"user_id":"#);
            uuid(sender.user_id.0, text);
            text.push_str(r#","device_id":"#);
            uuid(sender.device_id.0, text);
            text.push_str(r#"},"ciphertext":"#);
        }
        None => text.push_str(r#"","from":null,"ciphertext":"#),
    }
    let (ciphertext, envelope_type) = row.content(device, now);
    match ciphertext {
        Some(bytes) => {
            text.push('"');
            Binary::encode_to(bytes, text);
            text.push('"');
        }
        None => text.push_str("null"),
    }
    if let Some(kind) = envelope_type {
        text.push_str(r#","type":"#);
        number(kind, text);
    }
    if let Some(id) = row.reply_to {
        text.push_str(r#","reply_to":"#);
        uuid(id.0, text);
    }
    if let Some(count) = row.client_seq {
        text.push_str(r#","client_seq":"#);
        number(count, text);
    }
    moment("server_time", Some(row.created_at), text);
    moment("edited_at", row.edited_at, text);
    moment("deleted_at", row.deleted_at, text);
    moment("expires_at", row.expires_at, text);
}

fn number(number: impl Display, text: &mut String) {
    // A string takes whatever it is given.
    let _ = write!(text, "{number}");
}

fn uuid(id: Uuid, text: &mut String) {
    text.push('"');
    text.push_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    text.push('"');
}

fn moment(name: &str, at: Option<Timestamp>, text: &mut String) {
    if let Some(at) = at {
        text.push_str(",\"");
        text.push_str(name);
        text.push_str("\":\"");
        at.write_to(text);
        text.push('"');
    }
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

/// How many bytes something has on the wire.
pub(crate) fn size(value: &impl Serialize) -> usize {
    json(value).len()
}

/// Our own types always serialize; should one not, the reader sees an empty object.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sotto_protocol::message::{Envelope, Kind};
    use sotto_protocol::{MessageId, UserId};
    use sotto_schema::PackedEnvelopes;

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

    fn rows(reader: DeviceId) -> impl Strategy<Value = MessageRow> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..400);
        let moment = || prop::option::of((0..4_000_000_000_000_i64).prop_map(Timestamp::from_millis));
        let kind = prop::sample::select(vec![Kind::Text, Kind::Media, Kind::File, Kind::Call, Kind::System]);
        let content = (prop::option::of(bytes()), prop::option::of((any::<u8>(), any::<bool>(), bytes())));
        let named = (any::<[u128; 4]>(), 1..i64::MAX, kind, prop::option::of(any::<bool>()), any::<bool>());
        let more = (prop::option::of(any::<u128>()), prop::option::of(any::<i64>()), any::<bool>());
        (named, content, more, moment(), moment(), moment()).prop_map(
            move |(
                (ids, seq, kind, from, is_system),
                (ciphertext, own),
                (reply_to, client_seq, _),
                edited_at,
                deleted_at,
                expires_at,
            )| {
                let [id, home, user, device] = ids.map(Uuid::from_u128);
                let envelopes = own.map(|(kind, for_reader, bytes)| {
                    let device_id = if for_reader { reader } else { DeviceId::random() };
                    let envelope = Envelope {
                        user_id: UserId::random(),
                        device_id,
                        registration_id: None,
                        kind,
                        ciphertext: bytes.into(),
                    };
                    PackedEnvelopes::pack(&[envelope]).0.into()
                });
                MessageRow {
                    conversation_id: ConversationId(home),
                    seq,
                    message_id: MessageId(id),
                    sender_user: from.map(|_| UserId(user)),
                    sender_device: from.map(|is_reader| if is_reader { reader } else { DeviceId(device) }),
                    kind,
                    ciphertext: ciphertext.map(Into::into),
                    envelopes,
                    reply_to: reply_to.map(|id| MessageId(Uuid::from_u128(id))),
                    client_seq,
                    system: is_system.then(|| serde_json::json!({"event": "left", "user_id": user})),
                    expires_at,
                    edited_at,
                    deleted_at,
                    created_at: Timestamp::from_millis(1_795_253_400_123),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_message_is_written_as_serde_writes_it(
            row in rows(DeviceId(Uuid::from_u128(7))),
            n in any::<u64>(),
            after in any::<i64>(),
        ) {
            let reader = DeviceId(Uuid::from_u128(7));
            let body = json(&row.for_device(reader, Timestamp::now()));
            let open = body.strip_suffix('}').unwrap();
            let expected = format!(r#"{{"t":"new_message","n":{n},"d":{open},"after_seq":{after}}}}}"#);
            prop_assert_eq!(&new_message(n, &row, reader, after, None), &expected);
            // Twice, so that the second comes from what is kept.
            let shared = OnceLock::new();
            for _ in 0..2 {
                prop_assert_eq!(&new_message(n, &row, reader, after, Some(&shared)), &expected);
            }
        }
    }
}
