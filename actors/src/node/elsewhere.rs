//! What concerns users of other nodes, in both directions. A user may have devices here and there, so everything is
//! done here and told over the bus; what comes from the bus is done here alone.

use super::Node;
use crate::bus::event::{Event, Replaced};
use crate::cluster::Heard;
use crate::mailbox::{Refused, tell};
use crate::session::{
    AccountMoved, Deliver, End, Ephemeral, MarkedElsewhere, PresenceWanted, ReceiptsMoved, Replace, StockIsLow,
};
use bytes::Bytes;
use sotto_protocol::event::KeysLow;
use sotto_protocol::{DeviceId, UserId};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use uuid::Uuid;

impl Node {
    /// Does what another node has told.
    pub(crate) fn receive(&self, users: &[UserId], event: Event) {
        match event {
            Event::Delivered(delivery) => {
                for user in users {
                    if let Some(session) = self.sessions().get(user)
                        && tell(&session, Deliver(Arc::clone(&delivery))).is_err()
                    {
                        self.repair_conversation(delivery.conversation_id);
                    }
                }
            }
            Event::Receipts(conversation_id, version) => {
                for user in users {
                    if let Some(session) = self.sessions().get(user)
                        && tell(&session, ReceiptsMoved { conversation_id, version }).is_err()
                    {
                        self.repair_conversation(conversation_id);
                    }
                }
            }
            Event::Account => {
                let (node, users) = (self.clone(), users.to_vec());
                actix_rt::spawn(async move { node.account_moved_here(&users).await });
            }
            Event::Members(conversation, seq) => self.members_moved(conversation, seq),
            Event::Whisper { text, except } => self.whisper_here(users, &Bytes::from(text), except),
            Event::PresenceAsked(asker) => self.ask_presence_here(users, asker),
            Event::Replaced(replaced) => self.replaced(replaced),
            Event::Ended { device, family, code } => {
                for user in users {
                    self.end_device_here(*user, device, family, code);
                }
            }
            Event::KeysLow { device, low } => {
                for user in users {
                    self.keys_low_here(*user, device, low.clone());
                }
            }
            Event::Marked { device, conversations, account } => {
                for user in users {
                    let marked = MarkedElsewhere { device_id: device, conversations: conversations.clone(), account };
                    self.marked_elsewhere(*user, marked);
                }
            }
            Event::Canary(canary) => self.canary(Heard(canary)),
        }
    }

    /// Tells sessions that account events wait: their numbers are read from the database.
    pub async fn account_moved(&self, users: &[UserId]) {
        self.bus().tell(|| users.to_vec(), || Event::Account);
        self.account_moved_here(users).await;
    }

    async fn account_moved_here(&self, users: &[UserId]) {
        let here: Vec<UserId> = users.iter().copied().filter(|user| self.sessions().get(user).is_some()).collect();
        if here.is_empty() {
            return;
        }
        // What is not read here the sweep tells.
        for (user, head) in self.store().account_heads(here).await.unwrap_or_default() {
            self.account_head_moved(user, head);
        }
    }

    /// Raises what a session knows of its user's account log.
    pub(super) fn account_head_moved(&self, user: UserId, head: i64) {
        if let Some(session) = self.sessions().get(&user)
            && tell(&session, AccountMoved(head)).is_err()
        {
            let mut repairs = self.0.account_repairs.lock().unwrap_or_else(PoisonError::into_inner);
            let noted = repairs.entry(user).or_default();
            *noted = (*noted).max(head);
        }
    }

    /// A frame that is not stored, for users wherever they are, but not for the device that caused it.
    pub(crate) fn whisper(&self, users: &[UserId], text: &Bytes, except: Option<DeviceId>) {
        self.bus()
            .tell(|| users.to_vec(), || Event::Whisper { text: String::from_utf8_lossy(text).into_owned(), except });
        self.whisper_here(users, text, except);
    }

    fn whisper_here(&self, users: &[UserId], text: &Bytes, except: Option<DeviceId>) {
        for session in users.iter().filter_map(|user| self.sessions().get(user)) {
            // Dropped under pressure: nobody misses it for long.
            let _ = tell(&session, Ephemeral { text: text.clone(), except });
        }
    }

    /// A user has come: those of these users who are there let him know.
    pub(crate) fn ask_presence(&self, users: &[UserId], asker: UserId) {
        self.bus().tell(|| users.to_vec(), || Event::PresenceAsked(asker));
        self.ask_presence_here(users, asker);
    }

    fn ask_presence_here(&self, users: &[UserId], asker: UserId) {
        for session in users.iter().filter_map(|user| self.sessions().get(user)) {
            // Dropped under pressure, as above.
            let _ = tell(&session, PresenceWanted(asker));
        }
    }

    /// What a device has acknowledged by REST is not sent to its socket here.
    pub(crate) fn marked_elsewhere(&self, user: UserId, marked: MarkedElsewhere) {
        if let Some(session) = self.sessions().get(&user) {
            // A full mailbox: the socket sends again what the device then knows by its id.
            let _ = tell(&session, marked);
        }
    }

    /// A device's token family ended: the socket that came with it closes, wherever it is.
    pub fn end_device(&self, user: UserId, device: DeviceId, family: Uuid, code: u16) {
        self.bus().tell(|| vec![user], || Event::Ended { device, family, code });
        self.end_device_here(user, device, family, code);
    }

    fn end_device_here(&self, user: UserId, device: DeviceId, family: Uuid, code: u16) {
        self.insist(user, End { device_id: device, family, code });
    }

    /// A device has a newer connection: the named one closes, if it is still here.
    pub(crate) fn replaced(&self, replaced: Replaced) {
        self.insist(replaced.user, Replace { connection: replaced.connection, explicit: replaced.explicit });
    }

    /// Tells a session something that must not be lost to a full mailbox.
    fn insist<M>(&self, user: UserId, message: M)
    where
        crate::session::Session: actix::Handler<M>,
        <crate::session::Session as actix::Actor>::Context: actix::dev::ToEnvelope<crate::session::Session, M>,
        M: actix::Message + Copy + Send + 'static,
        M::Result: Send,
    {
        if let Some(session) = self.sessions().get(&user)
            && tell(&session, message) == Err(Refused::Full)
        {
            let node = self.clone();
            actix_rt::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                node.insist(user, message);
            });
        }
    }

    /// A claim left few keys in a device's stock.
    pub fn keys_low(&self, user: UserId, device: DeviceId, low: KeysLow) {
        self.bus().tell(|| vec![user], || Event::KeysLow { device, low: low.clone() });
        self.keys_low_here(user, device, low);
    }

    fn keys_low_here(&self, user: UserId, device: DeviceId, low: KeysLow) {
        if let Some(session) = self.sessions().get(&user) {
            // One that is full hears it at its next `welcome`.
            let _ = tell(&session, StockIsLow { device_id: device, low });
        }
    }
}
