//! Writes down what was sent, answered and seen, and tells when it is time for the next kill.

use super::checker::{Answer, Evidence, Look, Sending};
use sotto_client::protocol::event::Event;
use sotto_client::protocol::message::{Message, OutgoingMessage, Sent};
use sotto_client::protocol::{ConversationId, DeviceId, MessageId, Seq};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// Numbers that come out alike for the same seed (SplitMix64).
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least `from`, below `to`.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.roll() % (to - from)
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.within(0, all.len() as u64) as usize]
    }
}

#[derive(Default)]
pub struct Ledger {
    evidence: Mutex<Evidence>,
    /// Highest acknowledged number per conversation.
    heads: Mutex<HashMap<ConversationId, Seq>>,
    /// What each message must look like to a device: the text, and whether it is one per device.
    texts: Mutex<HashMap<MessageId, (String, bool)>>,
    unanswered: AtomicUsize,
    answered: AtomicUsize,
    goal: AtomicUsize,
    reached: Notify,
    connections: AtomicU64,
}

impl Ledger {
    pub fn evidence(&self) -> MutexGuard<'_, Evidence> {
        self.evidence.lock().unwrap()
    }

    pub fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::SeqCst)
    }

    /// Returns when so many further sends were answered.
    pub async fn progress(&self, answers: usize) {
        self.goal.store(self.answered.load(Ordering::SeqCst) + answers, Ordering::SeqCst);
        self.reached.notified().await;
    }

    /// A message that is about to be sent for the first time.
    pub fn compose(&self, device: DeviceId, message: &OutgoingMessage, text: String) {
        let id = message.conversation_id;
        let floor = self.heads.lock().unwrap().get(&id).copied().unwrap_or(0);
        let sending = Sending { conversation: id, device, floor, repeats: 0, answers: Vec::new() };
        assert!(self.evidence().sends.insert(message.message_id, sending).is_none(), "an id of its own");
        self.texts.lock().unwrap().insert(message.message_id, (text, message.envelopes.is_some()));
    }

    pub fn begin(&self) {
        self.unanswered.fetch_add(1, Ordering::SeqCst);
    }

    /// The outcome is unknown: the request will be repeated.
    pub fn unknown(&self, message: MessageId) {
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        if let Some(sending) = self.evidence().sends.get_mut(&message) {
            sending.repeats += 1;
        }
    }

    pub fn answer(&self, frame: Option<(u64, u64)>, message: MessageId, sent: &Sent) {
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        let mut evidence = self.evidence();
        let Some(sending) = evidence.sends.get_mut(&message) else { return };
        let is_its = sent.message_id == message && sent.conversation_id == sending.conversation;
        let answer = Answer { frame, seq: sent.seq, at: sent.server_time, duplicate: sent.duplicate };
        sending.answers.push(answer);
        if !is_its {
            evidence.refused.push(format!("{message} was answered with {sent:?}"));
        }
        drop(evidence);
        let mut heads = self.heads.lock().unwrap();
        let head = heads.entry(sent.conversation_id).or_default();
        *head = (*head).max(sent.seq);
        drop(heads);
        if self.answered.fetch_add(1, Ordering::SeqCst) + 1 == self.goal.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }

    pub fn refuse(&self, what: String) {
        self.evidence().refused.push(what);
    }

    pub fn look(&self, device: DeviceId, look: Look) {
        self.evidence().looks.entry(device).or_default().push(look);
    }

    /// Notes a durable event; a message's place is returned.
    pub fn event(&self, device: DeviceId, event: &Event) -> Option<(ConversationId, Seq)> {
        let mark = |conversation, whose: String, up_to| self.look(device, Look::Mark { conversation, whose, up_to });
        match event {
            Event::NewMessage(message) => {
                let (conversation, seq) = (message.conversation_id, message.seq);
                let look = Look::Got {
                    conversation,
                    seq,
                    message: message.message_id,
                    after: message.after_seq,
                    intact: self.is_intact(device, message),
                };
                self.look(device, look);
                return Some((conversation, seq));
            }
            Event::MessageDelivered(told) => {
                mark(told.conversation_id, format!("event: delivered to {}", told.device_id), told.up_to);
            }
            Event::MessageReadUpdate(told) => {
                mark(told.conversation_id, format!("event: read by {}", told.user_id), told.up_to);
            }
            _ => {}
        }
        None
    }

    /// Whether a message is what was sent, as far as this device may see it.
    pub fn is_intact(&self, device: DeviceId, message: &Message) -> bool {
        let sender = self.evidence().sends.get(&message.message_id).map(|sending| sending.device);
        let texts = self.texts.lock().unwrap();
        let Some((text, enveloped)) = texts.get(&message.message_id) else { return false };
        let expected = match (enveloped, sender == Some(device)) {
            // Its own message comes without content.
            (_, true) => None,
            (false, false) => Some(text.clone()),
            (true, false) => Some(format!("{text} for {device}")),
        };
        message.from.map(|from| from.device_id) == sender
            && message.ciphertext.as_ref().map(|ciphertext| ciphertext.0.clone()) == expected.map(String::into_bytes)
    }
}
