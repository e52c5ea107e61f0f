//! The managed connection: opens, receives, acknowledges, breaks, comes back.
//!
//! One task owns the socket. What it receives is committed to the store before it is acknowledged;
//! whatever needs the network in turn is done by other tasks, which send through this one.

use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::link::{ATTEMPT, Command, LinkState, MOST_UNANSWERED, Running};
use crate::socket::{Incoming, ServerFrame, Socket, SocketOptions};
use futures::FutureExt as _;
use serde_json::value::RawValue;
use sotto_protocol::event::Event as Durable;
use sotto_protocol::frame::{Ack, Auth, Frame, GoAway, MarkRead};
use sotto_protocol::{ConversationId, ErrorCode, Problem, Seq, close};
use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// So many events that have already arrived share one commit.
const BATCH: usize = 64;
/// A server that takes nothing for so long counts as gone.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// What was left in the outbox is tried again so often while the connection stands.
const FLUSH_EVERY: Duration = Duration::from_secs(60);
/// A connection that stood for so long was a good one: the next failure counts as the first.
const GOOD_AFTER: Duration = Duration::from_secs(10);
const NORMAL_CLOSURE: u16 = 1000;
const EPOCH: &str = "epoch";

/// Why a connection ended.
struct End {
    code: Option<u16>,
    /// How long the server asks to stay away.
    wait: Option<Duration>,
    /// It stood for a while: the next failure is the first in a row.
    was_good: bool,
    next: Next,
}

enum Next {
    Again,
    Stop,
    Off,
}

impl End {
    const fn again(code: Option<u16>) -> Self {
        Self { code, wait: None, was_good: false, next: Next::Again }
    }

    fn closed(code: Option<u16>) -> Self {
        let next = if code.is_none_or(close::may_reconnect) { Next::Again } else { Next::Stop };
        Self { next, ..Self::again(code) }
    }

    const fn off() -> Self {
        Self { code: None, wait: None, was_good: false, next: Next::Off }
    }

    const fn stop() -> Self {
        Self { code: None, wait: None, was_good: false, next: Next::Stop }
    }
}

impl Client {
    /// Connects, and stays connected until [`Client::disconnect`], a close code that forbids coming
    /// back, or the last clone of this client and its event streams is dropped. Returns at once; what happens is told by
    /// [`Client::events`], and [`Client::connected`] waits for it. Does nothing when connected.
    pub fn connect(&self) {
        let link = &self.inner.link;
        let mut running = link.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().is_some_and(|running| !running.task.is_finished()) {
            return;
        }
        let (commands, receiver) = mpsc::channel(MOST_UNANSWERED);
        let (stop, stopped) = watch::channel(false);
        link.state.send_replace(LinkState::Connecting);
        let task = tokio::spawn(stay_connected(self.unguarded(), receiver, stopped));
        *running = Some(Running { commands, stop, task });
    }

    /// Waits until the connection is up.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `wait`; [`Error::Transport`] when nobody connects any more.
    pub async fn connected(&self, wait: Duration) -> Result<()> {
        let mut state = self.inner.link.state.subscribe();
        let settled = state.wait_for(|state| *state != LinkState::Connecting);
        let state = tokio::time::timeout(wait, settled).await.map_err(|_| Error::Timeout)?.map(|state| *state);
        match state {
            Ok(LinkState::Up) => Ok(()),
            _ => Err(Error::Transport("there is no connection".to_owned())),
        }
    }

    /// How the connection stands.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        self.inner.link.state()
    }

    /// Closes the connection in order and waits until it is closed.
    pub async fn disconnect(&self) {
        if let Some(task) = self.inner.link.stop() {
            drop(task.await);
        }
    }

    /// Ends the connection as a crash would: without a close frame, whatever is being done. What was
    /// stored is stored, nothing else is. For tests of what a kill leaves behind.
    pub fn abort(&self) {
        if let Some(task) = self.inner.link.stop() {
            task.abort();
            self.inner.link.state.send_replace(LinkState::Off);
        }
    }

    /// Stores durable events, tells the application, and begins what follows from them.
    pub(crate) async fn take(&self, events: Vec<Durable>) -> Result<()> {
        // Told in the order of the commits: readers drop what lies behind their position.
        let _one_at_a_time = self.inner.taking.lock().await;
        let me = self.inner.me;
        let applied = self.inner.store.run(move |tx| crate::inbox::apply(tx, me, events)).await?;
        for event in applied.events {
            self.tell(event);
        }
        if !applied.keys_low.is_empty() {
            self.maintain_keys_soon();
        }
        for (conversation, up_to) in applied.reads {
            let client = self.unguarded();
            tokio::spawn(async move {
                if let Err(error) = client.mark_read(conversation, up_to).await {
                    tracing::debug!(%error, "a key's message could not be marked as read");
                }
            });
        }
        Ok(())
    }

    /// Compares the server's generation with the one last seen. After a restore what was sent within
    /// a day is sent again, and conversations are read anew.
    pub(crate) async fn note_epoch(&self, epoch: uuid::Uuid) -> Result<()> {
        let changed = self
            .inner
            .store
            .run(move |tx| {
                let last: Option<uuid::Uuid> = tx.meta_json(EPOCH)?;
                if last == Some(epoch) {
                    return Ok(false);
                }
                tx.set_meta_json(EPOCH, &epoch)?;
                if last.is_none() {
                    return Ok(false);
                }
                tx.reopen_outbox()?;
                tx.outdate_all_conversations()?;
                Ok(true)
            })
            .await?;
        if changed {
            tracing::info!("the server's history went back: what was sent lately is sent again");
            let client = self.unguarded();
            tokio::spawn(async move {
                if let Err(error) = client.refresh_conversations().await {
                    tracing::debug!(%error, "conversations could not be read anew");
                }
            });
        }
        Ok(())
    }

    fn flush_soon(&self) {
        let client = self.unguarded();
        tokio::spawn(async move {
            if let Err(error) = client.flush().await {
                tracing::debug!(%error, "the outbox could not be emptied");
            }
        });
    }
}

async fn stay_connected(client: Client, mut commands: mpsc::Receiver<Command>, mut stop: watch::Receiver<bool>) {
    let mut backoff = Backoff::new();
    let state = &client.inner.link.state;
    loop {
        state.send_replace(LinkState::Connecting);
        let end = connect_once(&client, &mut commands, &mut stop).await;
        let last = match end.next {
            Next::Again => None,
            Next::Stop => Some(LinkState::Stopped),
            Next::Off => Some(LinkState::Off),
        };
        if let Some(last) = last {
            state.send_replace(last);
            client.tell(Event::Disconnected { code: end.code, retry_in: None });
            return;
        }
        state.send_replace(LinkState::Connecting);
        if end.was_good {
            backoff.reset();
        }
        let jitter = backoff.next_wait();
        // All clients of a draining node get the same time: a little jitter on top spreads them.
        let wait = end.wait.map_or(jitter, |wait| wait + jitter.min(Duration::from_millis(250)));
        client.tell(Event::Disconnected { code: end.code, retry_in: Some(wait) });
        let next_attempt = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next_attempt) => break,
                // Dropped unanswered: whoever asked goes by REST or asks again.
                Some(_) = commands.recv() => {}
                () = stopped(&mut stop) => {
                    state.send_replace(LinkState::Off);
                    return;
                }
            }
        }
    }
}

/// Until the application disconnects.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn connect_once(
    client: &Client,
    commands: &mut mpsc::Receiver<Command>,
    stop: &mut watch::Receiver<bool>,
) -> End {
    let opening = open(client);
    let connection = tokio::select! {
        opened = opening => opened,
        () = stopped(stop) => return End::off(),
    };
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(end) => return end,
    };
    let began = Instant::now();
    let mut end = connection.run(commands, stop).await;
    end.was_good = began.elapsed() >= GOOD_AFTER;
    if end.code == Some(close::TOKEN_EXPIRED)
        && let Err(Error::SignedOut) = client.renew(&connection.token).await
    {
        end.next = Next::Stop;
    }
    let code = match end.next {
        Next::Off => Some(NORMAL_CLOSURE),
        // Silence, a goaway that was not followed, a store that failed: this side closes.
        _ if end.code.is_none() => Some(NORMAL_CLOSURE),
        _ => None,
    };
    if let Some(code) = code {
        connection.socket.close(code).await;
    }
    end
}

async fn open(client: &Client) -> Result<Connection<'_>, End> {
    let token = match client.token().await {
        Ok(token) => token,
        Err(Error::SignedOut | Error::NotSignedIn) => return Err(End::stop()),
        Err(error) => return Err(failed(client, &error)),
    };
    let attempt = client
        .inner
        .store
        .run(|tx| {
            let attempt = tx.meta_json::<i64>(ATTEMPT)?.unwrap_or(0) + 1;
            tx.set_meta_json(ATTEMPT, &attempt)?;
            Ok(attempt)
        })
        .await
        .map_err(|error| failed(client, &error))?;
    let mut options = SocketOptions::hello(token.clone()).attempt(attempt);
    if let Some(name) = &client.inner.options.client_name {
        options.client = Some(name.clone());
    }
    let (socket, welcome) = match Socket::connect(&client.inner.options.server, &options).await {
        Ok(opened) => opened,
        Err(error) => {
            let stale = error.code() == Some(ErrorCode::Unauthenticated)
                || matches!(error, Error::Closed { code: Some(close::TOKEN_EXPIRED), .. });
            if stale && let Err(Error::SignedOut) = client.renew(&token).await {
                return Err(End::stop());
            }
            return Err(failed(client, &error));
        }
    };
    client.note_epoch(welcome.epoch).await.map_err(|error| failed(client, &error))?;
    client.inner.link.state.send_replace(LinkState::Up);
    client.tell(Event::Connected { session_id: welcome.session_id, node: welcome.node, pending: welcome.pending });
    client.maintain_keys_soon();
    client.flush_soon();
    Ok(Connection {
        client,
        socket,
        token,
        silence: Duration::from_millis(welcome.heartbeat_ms.max(1000).saturating_mul(2)),
        last_heard: Instant::now(),
        unanswered: HashMap::new(),
        renewed: mpsc::channel(1),
        batch: Vec::new(),
        last_n: 0,
        chain: HashMap::new(),
        flush_at: Instant::now() + FLUSH_EVERY,
        wait: None,
    })
}

fn failed(client: &Client, error: &Error) -> End {
    tracing::debug!(%error, server = %client.inner.options.server, "no connection");
    match error {
        Error::Closed { code, .. } => End::closed(*code),
        other => {
            let wait = other.problem().and_then(|problem| problem.retry_after_ms).map(Duration::from_millis);
            End { wait, ..End::again(None) }
        }
    }
}

/// A connection that is up.
struct Connection<'a> {
    client: &'a Client,
    socket: Socket,
    token: String,
    silence: Duration,
    last_heard: Instant,
    unanswered: HashMap<u64, oneshot::Sender<Result<String>>>,
    /// A new token, made beside the reading.
    renewed: (mpsc::Sender<String>, mpsc::Receiver<String>),
    batch: Vec<Durable>,
    last_n: u64,
    /// The last message of each conversation on this connection.
    chain: HashMap<ConversationId, Seq>,
    flush_at: Instant,
    /// What `goaway` asked for, and until when the server may close by itself.
    wait: Option<(Duration, Instant)>,
}

impl Connection<'_> {
    async fn run(&mut self, commands: &mut mpsc::Receiver<Command>, stop: &mut watch::Receiver<bool>) -> End {
        loop {
            let deadline = self.last_heard + self.silence;
            let deadline = self.wait.map_or(deadline, |(_, until)| deadline.min(until));
            let done = tokio::select! {
                incoming = self.socket.next() => self.received(incoming).await,
                Some(command) = commands.recv(), if self.unanswered.len() < MOST_UNANSWERED => self.command(command).await,
                Some(token) = self.renewed.1.recv() => self.authenticate(token).await,
                () = tokio::time::sleep_until(self.flush_at) => {
                    self.flush_at = Instant::now() + FLUSH_EVERY;
                    self.client.flush_soon();
                    Ok(())
                }
                () = tokio::time::sleep_until(deadline) => Err(End::again(None)),
                () = stopped(stop) => Err(End::off()),
            };
            if let Err(mut end) = done {
                end.wait = end.wait.or(self.wait.map(|(wait, _)| wait));
                return end;
            }
            // Those who asked and no longer wait make room for others.
            self.unanswered.retain(|_, answer| !answer.is_closed());
        }
    }

    /// What has arrived together is committed together.
    async fn received(&mut self, first: Result<Incoming>) -> Result<(), End> {
        let mut next = Some(first);
        let mut ended = None;
        while let Some(incoming) = next.take() {
            self.last_heard = Instant::now();
            match incoming {
                Ok(Incoming::Frame(frame)) => self.frame(frame).await?,
                Ok(Incoming::Alive) => {}
                Ok(Incoming::Closed { code, .. }) => {
                    ended = Some(End::closed(code));
                    break;
                }
                Err(error) => tracing::warn!(%error, "a frame that cannot be read"),
            }
            if self.batch.len() < BATCH {
                next = self.socket.next().now_or_never();
            }
        }
        let committed = self.commit().await;
        match ended {
            Some(end) => Err(end),
            None => committed,
        }
    }

    async fn frame(&mut self, frame: ServerFrame) -> Result<(), End> {
        if let Some(n) = frame.n {
            match frame.event() {
                Ok(Some(event)) => {
                    self.check_chain(&event);
                    self.batch.push(event);
                }
                // Unknown events are counted and acknowledged, or they would come for ever.
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "an event that cannot be read is passed over"),
            }
            self.last_n = self.last_n.max(n);
            return Ok(());
        }
        if let Some(answer) = frame.re.and_then(|re| self.unanswered.remove(&re)) {
            let result = match frame.t.as_str() {
                "ok" => Ok(frame.d),
                _ => Err(frame.data::<Problem>().map_or_else(|error| error, Error::from)),
            };
            // Nobody waits any more: the outcome is in the server, a repeat will find it.
            drop(answer.send(result));
            return Ok(());
        }
        self.passing(&frame).await
    }

    /// Frames that are not stored. Each is told after the events that came before it.
    async fn passing(&mut self, frame: &ServerFrame) -> Result<(), End> {
        let event = match frame.t.as_str() {
            "drained" => Ok(Some(Event::Drained)),
            "typing" => frame.data().map(|typing| Some(Event::Typing(typing))),
            "presence" => frame.data().map(|presence| Some(Event::Presence(presence))),
            "goaway" => frame.data().map(|goaway: GoAway| {
                let wait = Duration::from_millis(goaway.reconnect_after_ms);
                self.wait = Some((wait, Instant::now() + WRITE_WITHIN));
                None
            }),
            "auth_expiring" => {
                self.renew_soon();
                Ok(None)
            }
            "ping" => {
                self.write(Frame::new("pong", raw(&frame.d)).to_text()).await?;
                Ok(None)
            }
            "err" => {
                tracing::warn!(error = ?frame.data::<Problem>().map(|problem| problem.code), "the server refused a frame");
                Ok(None)
            }
            _ => Ok(None),
        };
        match event {
            Ok(Some(event)) => {
                self.commit().await?;
                self.client.tell(event);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a frame that cannot be read"),
        }
        Ok(())
    }

    /// First the store, then the acknowledgement.
    async fn commit(&mut self) -> Result<(), End> {
        if self.last_n == 0 {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty()
            && let Err(error) = self.client.take(batch).await
        {
            tracing::error!(%error, "events could not be stored, so they are not acknowledged");
            return Err(End::again(None));
        }
        let n = std::mem::take(&mut self.last_n);
        self.write(Frame::new("ack", Ack { n }).to_text()).await
    }

    async fn command(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Request { t, d, answer } => {
                let id = self.socket.next_id();
                self.unanswered.insert(id, answer);
                self.write(Frame::new(t, raw(&d)).numbered(id).to_text()).await
            }
            Command::Tell { t, d } => self.write(Frame::new(t, raw(&d)).to_text()).await,
        }
    }

    async fn write(&mut self, text: String) -> Result<(), End> {
        match tokio::time::timeout(WRITE_WITHIN, self.socket.send_text(text)).await {
            Ok(Ok(())) => Ok(()),
            // The close frame that tells why may still be there to be read.
            Ok(Err(_)) => Err(self.why().await),
            Err(_) => Err(End::again(None)),
        }
    }

    async fn why(&mut self) -> End {
        let code = self.socket.closed_within(Duration::from_secs(1)).await.ok().flatten();
        End::closed(code)
    }

    /// A token is fetched beside the reading, or the connection would be deaf meanwhile.
    fn renew_soon(&self) {
        let (client, stale, renewed) = (self.client.unguarded(), self.token.clone(), self.renewed.0.clone());
        tokio::spawn(async move {
            match client.renew(&stale).await {
                Ok(token) => drop(renewed.send(token).await),
                Err(error) => tracing::debug!(%error, "no new token; the server will close with 4401"),
            }
        });
    }

    async fn authenticate(&mut self, token: String) -> Result<(), End> {
        let id = self.socket.next_id();
        let text = Frame::new("auth", Auth { token: token.clone() }).numbered(id).to_text();
        self.token = token;
        self.write(text).await
    }

    fn check_chain(&mut self, event: &Durable) {
        let Durable::NewMessage(message) = event else { return };
        let last = self.chain.insert(message.conversation_id, message.seq);
        if let (Some(expected_after), Some(after_seq)) = (last, message.after_seq)
            && expected_after != after_seq
        {
            let conversation_id = message.conversation_id;
            tracing::warn!(%conversation_id, expected_after, after_seq, "a gap between two messages");
            self.client.tell(Event::Gap { conversation_id, expected_after, after_seq });
        }
    }
}

/// Text that is JSON already; anything else becomes `null`, which the server refuses.
fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}

impl Client {
    /// Tells the server that everything up to `up_to` was read, and keeps it.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn mark_read(&self, conversation: ConversationId, up_to: Seq) -> Result<()> {
        let frame =
            serde_json::to_string(&MarkRead { conversation_id: conversation, up_to }).map_err(Error::protocol)?;
        let by_socket = match self.inner.link.state() {
            LinkState::Up => self.inner.link.request::<serde_json::Value>("mark_read", frame).await.map(|_| ()),
            _ => Err(Error::Transport("there is no connection".to_owned())),
        };
        match by_socket {
            Err(Error::Transport(_) | Error::Timeout) => {
                self.call(|rest| async move { rest.mark_read(conversation, up_to).await }).await?;
            }
            answered => answered?,
        }
        self.inner.store.run(move |tx| tx.raise_read_mark(conversation, up_to)).await
    }
}
