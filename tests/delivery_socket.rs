//! What a device is promised over its socket: every message once it was answered, in order, until it is
//! acknowledged, and not after.

mod attempts;
mod away;
mod frames;
mod life;
mod marks;
mod window;

use crate::support::node::TestNode;
use crate::support::people::{Device, pair, shared};
use crate::support::wire::PATIENCE;
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_client::protocol::event::Event;
use sotto_client::protocol::frame::Welcome;
use sotto_client::protocol::message::Message;
use sotto_client::protocol::{ConversationId, Seq};
use sotto_client::{Socket, SocketOptions, socket::ServerFrame};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A socket read like a ledger: every number follows the one before it, and every message names the one
/// before it in its conversation.
struct Reader {
    socket: Socket,
    welcome: Welcome,
    /// The last number.
    n: u64,
    chain: HashMap<ConversationId, Seq>,
    drained: bool,
    /// What came while something else was waited for.
    later: VecDeque<ServerFrame>,
}

impl Reader {
    async fn open(device: &Device) -> Self {
        Self::open_at(device, &device.url).await
    }

    async fn open_at(device: &Device, url: &str) -> Self {
        let options = SocketOptions::hello(&device.tokens.access_token);
        let (socket, welcome) = Socket::connect(url, &options).await.expect("welcome");
        Self::of(socket, welcome)
    }

    fn of(socket: Socket, welcome: Welcome) -> Self {
        Self { socket, welcome, n: 0, chain: HashMap::new(), drained: false, later: VecDeque::new() }
    }

    /// One that has been told everything that waited, and has acknowledged it.
    async fn settled(device: &Device) -> Self {
        Self::settled_at(device, &device.url).await
    }

    async fn settled_at(device: &Device, url: &str) -> Self {
        let mut reader = Self::open_at(device, url).await;
        reader.drain().await;
        reader.ack().await;
        reader
    }

    /// The next frame, with its number and its place in the chain checked.
    async fn frame_within(&mut self, wait: Duration) -> sotto_client::Result<ServerFrame> {
        match self.later.pop_front() {
            Some(frame) => Ok(frame),
            None => self.receive(wait).await,
        }
    }

    /// Reads until a frame is the one that is waited for; the others are kept for later.
    async fn until(&mut self, what: &str, mut is_it: impl FnMut(&ServerFrame) -> bool) {
        loop {
            let frame = self.receive(PATIENCE).await.unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
            if is_it(&frame) {
                return;
            }
            self.later.push_back(frame);
        }
    }

    async fn receive(&mut self, wait: Duration) -> sotto_client::Result<ServerFrame> {
        let frame = self.socket.next_frame_within(wait).await?;
        if let Some(n) = frame.n {
            assert_eq!(n, self.n + 1, "numbers have no gap: {} {}", frame.t, frame.d);
            self.n = n;
        }
        if let Some(Event::NewMessage(message)) = frame.event().expect("an event that can be read") {
            let after = message.after_seq.expect("new_message carries after_seq");
            assert!(after < message.seq, "after_seq {after} of {}", message.seq);
            if let Some(before) = self.chain.insert(message.conversation_id, message.seq) {
                assert_eq!(after, before, "the chain of a conversation is whole at {}", message.seq);
            }
        }
        if frame.t == "drained" {
            assert!(!self.drained, "drained comes once");
            self.drained = true;
        }
        Ok(frame)
    }

    async fn frame(&mut self) -> ServerFrame {
        self.frame_within(PATIENCE).await.expect("another frame")
    }

    async fn next_of(&mut self, t: &str) -> ServerFrame {
        loop {
            let frame = self.frame_within(PATIENCE).await.unwrap_or_else(|error| panic!("waiting for {t}: {error}"));
            if frame.t == t {
                return frame;
            }
        }
    }

    async fn message(&mut self) -> Message {
        match self.next_of("new_message").await.event() {
            Ok(Some(Event::NewMessage(message))) => message,
            other => panic!("not a message: {other:?}"),
        }
    }

    async fn seqs(&mut self, count: usize) -> Vec<Seq> {
        let mut seqs = Vec::with_capacity(count);
        while seqs.len() < count {
            seqs.push(self.message().await.seq);
        }
        seqs
    }

    /// Everything up to `drained`: the durable events.
    async fn drain(&mut self) -> Vec<ServerFrame> {
        let mut events = Vec::new();
        while !self.drained {
            let frame = self.frame().await;
            if frame.n.is_some() {
                events.push(frame);
            }
        }
        events
    }

    /// Acknowledges everything that came, and waits until that is durable.
    async fn ack(&mut self) {
        if self.n == 0 {
            return;
        }
        let n = self.n;
        self.socket.ack(n).await.expect("sent");
        self.until("acked", |frame| {
            frame.t == "acked" && frame.data::<serde_json::Value>().expect("acked")["n"].as_u64() >= Some(n)
        })
        .await;
    }

    /// Nothing durable comes for a while.
    async fn quiet(&mut self) {
        let until = Instant::now() + Duration::from_millis(400);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match self.frame_within(left).await {
                Ok(frame) => assert!(frame.n.is_none(), "unexpected {}: {}", frame.t, frame.d),
                Err(sotto_client::Error::Timeout) => return,
                Err(error) => panic!("instead of silence: {error}"),
            }
        }
    }

    /// A round trip through the socket: it lives.
    async fn lives(&mut self) {
        let id = self.socket.request("ping", &serde_json::json!({ "t": 1 })).await.expect("sent");
        self.until("pong", |frame| frame.re == Some(id)).await;
    }

    async fn close_code(mut self) -> Option<u16> {
        self.socket.closed_within(PATIENCE).await.expect("the socket closes")
    }
}

/// A second connection finds nothing and is told so.
async fn nothing_waits_for(device: &Device) {
    let mut reader = Reader::open(device).await;
    let events = reader.drain().await;
    assert!(events.is_empty(), "unexpected {events:?}");
    reader.quiet().await;
}

/// How far the slowest device of this device's user is, as the server shows it.
async fn delivered(device: &Device, conversation: ConversationId) -> Seq {
    device.rest.conversation(conversation).await.expect("a conversation").delivered_up_to
}

/// The same, asked of a node that has been started again.
async fn delivered_at(device: &Device, node: &TestNode, conversation: ConversationId) -> Seq {
    device.at(node).conversation(conversation).await.expect("a conversation").delivered_up_to
}

/// Waits until the devices of a user are so far.
async fn delivered_is(device: &Device, conversation: ConversationId, up_to: Seq) {
    let begun = Instant::now();
    loop {
        let now = delivered(device, conversation).await;
        if now == up_to {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "delivered_up_to is {now} and not {up_to}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends so many messages by REST, one after the other.
async fn send_many(from: &Device, conversation: ConversationId, count: usize) {
    for number in 0..count {
        from.rest.send_message(&shared(conversation, &format!("message {number}")), None).await.expect("sent");
    }
}

async fn group(owner: &Device, members: &[&Device], name: &str) -> ConversationId {
    let members = members.iter().map(|member| member.user_id).collect();
    let request = CreateConversation { kind: ConversationType::Group, members, name: Some(name.to_owned()) };
    owner.rest.create_conversation(&request, None).await.expect("a group").0.conversation_id
}
