//! Who is there: told to the other side of direct conversations, never stored.

use super::Session;
use actix::{AsyncContext, Context};
use bytes::Bytes;
use sotto_protocol::frame::{Activity, Availability, Frame, Presence};
use sotto_protocol::{Timestamp, UserId};
use std::time::{Duration, Instant};

/// Least time between two notices of a user's presence that active or idle devices cause.
const NEWS_EVERY: Duration = Duration::from_secs(1);

impl Session {
    /// Handles a device that has become active or idle. Others are notified at once, but at most once per [`NEWS_EVERY`]
    /// whatever the devices do, because each time all of them are looked up and notified.
    pub(super) fn presence_soon(&mut self, ctx: &mut Context<Self>) {
        let wait = self.online_since.map_or(Duration::ZERO, |since| NEWS_EVERY.saturating_sub(since.elapsed()));
        if wait.is_zero() {
            return self.presence(false);
        }
        if !std::mem::replace(&mut self.presence_waits, true) {
            ctx.run_later(wait, |session, _| {
                session.presence_waits = false;
                session.presence(false);
            });
        }
    }

    /// Tells the other side of direct conversations when the user comes or goes; a device that has just arrived
    /// hears who is there.
    pub(super) fn presence(&mut self, arrived: bool) {
        let online = self.devices.iter().any(|device| device.joined && device.activity == Activity::Active);
        let changed = online != self.online;
        if !changed && !arrived {
            return;
        }
        self.online = online;
        if changed {
            self.online_since = Some(Instant::now());
        }
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
