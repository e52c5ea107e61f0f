//! Catching up without a socket: pages from the stored marks, and their acknowledgement (rule D5).

use crate::bus::event::Event as Told;
use crate::journal::Marks;
use crate::node::{Node, store_problem};
use crate::render;
use crate::room::Room;
use crate::session::MarkedElsewhere;
use sotto_protocol::event::Event;
use sotto_protocol::{ConversationId, DeviceId, Problem, Seq, Timestamp, UserId};
use sotto_schema::append::{AccountMark, DeliveredMark};
#[cfg(feature = "planted-bugs")]
use sotto_schema::planted::{self, Bug};
use sotto_schema::rows::{Arrival, BacklogRow, MessageRow};

/// Messages or account events that are read at once.
const AT_ONCE: usize = 64;
/// Approximate size of a receipt on the wire, in bytes.
const RECEIPT_BYTES: usize = 300;

/// What a page held of one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The first number that the page covered.
    pub first: Seq,
    /// The last one; below `first`: only receipts.
    pub last: Seq,
    /// The newest receipt of the page, 0 if there was none.
    pub receipts: i64,
    /// Whether the range holds messages of the device, and not only what was passed over.
    pub told: bool,
}

/// What a page held, and what its acknowledgement raises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Per conversation.
    pub ranges: Vec<Range>,
    /// The newest account event of the page, 0 if there was none.
    pub account: i64,
}

/// A page of events.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Oldest first in each conversation.
    pub events: Vec<Event>,
    /// What they cover.
    pub covered: Covered,
    /// Whether more wait.
    pub has_more: bool,
}

impl Node {
    /// The oldest events above a device's stored marks, whatever a socket has in flight. Asking twice without an
    /// acknowledgement gives the same again.
    ///
    /// # Errors
    /// `unavailable` when the database does not answer.
    pub async fn sync_page(&self, user: UserId, device: DeviceId, limit: usize) -> Result<Page, Problem> {
        let mut page = Page::default();
        let mut room = Room::of_page(limit);
        let arrival = self.store().arrival(user, device, Timestamp::now()).await.map_err(store_problem)?;
        // A device that is gone has nothing waiting; its next request is refused.
        let Some(Arrival { account_head: head, account_seen: seen, backlog, low }) = arrival else {
            return Ok(page);
        };
        for row in &backlog {
            if room.is_full() {
                page.has_more = true;
                return Ok(page);
            }
            self.conversation_into(&mut page, &mut room, user, device, row).await?;
        }
        if head > seen {
            if room.is_full() {
                page.has_more = true;
                return Ok(page);
            }
            self.account_into(&mut page, &mut room, user, device, seen, head).await?;
        }
        if !page.has_more && !room.is_full() {
            page.events.extend(low.into_iter().map(Event::KeysLow));
        }
        Ok(page)
    }

    /// Account events above `seen`, of which `head` is known to be the newest.
    async fn account_into(
        &self,
        page: &mut Page,
        room: &mut Room,
        user: UserId,
        device: DeviceId,
        seen: i64,
        head: i64,
    ) -> Result<(), Problem> {
        page.covered.account = seen;
        loop {
            let batch = room.items().min(AT_ONCE);
            let after = page.covered.account;
            let events = self.account_events(user, device, after, batch).await.map_err(store_problem)?;
            let is_rest = events.len() < batch;
            for (seq, event) in events {
                if let Some(event) = event {
                    if !room.take(render::size(&event)) {
                        page.has_more = true;
                        return Ok(());
                    }
                    page.events.push(event);
                }
                page.covered.account = seq;
            }
            if is_rest {
                page.covered.account = page.covered.account.max(head);
                return Ok(());
            }
            if room.is_full() {
                page.has_more = page.covered.account < head;
                return Ok(());
            }
        }
    }

    async fn conversation_into(
        &self,
        page: &mut Page,
        room: &mut Room,
        user: UserId,
        device: DeviceId,
        row: &BacklogRow,
    ) -> Result<(), Problem> {
        let id = row.conversation_id;
        let mut range = Range { conversation_id: id, first: row.mark + 1, last: row.mark, receipts: 0, told: false };
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::SyncFromSocket) {
            range.last = range.last.max(planted::sent_to(device, id));
        }
        while range.last < row.head {
            let batch = room.items_at_once().min(AT_ONCE);
            let limit = i64::try_from(batch).unwrap_or(1);
            let messages = self.store().messages(id, user, range.last, row.head, limit).await.map_err(store_problem)?;
            let is_rest = messages.len() < batch;
            room.has_seen(messages.len(), messages.iter().map(MessageRow::content_size).sum());
            for message in &messages {
                if room.is_full() || message.is_for(device) && !room.take(message.wire_size()) {
                    page.has_more = true;
                    break;
                }
                range.last = message.seq;
                if message.is_for(device) {
                    range.told = true;
                    page.events.push(render::message_event(message.for_device(device, Timestamp::now())));
                }
            }
            if page.has_more {
                break;
            }
            if is_rest {
                // Absent numbers are not waited for (rule D10).
                range.last = row.head;
            } else if room.is_full() {
                page.has_more = range.last < row.head;
                break;
            }
        }
        if range.last >= row.head && row.receipts_version > row.receipts_seen {
            if room.is_full() {
                page.has_more = true;
            } else {
                let batch = room.items();
                let limit = i64::try_from(batch).unwrap_or(i64::MAX);
                let receipts =
                    self.store().receipts(id, user, device, row.receipts_seen, limit).await.map_err(store_problem)?;
                let mut is_rest = receipts.len() < batch;
                for receipt in &receipts {
                    if !room.take(RECEIPT_BYTES) {
                        is_rest = false;
                        break;
                    }
                    range.receipts = receipt.version;
                    page.events.push(render::receipt(id, receipt));
                }
                if is_rest {
                    range.receipts = row.receipts_version;
                } else {
                    page.has_more = range.receipts < row.receipts_version;
                }
            }
        }
        if range.last >= range.first || range.receipts > 0 {
            page.covered.ranges.push(range);
        }
        Ok(())
    }

    /// Acknowledges a page. A range takes effect only where it begins at the stored mark or below, so that an
    /// older page can do no harm; marks only rise.
    ///
    /// # Errors
    /// `unavailable` when the marks could not be made durable.
    pub async fn sync_ack(&self, user: UserId, device: DeviceId, covered: Covered) -> Result<(), Problem> {
        let mut marks = Marks::default();
        let mut elsewhere = Vec::new();
        for range in covered.ranges {
            let id = range.conversation_id;
            let Some(place) = self.store().place(user, device, id).await.map_err(store_problem)? else {
                continue;
            };
            if range.first > place.mark + 1 {
                continue;
            }
            let up_to = range.last.max(place.mark);
            let receipts_seen = range.receipts.max(place.receipts_seen);
            elsewhere.push((id, up_to, receipts_seen));
            if up_to > place.mark || receipts_seen > place.receipts_seen {
                marks.delivered.push(DeliveredMark {
                    conversation_id: id,
                    user_id: user,
                    device_id: device,
                    after: place.mark,
                    up_to,
                    receipts_seen,
                    told: range.told,
                });
            }
        }
        if covered.account > 0 {
            marks.accounts.push(AccountMark { device_id: device, seen: covered.account });
        }
        if !marks.is_empty() && !self.raise(marks).await {
            return Err(Problem::unavailable("the acknowledgement could not be stored; send it again"));
        }
        let account = covered.account;
        let event = Told::Marked { device, conversations: elsewhere.clone(), account };
        self.bus().tell(|| vec![user], || event);
        self.marked_elsewhere(user, MarkedElsewhere { device_id: device, conversations: elsewhere, account });
        Ok(())
    }
}
