//! Devices that send, acknowledge, read and register until they are told to end, and what they were promised.

use crate::support::node::TestNode;
use crate::support::people::{Device, fresh_phone, info, pair, shared};
use sotto_client::protocol::auth::{Purpose, RegisterRequest};
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_client::protocol::event::Event;
use sotto_client::protocol::message::Sent;
use sotto_client::protocol::{ConversationId, DeviceId, MessageId, Seq, UserId};
use sotto_client::socket::{Incoming, ServerFrame};
use sotto_client::{DeviceKeys, Rest, Socket};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Sends of one device that are not answered yet.
const IN_FLIGHT: usize = 6;

/// Numbers that come out alike for the same seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least `from`, below `to`.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.roll() % (to - from)
    }
}

/// A send that was answered with `ok`.
#[derive(Clone)]
pub struct Kept {
    pub conversation: ConversationId,
    pub seq: Seq,
    pub message: MessageId,
    pub device: DeviceId,
    pub text: String,
}

/// What the server has promised so far.
#[derive(Clone, Default)]
pub struct Facts {
    pub sent: Vec<Kept>,
    /// Confirmed by `acked`.
    pub delivered: HashMap<(DeviceId, ConversationId), Seq>,
    /// Confirmed by `ok`.
    pub read: HashMap<(UserId, ConversationId), Seq>,
    /// Tokens of accounts whose registration was answered.
    pub registered: Vec<String>,
    pub refused: usize,
}

impl Facts {
    /// Sends, marks, accounts.
    pub fn counts(&self) -> [usize; 3] {
        [self.sent.len(), self.delivered.len() + self.read.len(), self.registered.len()]
    }
}

/// Everybody, and who speaks with whom.
pub struct World {
    pub devices: Vec<Arc<Device>>,
    /// Each with the places of its members' devices.
    pub circles: Vec<(ConversationId, Vec<usize>)>,
}

/// A load that runs.
pub struct Load {
    facts: Arc<Mutex<Facts>>,
    is_over: Arc<AtomicBool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl World {
    /// So many direct conversations, and a group of everybody's first.
    pub async fn make(node: &TestNode, pairs: usize) -> Self {
        let (mut devices, mut circles) = (Vec::new(), Vec::new());
        for index in 0..pairs {
            let (alice, bob, conversation) = pair(node).await;
            devices.extend([Arc::new(alice), Arc::new(bob)]);
            circles.push((conversation, vec![2 * index, 2 * index + 1]));
        }
        let members: Vec<usize> = (0..devices.len()).step_by(2).collect();
        let others = members[1..].iter().map(|member| devices[*member].user_id).collect();
        let request = CreateConversation { kind: ConversationType::Group, members: others, name: None };
        let group = devices[0].rest.create_conversation(&request, None).await.expect("a group").0;
        circles.push((group.conversation_id, members));
        Self { devices, circles }
    }

    pub fn start(&self, node: &TestNode, seed: u64) -> Load {
        let load = Load { facts: Arc::default(), is_over: Arc::new(AtomicBool::new(false)), tasks: Mutex::default() };
        let mut dice = Dice(seed);
        for (place, device) in self.devices.iter().enumerate() {
            let own = self.circles.iter().filter(|(_, members)| members.contains(&place)).map(|(id, _)| *id).collect();
            let line = Line {
                device: Arc::clone(device),
                circles: own,
                dice: Dice(dice.roll()),
                facts: Arc::clone(&load.facts),
                composed: 0,
                waiting: HashMap::new(),
                window: VecDeque::new(),
                last: 0,
                acked: 0,
            };
            let task = tokio::spawn(line.live(Arc::clone(&load.is_over)));
            load.tasks.lock().unwrap().push(task);
        }
        let newcomers = newcomers(node.url.clone(), node.folder.path().to_owned(), &load);
        load.tasks.lock().unwrap().push(tokio::spawn(newcomers));
        load
    }
}

impl Load {
    pub fn facts(&self) -> Facts {
        self.facts.lock().unwrap().clone()
    }

    pub async fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        for task in tasks {
            task.await.expect("a load that does not panic");
        }
    }
}

/// Registers an account as a phone would, and returns its access token.
async fn newcomer(url: &str, phones: &Path) -> String {
    let (phone, rest) = (fresh_phone(), Rest::new(url).expect("a URL"));
    let verification = rest.verify(&phone, Purpose::Registration).await.expect("a code is sent");
    let outbox = std::fs::read_to_string(phones.join("outbox.jsonl")).expect("the outbox");
    let line = outbox.lines().rev().find(|line| line.contains(&phone)).expect("a message to this number");
    let text: serde_json::Value = serde_json::from_str(line).expect("JSON lines");
    let request = RegisterRequest {
        verification_id: verification.verification_id,
        code: text["code"].as_str().expect("a code").to_owned(),
        device: info("newcomer"),
        keys: DeviceKeys::generate().sign_in_keys(2).expect("keys"),
        totp: None,
        backup_code: None,
        pin: None,
        replace: None,
    };
    rest.register(&request).await.expect("registered").access_token
}

/// One account after the other.
fn newcomers(url: String, phones: PathBuf, load: &Load) -> impl Future<Output = ()> + use<> {
    let (facts, is_over) = (Arc::clone(&load.facts), Arc::clone(&load.is_over));
    async move {
        while !is_over.load(Ordering::SeqCst) {
            let token = newcomer(&url, &phones).await;
            facts.lock().unwrap().registered.push(token);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
}

enum Waiting {
    Send { conversation: ConversationId, message: MessageId, text: String },
    Read { conversation: ConversationId, up_to: Seq },
}

/// One device's socket and its accounts.
struct Line {
    device: Arc<Device>,
    circles: Vec<ConversationId>,
    dice: Dice,
    facts: Arc<Mutex<Facts>>,
    composed: u64,
    waiting: HashMap<u64, Waiting>,
    /// Messages that came and were not confirmed.
    window: VecDeque<(u64, ConversationId, Seq)>,
    last: u64,
    acked: u64,
}

impl Line {
    async fn live(mut self, is_over: Arc<AtomicBool>) {
        let (mut socket, _) = self.device.socket().await;
        while !is_over.load(Ordering::SeqCst) {
            while self.waiting.len() < IN_FLIGHT {
                self.send(&mut socket).await;
            }
            match tokio::time::timeout(Duration::from_millis(50), socket.next()).await {
                Ok(Ok(Incoming::Frame(frame))) => self.frame(&mut socket, &frame).await,
                Ok(Ok(Incoming::Alive)) | Err(_) => {}
                Ok(other) => panic!("the socket of {} ended: {other:?}", self.device.device_id),
            }
        }
    }

    async fn send(&mut self, socket: &mut Socket) {
        self.composed += 1;
        let conversation = self.circles[self.dice.within(0, self.circles.len() as u64) as usize];
        let padding = "x".repeat(self.dice.within(0, 2_000) as usize);
        let text = format!("{} of {} {padding}", self.composed, self.device.device_id);
        let message = shared(conversation, &text);
        let id = socket.request("send_message", &message).await.expect("an open socket");
        self.waiting.insert(id, Waiting::Send { conversation, message: message.message_id, text });
    }

    async fn frame(&mut self, socket: &mut Socket, frame: &ServerFrame) {
        if let Some(waiting) = frame.re.and_then(|re| self.waiting.remove(&re)) {
            return self.answered(waiting, frame);
        }
        if frame.t == "acked" {
            let n = serde_json::from_str::<serde_json::Value>(&frame.d).unwrap()["n"].as_u64().expect("a number");
            let mut facts = self.facts.lock().unwrap();
            while let Some((_, conversation, seq)) = self.window.pop_front_if(|(number, ..)| *number <= n) {
                facts.delivered.insert((self.device.device_id, conversation), seq);
            }
            return;
        }
        let Some(n) = frame.n else { return };
        self.last = n;
        if let Ok(Some(Event::NewMessage(message))) = frame.event() {
            let (conversation, up_to) = (message.conversation_id, message.seq);
            self.window.push_back((n, conversation, up_to));
            if self.dice.within(0, 20) == 0 {
                let mark = serde_json::json!({ "conversation_id": conversation, "up_to": up_to });
                let id = socket.request("mark_read", &mark).await.expect("an open socket");
                self.waiting.insert(id, Waiting::Read { conversation, up_to });
            }
        }
        if n - self.acked >= 10 {
            self.acked = n;
            socket.ack(n).await.expect("an open socket");
        }
    }

    fn answered(&self, waiting: Waiting, frame: &ServerFrame) {
        let mut facts = self.facts.lock().unwrap();
        match waiting {
            Waiting::Send { conversation, message, text } => match frame.answer::<Sent>() {
                Ok(sent) => {
                    let device = self.device.device_id;
                    facts.sent.push(Kept { conversation, seq: sent.seq, message, device, text });
                }
                Err(_) => facts.refused += 1,
            },
            Waiting::Read { conversation, up_to } => match frame.answer::<serde_json::Value>() {
                Ok(_) => {
                    let mark = facts.read.entry((self.device.user_id, conversation)).or_default();
                    *mark = (*mark).max(up_to);
                }
                Err(_) => facts.refused += 1,
            },
        }
    }
}
