//! Who is there: told to the other side of direct conversations, never stored.

use super::{Ephemeral, PresenceWanted, Session};
use crate::mailbox::tell;
use actix::{AsyncContext, Context};
use bytes::Bytes;
use sotto_protocol::frame::{Activity, Availability, Frame, Presence};
use sotto_protocol::{Timestamp, UserId};

impl Session {
    /// Tells the other side of direct conversations when the user comes or goes; a device that has just arrived
    /// hears who is there.
    pub(super) fn presence(&mut self, arrived: bool, ctx: &mut Context<Self>) {
        let online = self.devices.iter().any(|device| device.joined && device.activity == Activity::Active);
        let changed = online != self.online;
        if !changed && !arrived {
            return;
        }
        self.online = online;
        let (node, user, own) = (self.node.clone(), self.user, ctx.address());
        let news = changed.then(|| presence_of(user, online));
        tokio::task::spawn_local(async move {
            let Ok(peers) = node.store().presence_peers(user).await else {
                return;
            };
            for session in peers.iter().filter_map(|peer| node.sessions().get(peer)) {
                // Dropped under pressure, like everything that is not stored.
                if let Some(text) = &news {
                    let _ = tell(&session, Ephemeral { text: text.clone(), except: None });
                }
                if arrived {
                    let _ = tell(&session, PresenceWanted(own.clone()));
                }
            }
        });
    }
}

pub(super) fn presence_of(user_id: UserId, online: bool) -> Bytes {
    let state = if online { Availability::Online } else { Availability::Offline };
    let last_seen_at = (!online).then(Timestamp::now);
    Bytes::from(Frame::new("presence", Presence { user_id, state, last_seen_at }).to_text())
}
