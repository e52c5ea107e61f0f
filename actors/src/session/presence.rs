//! Who is there: told to the other side of direct conversations, never stored.

use super::Session;
use bytes::Bytes;
use sotto_protocol::frame::{Activity, Availability, Frame, Presence};
use sotto_protocol::{Timestamp, UserId};

impl Session {
    /// Tells the other side of direct conversations when the user comes or goes; a device that has just arrived
    /// hears who is there.
    pub(super) fn presence(&mut self, arrived: bool) {
        let online = self.devices.iter().any(|device| device.joined && device.activity == Activity::Active);
        let changed = online != self.online;
        if !changed && !arrived {
            return;
        }
        self.online = online;
        let (node, user) = (self.node.clone(), self.user);
        let news = changed.then(|| presence_of(user, online));
        tokio::task::spawn_local(async move {
            let Ok(peers) = node.store().presence_peers(user).await else {
                return;
            };
            if let Some(text) = &news {
                node.whisper(&peers, text, None);
            }
            if arrived {
                node.ask_presence(&peers, user);
            }
        });
    }
}

pub(super) fn presence_of(user_id: UserId, online: bool) -> Bytes {
    let state = if online { Availability::Online } else { Availability::Offline };
    let last_seen_at = (!online).then(Timestamp::now);
    Bytes::from(Frame::new("presence", Presence { user_id, state, last_seen_at }).to_text())
}
