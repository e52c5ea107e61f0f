//! Marks on their way to the Journals, their confirmation, and the patience with a device that acknowledges nothing.

use super::Session;
use super::attached::{acked, take_marks};
use super::{PASSED_OVER_AFTER, RETRY_AFTER};
use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use sotto_protocol::close;
use sotto_schema::planted::{self, Bug};
use std::time::{Duration, Instant};

impl Session {
    /// Hands what was passed over to the Journal, with whatever has come by then.
    pub(super) fn flush_soon(&mut self, index: usize, ctx: &mut Context<Self>) {
        self.flush_after(index, PASSED_OVER_AFTER, ctx);
    }

    fn flush_after(&mut self, index: usize, wait: Duration, ctx: &mut Context<Self>) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        if device.flush_set {
            return;
        }
        device.flush_set = true;
        let connection = device.connection;
        ctx.run_later(wait, move |session, ctx| {
            if let Some(index) = session.place_of(connection) {
                if let Some(device) = session.devices.get_mut(index) {
                    device.flush_set = false;
                }
                session.flush(index, ctx);
            }
        });
    }

    /// Hands the waiting marks to the Journals and confirms them after the commit. Those of a steady stream wait for each
    /// other: each of them costs about as much as a message.
    pub(super) fn flush(&mut self, index: usize, ctx: &mut Context<Self>) {
        let node = self.node.clone();
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        if device.flushing {
            return;
        }
        if let Some(wait) = device.marks_wait() {
            return self.flush_after(index, wait, ctx);
        }
        let marks = take_marks(device);
        let confirm = device.confirm.take();
        if marks.is_empty() {
            if let Some(n) = confirm {
                device.out.push(acked(n));
                device.push();
            }
            return;
        }
        if let Some(n) = confirm.filter(|_| planted::is(Bug::MarksToldBeforeCommit)) {
            device.out.push(acked(n));
            device.push();
        }
        device.flushing = true;
        for mark in &marks.delivered {
            if let Some(place) = device.places.get_mut(&mark.conversation_id) {
                place.flushed = Some(Instant::now());
            }
        }
        let connection = device.connection;
        let kept = marks.clone();
        let work = async move { node.raise(marks).await };
        ctx.spawn(work.into_actor(self).map(move |durable, session, ctx| {
            let Some(index) = session.place_of(connection) else {
                return;
            };
            let user = session.user;
            let Some(device) = session.devices.get_mut(index) else {
                return;
            };
            device.flushing = false;
            if durable {
                if let Some(n) = confirm {
                    device.out.push(acked(n));
                    device.push();
                }
                if device.confirm.is_some() || !device.marks.is_empty() && !device.flush_set {
                    session.flush(index, ctx);
                }
                return;
            }
            for mark in kept.delivered {
                let (id, up_to) = (mark.conversation_id, mark.up_to);
                device.mark(user, id, up_to, mark.receipts_seen, mark.told);
                if let Some(again) = device.marks.get_mut(&id) {
                    again.after = again.after.min(mark.after);
                }
            }
            for account in kept.accounts {
                device.account_mark = device.account_mark.max(account.seen);
            }
            device.confirm = device.confirm.max(confirm);
            device.hurry();
            ctx.run_later(RETRY_AFTER, move |session, ctx| {
                if let Some(index) = session.place_of(connection) {
                    session.flush(index, ctx);
                }
            });
        }));
    }

    /// Closes with 4421 a device that acknowledges nothing although something is due.
    pub(super) fn watch(&mut self, index: usize, ctx: &mut Context<Self>) {
        let patience = self.node.settings().ack_timeout;
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let Some(since) = device.due_since else {
            return;
        };
        if device.watching {
            return;
        }
        device.watching = true;
        let connection = device.connection;
        let wait = patience.saturating_sub(since.elapsed()).max(Duration::from_millis(5));
        ctx.run_later(wait, move |session, ctx| {
            let Some(index) = session.place_of(connection) else {
                return;
            };
            if let Some(device) = session.devices.get_mut(index) {
                device.watching = false;
                if device.due_since.is_some_and(|since| since.elapsed() >= patience) {
                    return device.end(close::NOT_ACKNOWLEDGED);
                }
            }
            session.watch(index, ctx);
        });
    }
}
