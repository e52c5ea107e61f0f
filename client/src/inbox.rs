//! Durable events into the store: decrypts, drops what is known, and tells what is new.
//!
//! Runs inside one transaction and without network, so that an acknowledgement can follow the
//! commit whatever the ciphertexts turn out to be.

use crate::crypto::{Me, Opened, group, pairwise};
use crate::error::{Error, Result};
use crate::event::{Event, Message, Reason, Undecryptable};
use crate::store::{MessageRow, MessageState, NewMessage, Tx};
use sotto_protocol::event::{DevicesChanged, Event as Durable, KeyKind};
use sotto_protocol::message::{self, Sender};
use sotto_protocol::{ConversationId, Seq};

/// What follows from events that have been stored.
#[derive(Default)]
pub(crate) struct Applied {
    /// For the application.
    pub(crate) events: Vec<Event>,
    /// Conversations whose next entries only the library reads: marked as read by it.
    pub(crate) reads: Vec<(ConversationId, Seq)>,
    /// Stocks that run low.
    pub(crate) keys_low: Vec<KeyKind>,
}

/// Stores events.
pub(crate) fn apply(tx: &mut Tx<'_>, me: Me, events: Vec<Durable>) -> Result<Applied> {
    let mut applied = Applied::default();
    for event in events {
        match event {
            Durable::NewMessage(message) => new_message(tx, me, &message, &mut applied)?,
            Durable::MessageDelivered(delivered) => applied.events.push(Event::Delivered(delivered)),
            Durable::MessageReadUpdate(read) => {
                if read.user_id == me.user_id {
                    tx.raise_read_mark(read.conversation_id, read.up_to)?;
                }
                applied.events.push(Event::Read(read));
            }
            Durable::ConversationChanged(changed) => {
                tx.put_conversation(&changed.conversation, me.user_id)?;
                applied.events.push(Event::ConversationChanged(Box::new(changed.conversation)));
            }
            Durable::DevicesChanged(changed) => {
                devices_changed(tx, &changed)?;
                applied.events.push(Event::DevicesChanged(changed));
            }
            Durable::DeviceUpdated(updated) => applied.events.push(Event::DeviceUpdated(updated)),
            Durable::DeviceExpiring(expiring) => applied.events.push(Event::DeviceExpiring(expiring)),
            Durable::AccountDeletion(changed) => applied.events.push(Event::AccountDeletion(changed)),
            Durable::PhoneChanged(changed) => applied.events.push(Event::PhoneChanged(changed)),
            Durable::KeysLow(low) => applied.keys_low.push(low.kind),
            Durable::HistoryPruned(pruned) => applied.events.push(Event::HistoryPruned(pruned)),
        }
    }
    Ok(applied)
}

fn devices_changed(tx: &mut Tx<'_>, changed: &DevicesChanged) -> Result<()> {
    tx.forget_device_list(changed.user_id)
}

fn new_message(tx: &mut Tx<'_>, me: Me, message: &message::Message, applied: &mut Applied) -> Result<()> {
    if let Some((_, seq)) = tx.message_state(message.message_id, message.conversation_id)? {
        if seq != message.seq {
            tx.renumber_message(message.message_id, message.conversation_id, message.seq)?;
        }
        return Ok(());
    }
    if let Some(entry) = &message.system {
        keep(tx, message, MessageState::Membership, None)?;
        tx.outdate_conversation(message.conversation_id)?;
        applied.events.push(Event::Membership {
            conversation_id: message.conversation_id,
            seq: message.seq,
            entry: entry.clone(),
            at: message.server_time,
        });
        return Ok(());
    }
    let (Some(from), Some(ciphertext)) = (message.from, &message.ciphertext) else {
        return keep_absent(tx, me, message);
    };
    if from.device_id == me.device_id {
        return keep_absent(tx, me, message);
    }
    let opening = match message.envelope_type {
        Some(kind) => pairwise::decrypt(tx, me, message, from, kind, &ciphertext.0)?,
        None => group::decrypt(tx, message, from, &ciphertext.0)?,
    };
    match opening {
        Ok(opened) if opened.header.internal => internal(tx, me, message, from, &opened, applied),
        Ok(opened) => readable(tx, message, from, &opened, applied),
        Err(reason) => {
            let (state, content) = match reason {
                Reason::KeyMissing => (MessageState::Waiting, Some(ciphertext.0.as_slice())),
                _ => (MessageState::Undecryptable, None),
            };
            keep(tx, message, state, content)?;
            applied.events.push(Event::Undecryptable(Undecryptable {
                message_id: message.message_id,
                conversation_id: message.conversation_id,
                seq: message.seq,
                from,
                reason,
            }));
            Ok(())
        }
    }
}

/// A number of the log without a ciphertext for this device. Its own messages come from the outbox.
fn keep_absent(tx: &mut Tx<'_>, me: Me, message: &message::Message) -> Result<()> {
    let own = message.from.is_some_and(|from| from.device_id == me.device_id);
    if own && tx.outbox_row(message.message_id)?.is_some() {
        return Ok(());
    }
    keep(tx, message, MessageState::Absent, None).map(|_| ())
}

fn readable(
    tx: &mut Tx<'_>,
    message: &message::Message,
    from: Sender,
    opened: &Opened,
    applied: &mut Applied,
) -> Result<()> {
    let position = keep(tx, message, MessageState::Readable, Some(&opened.body))?;
    applied.events.push(Event::Message(Message {
        position,
        message_id: message.message_id,
        conversation_id: message.conversation_id,
        seq: message.seq,
        kind: message.kind,
        from,
        content: opened.body.to_vec(),
        reply_to: message.reply_to,
        client_seq: message.client_seq,
        server_time: message.server_time,
    }));
    Ok(())
}

fn internal(
    tx: &mut Tx<'_>,
    me: Me,
    message: &message::Message,
    from: Sender,
    opened: &Opened,
    applied: &mut Applied,
) -> Result<()> {
    keep(tx, message, MessageState::Internal, None)?;
    if let Some(group) = group::take_key(tx, from, &opened.body)? {
        open_waiting(tx, me, group, from, applied)?;
    }
    // Reading is told only where the user has nothing unread before it: his marks are his.
    let read = tx.read_mark(message.conversation_id)?;
    if from.user_id != me.user_id
        && message.seq > read
        && !tx.has_unread(message.conversation_id, read, message.seq, me.user_id)?
    {
        tx.raise_read_mark(message.conversation_id, message.seq)?;
        applied.reads.retain(|(conversation, _)| *conversation != message.conversation_id);
        applied.reads.push((message.conversation_id, message.seq));
    }
    Ok(())
}

/// A key has come: what waited for it becomes readable, in its order.
fn open_waiting(
    tx: &mut Tx<'_>,
    me: Me,
    conversation: ConversationId,
    from: Sender,
    applied: &mut Applied,
) -> Result<()> {
    for row in tx.waiting_messages(conversation)? {
        if row.from.is_none_or(|sender| sender.device_id != from.device_id) {
            continue;
        }
        let message = as_delivered(&row);
        let ciphertext = row.content.unwrap_or_default();
        match group::decrypt(tx, &message, from, &ciphertext)? {
            Err(Reason::KeyMissing) => {}
            Err(reason) => {
                tracing::debug!(message = %message.message_id, ?reason, "a message that waited cannot be read");
                tx.remove_message(message.message_id, conversation)?;
                keep(tx, &message, MessageState::Undecryptable, None)?;
            }
            Ok(opened) => {
                debug_assert_ne!(from.device_id, me.device_id);
                tx.remove_message(message.message_id, conversation)?;
                readable(tx, &message, from, &opened, applied)?;
            }
        }
    }
    Ok(())
}

fn as_delivered(row: &MessageRow) -> message::Message {
    message::Message {
        message_id: row.message_id,
        conversation_id: row.conversation_id,
        seq: row.seq,
        kind: row.kind,
        from: row.from,
        ciphertext: None,
        envelope_type: None,
        reply_to: row.reply_to,
        client_seq: row.client_seq,
        server_time: row.server_time,
        edited_at: None,
        deleted_at: None,
        expires_at: None,
        after_seq: None,
        system: None,
    }
}

fn keep(tx: &mut Tx<'_>, message: &message::Message, state: MessageState, content: Option<&[u8]>) -> Result<i64> {
    tx.add_message(&NewMessage {
        message_id: message.message_id,
        conversation_id: message.conversation_id,
        seq: message.seq,
        kind: message.kind,
        from: message.from,
        state,
        content,
        reply_to: message.reply_to,
        client_seq: message.client_seq,
        server_time: message.server_time,
    })
}

/// A kept message as the application sees it.
pub(crate) fn readable_row(row: MessageRow) -> Result<Message> {
    Ok(Message {
        position: row.position,
        message_id: row.message_id,
        conversation_id: row.conversation_id,
        seq: row.seq,
        kind: row.kind,
        from: row.from.ok_or_else(|| Error::store("a message without sender"))?,
        content: row.content.unwrap_or_default(),
        reply_to: row.reply_to,
        client_seq: row.client_seq,
        server_time: row.server_time,
    })
}
