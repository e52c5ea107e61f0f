//! The stream of what happens, backed by the store: a slow reader loses no message.

use crate::client::Client;
use crate::error::Result;
use crate::event::Event;
use crate::inbox::readable_row;
use std::collections::VecDeque;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

const PAGE: i64 = 100;

/// A stream of [`Event`]s, from [`Client::events`] or [`Client::events_since`].
///
/// Messages are told in the order of their positions and none is left out, however slowly this is
/// read: what was missed is read from the store. Of everything else only the last few thousand are
/// kept, and [`Event::Lagged`] says when some were left out.
pub struct Events {
    client: Client,
    receiver: broadcast::Receiver<Event>,
    ready: VecDeque<Event>,
    /// The last position that was told.
    position: i64,
    /// Messages may wait in the store.
    behind: bool,
}

impl Events {
    pub(crate) fn new(client: Client, position: i64, behind: bool) -> Self {
        let receiver = client.inner.events.subscribe();
        Self { client, receiver, ready: VecDeque::new(), position, behind }
    }

    /// The next event; waits until there is one. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if self.behind && self.ready.is_empty() {
                self.read_store().await?;
            }
            if let Some(event) = self.ready.pop_front() {
                if let Event::Message(message) = &event {
                    self.position = message.position;
                }
                return Ok(event);
            }
            if self.behind {
                continue;
            }
            match self.receiver.recv().await {
                Ok(Event::Message(message)) if message.position <= self.position => {}
                Ok(event) => self.ready.push_back(event),
                Err(RecvError::Lagged(missed)) => {
                    self.behind = true;
                    self.ready.push_back(Event::Lagged { missed });
                }
                // This stream holds a client, and the client the sender: never while it is read.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// The next message, passing over everything else.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next_message(&mut self) -> Result<crate::event::Message> {
        loop {
            if let Event::Message(message) = self.next().await? {
                return Ok(message);
            }
        }
    }

    async fn read_store(&mut self) -> Result<()> {
        let (me, after) = (self.client.inner.me.device_id, self.position);
        let rows = self.client.inner.store.run(move |tx| tx.messages_since(me, after, PAGE)).await?;
        self.behind = !rows.is_empty();
        for row in rows {
            self.ready.push_back(Event::Message(readable_row(row)?));
        }
        Ok(())
    }

    /// The same as a `futures` stream that ends when the store fails.
    pub fn into_stream(self) -> impl futures::Stream<Item = Event> + Send {
        futures::stream::unfold(self, |mut events| async move {
            let event = events.next().await.ok()?;
            Some((event, events))
        })
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Events").field("position", &self.position).finish_non_exhaustive()
    }
}
