//! A device's life by REST: sends, catching up, acknowledging late, looking at marks and at pieces of history.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use sotto_client::protocol::message::{OutgoingMessage, Sent};
use sotto_client::protocol::{ConversationId, ErrorCode, Seq};
use sotto_client::rest::HistoryRange;
use sotto_client::{Error, Rest};
use tokio::sync::watch;

use crate::book::{MarkOf, Note};
use crate::device::{Device, Pending, Phase, pause_until, wait};
use crate::targets::Target;

/// Between two requests of a life, at most, unless messages go as fast as they can.
const PAUSE: u64 = 400;
/// Entries of one page.
const PAGE: u32 = 500;
/// So far below its end a log is looked at in between.
const GLANCE: i64 = 400;
/// How often an answer that may be lost is waited for.
const ANSWERS: usize = 5;
/// Waited after a failure.
const SHORT: Duration = Duration::from_millis(150);

impl Device {
    /// Lives by requests until then.
    pub async fn by_rest(&mut self, until: Instant, phase: &mut watch::Receiver<Phase>) {
        while Instant::now() < until && !self.is_dead && *phase.borrow() == Phase::Live {
            match self.dice.within(0, 10) {
                0..=4 if self.due() <= Instant::now() => {
                    let count = self.dice.within(1, 4);
                    self.send_some(count).await;
                }
                0..=7 => {
                    let limit = self.dice.pick(&[1, 7, 50, 500]).copied();
                    let keep = self.dice.within(0, 4) > 0;
                    self.sync(limit, keep).await;
                }
                8 => self.look_at_marks().await,
                _ => self.glance().await,
            }
            let mut next = self.quiet;
            if !self.shared.interval().is_zero() {
                next = next.max(Instant::now() + Duration::from_millis(self.dice.within(10, PAUSE)));
            }
            if next > Instant::now() {
                pause_until(next.min(until), phase).await;
            }
        }
    }

    /// The client of a node with this device's token.
    pub fn rest(&self, target: &Target) -> Rest {
        target.rest.with_token(&self.account.access_token)
    }

    /// Makes a request; without an answer that can be used, notes why and gives nothing.
    pub async fn ask<T>(
        &mut self,
        target: &Target,
        what: &str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Option<T> {
        let error = match tokio::time::timeout(self.shared.plan.patience, request).await {
            Ok(Ok(answer)) => {
                if self.failed.as_deref() == Some(&target.url) {
                    self.failed = None;
                }
                return Some(answer);
            }
            Ok(Err(error)) => error,
            Err(_) => Error::Timeout,
        };
        let now = Instant::now();
        match error.code() {
            None => match &error {
                Error::Transport(_) | Error::Timeout | Error::Closed { .. } => {
                    self.ledger().counters.silent.add();
                    self.failed = Some(target.url.clone());
                    self.quiet = self.quiet.max(now + SHORT);
                }
                _ => self.ledger().strange(format!("{what} of {}: {error}", self.id())),
            },
            Some(code) => {
                self.ledger().counters.refuse(code);
                match code {
                    ErrorCode::RateLimited => {
                        self.ledger().counters.waits.add();
                        self.quiet = self.quiet.max(now + wait(&error).unwrap_or(Duration::from_secs(1)));
                    }
                    ErrorCode::Unavailable | ErrorCode::Internal => {
                        self.failed = Some(target.url.clone());
                        self.quiet = self.quiet.max(now + wait(&error).unwrap_or(SHORT));
                    }
                    ErrorCode::Unauthenticated => self.die("its token is not taken any more"),
                    ErrorCode::Forbidden | ErrorCode::NotFound if self.shared.may_be_out(self.id()) => {}
                    _ => self.ledger().strange(format!("{what} of {}: {error}", self.id())),
                }
            }
        }
        None
    }

    async fn send_some(&mut self, count: u64) {
        let count = usize::try_from(count).unwrap_or(1);
        let mut places: Vec<u64> = self.pending.keys().copied().take(count).collect();
        while places.len() < count && self.due() <= Instant::now() {
            let Some(place) = self.compose(Instant::now()) else { break };
            places.push(place);
        }
        self.send_by_rest(&places).await;
    }

    /// Sends what is pending at these places, some of it to two nodes at once.
    pub async fn send_by_rest(&mut self, places: &[u64]) {
        let mut attempts = Vec::new();
        for place in places {
            let Some(target) = self.target() else { return };
            let mut targets = vec![Arc::clone(&target)];
            if self.dice.percent(self.shared.plan.mix.twice) {
                targets.extend(self.shared.targets.pick(&mut self.dice, Some(&target.url)));
            }
            for target in targets {
                let now = Instant::now();
                let Some(message) = self.begin(*place, now) else { continue };
                attempts.push((*place, now, target, message));
            }
        }
        let answers = join_all(attempts.iter().map(|(_, _, target, message)| self.try_by_rest(target, message))).await;
        for ((place, begun, target, message), answer) in attempts.into_iter().zip(answers) {
            if let Err(error) = &answer {
                if error.is_unknown_outcome() {
                    self.failed = Some(target.url.clone());
                    self.quiet = self.quiet.max(Instant::now() + SHORT);
                } else if error.code() == Some(ErrorCode::RateLimited) {
                    self.quiet = self.quiet.max(Instant::now() + wait(error).unwrap_or_default());
                }
            }
            self.answered(&message, place, None, begun, answer);
        }
    }

    /// Sends something to a conversation, has it stored, and does not hear so.
    pub async fn lose_an_answer(&mut self, id: ConversationId) {
        for _ in 0..ANSWERS {
            let open = |(place, pending): (&u64, &Pending)| (pending.message.conversation_id == id).then_some(*place);
            let place = self.pending.iter().find_map(open);
            let Some(place) = place.or_else(|| self.compose(Instant::now())) else { return };
            let (Some(target), now) = (self.target(), Instant::now()) else { return };
            let Some(message) = self.begin(place, now) else { return };
            let Err(error) = self.try_by_rest(&target, &message).await else { return self.unknown(place, false) };
            let pause = wait(&error).unwrap_or(SHORT);
            self.answered(&message, place, None, now, Err(error));
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_by_rest(&self, target: &Target, message: &OutgoingMessage) -> Result<Sent, Error> {
        let rest = self.rest(target);
        let sending = rest.send_message(message, None);
        tokio::time::timeout(self.shared.plan.patience, sending).await.unwrap_or(Err(Error::Timeout))
    }

    /// Reads one page of what waits, and acknowledges it or keeps it for later; `None`: no answer, else whether there
    /// is more.
    pub async fn sync(&mut self, limit: Option<u32>, keep: bool) -> Option<bool> {
        let target = self.target()?;
        let rest = self.rest(&target);
        let page = self.ask(&target, "sync", rest.sync(limit)).await?;
        self.began();
        let mut marks: HashMap<ConversationId, Seq> = HashMap::new();
        for event in &page.events {
            if let Some((conversation, seq)) = self.ledger().event(self.id(), event) {
                // A page is acknowledged later, or lies with its cursor until it is.
                self.ledger().note(conversation, Note::Kept { by: self.id(), seqs: vec![seq] });
                marks.insert(conversation, seq);
            }
        }
        if !keep {
            self.late = Some((page.cursor, marks));
            return Some(page.has_more);
        }
        self.sync_ack(&page.cursor, marks).await?;
        // What was not acknowledged then is acknowledged now, after what came later.
        if let Some((cursor, marks)) = self.late.take() {
            self.sync_ack(&cursor, marks).await?;
        }
        Some(page.has_more)
    }

    async fn sync_ack(&mut self, cursor: &str, marks: HashMap<ConversationId, Seq>) -> Option<()> {
        // Any node takes it.
        let target = self.target()?;
        let rest = self.rest(&target);
        self.ask(&target, "sync ack", rest.sync_ack(cursor)).await?;
        self.ledger().counters.confirmed.add();
        for (conversation, up_to) in marks {
            self.ledger().note(conversation, Note::Confirmed { by: self.id(), up_to });
        }
        Some(())
    }

    /// Marks as a conversation's description tells them, and a new one of one's own.
    pub async fn look_at_marks(&mut self) {
        let Some(circle) = self.dice.pick(&self.circles).cloned() else { return };
        let Some(target) = self.target() else { return };
        let (id, rest) = (circle.id, self.rest(&target));
        let Some(described) = self.ask(&target, "conversation", rest.conversation(id)).await else { return };
        let by = self.id();
        let look = |mark, up_to| self.ledger().note(id, Note::Marked { by, mark, up_to });
        look(MarkOf::Head, described.last_seq);
        look(MarkOf::MyDelivered, described.delivered_up_to);
        look(MarkOf::MyRead, described.read_up_to);
        for member in &described.members {
            look(MarkOf::Delivered(member.user_id), member.delivered_up_to);
            look(MarkOf::Read(member.user_id), member.read_up_to);
        }
        let up_to = described.delivered_up_to.max(described.read_up_to);
        if self.ask(&target, "mark read", rest.mark_read(id, up_to)).await.is_some() {
            self.ledger().note(id, Note::Raised { by, mark: MarkOf::MyRead, up_to });
        }
    }

    /// A piece of the log, which must be the same whenever and wherever it is read.
    async fn glance(&mut self) {
        let Some(circle) = self.dice.pick(&self.circles).cloned() else { return };
        let Some(target) = self.target() else { return };
        let ends = self.ledger().book(circle.id, |book| (book.base(), book.head()));
        let Some((base, head)) = ends else { return };
        let lowest = base.max(head - GLANCE);
        let span = u64::try_from(head - lowest).unwrap_or_default();
        let after = lowest + i64::try_from(self.dice.within(0, span + 1)).unwrap_or_default();
        self.page(&target, circle.id, after, false).await;
    }

    /// Reads a page of a log; the last number in it, which is `after` where there is nothing above.
    pub async fn page(&mut self, target: &Target, id: ConversationId, after: Seq, anew: bool) -> Option<Seq> {
        let range = HistoryRange { after_seq: Some(after), before_seq: None, limit: Some(PAGE) };
        let rest = self.rest(target);
        let page = self.ask(target, "history", rest.history(id, range)).await?;
        let by = self.id();
        let entries: Vec<_> = page.items.iter().map(|message| self.ledger().entry(by, message)).collect();
        let last = entries.last().map_or(after, |entry| entry.seq);
        self.ledger().note(id, Note::Page { by, after, entries, anew });
        Some(last)
    }
}
