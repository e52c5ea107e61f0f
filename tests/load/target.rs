//! A small server that speaks the contract's frames and breaks what a test asks it to break.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// What the server does beside its duty.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// The delivery with this number does not happen.
    pub drops: Option<u64>,
    /// The delivery with this number happens twice.
    pub doubles: Option<u64>,
    /// The delivery with this number comes after the next one.
    pub swaps: Option<u64>,
    /// The send with this number gets no answer.
    pub silent: Option<u64>,
    /// Every so many sends one is refused.
    pub refuses: Option<u64>,
    /// What a message takes; the next one waits for it.
    pub service: Duration,
    /// From so long after the first send nothing is done for so long.
    pub stall: Option<(Duration, Duration)>,
}

/// What happens on the whole server, message by message.
#[derive(Default)]
struct Desk {
    lines: HashMap<String, UnboundedSender<Value>>,
    /// Events of each device, and the last number of each conversation.
    events: HashMap<String, u64>,
    seqs: HashMap<String, u64>,
    last: HashMap<String, u64>,
    sends: u64,
    deliveries: u64,
    kept: Option<(String, Value)>,
}

/// A server; it ends with the test.
pub struct LoadTarget {
    /// `http://127.0.0.1:PORT`
    pub url: String,
}

impl LoadTarget {
    /// Starts one.
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let desk = Arc::new(Mutex::new(Desk::default()));
        let (work, mut works) = unbounded_channel::<(String, Value)>();
        let at_desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let mut first = None;
            let mut free = Instant::now();
            while let Some((device, frame)) = works.recv().await {
                let first = *first.get_or_insert_with(Instant::now);
                if let Some((after, length)) = behaviour.stall
                    && first.elapsed() >= after
                    && first.elapsed() < after + length
                {
                    tokio::time::sleep_until((first + after + length).into()).await;
                }
                // Timers are coarser than a message takes; what is due is worked off.
                free = free.max(Instant::now()) + behaviour.service;
                if free > Instant::now() + Duration::from_millis(2) {
                    tokio::time::sleep_until(free.into()).await;
                }
                at_desk.lock().unwrap().serve(&device, &frame, &behaviour);
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, Arc::clone(&desk), work.clone()));
            }
        });
        Self { url }
    }

    /// Users in pairs, as the server knows them: the token tells device, peer and conversation.
    pub fn users(folder: &Path, pairs: usize) -> PathBuf {
        let line = |index: usize| {
            let device = format!("d{index}");
            let conversation = format!("c{}", index / 2);
            json!({ "user_id": format!("u{index}"), "device_id": device, "access_token": device, "conversation_id": conversation })
        };
        let lines: Vec<String> = (0..pairs * 2).map(|index| line(index).to_string()).collect();
        let file = folder.join("users.jsonl");
        std::fs::write(&file, lines.join("\n")).unwrap();
        file
    }
}

async fn talk(stream: TcpStream, desk: Arc<Mutex<Desk>>, work: UnboundedSender<(String, Value)>) {
    stream.set_nodelay(true).unwrap();
    let mut device = String::new();
    let accept = |request: &Request, mut response: Response| {
        let token = request.headers()["authorization"].to_str().unwrap();
        device = token.trim_start_matches("Bearer ").to_owned();
        response.headers_mut().insert("sec-websocket-protocol", "sotto.v1.json".parse().unwrap());
        Ok(response)
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, accept).await else { return };
    let (mut out, mut inbound) = socket.split();
    let (line, mut frames) = unbounded_channel::<Value>();
    for frame in ["welcome", "drained"] {
        line.send(json!({ "t": frame, "d": {} })).unwrap();
    }
    desk.lock().unwrap().arrive(&device, line.clone());
    tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            if out.feed(Message::text(frame.to_string())).await.is_err()
                || (frames.is_empty() && out.flush().await.is_err())
            {
                return;
            }
        }
    });
    while let Some(Ok(message)) = inbound.next().await {
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        if frame["t"] == "ack" {
            let _ = line.send(json!({ "t": "acked", "d": frame["d"] }));
        } else {
            let _ = work.send((device.clone(), frame));
        }
    }
}

impl Desk {
    fn arrive(&mut self, device: &str, line: UnboundedSender<Value>) {
        self.lines.insert(device.to_owned(), line);
        self.events.insert(device.to_owned(), 0);
        self.last.remove(device);
    }

    fn tell(&self, device: &str, frame: Value) {
        if let Some(line) = self.lines.get(device) {
            let _ = line.send(frame);
        }
    }

    fn serve(&mut self, device: &str, frame: &Value, behaviour: &Behaviour) {
        self.sends += 1;
        let sends = self.sends;
        if behaviour.refuses.is_some_and(|every| sends.is_multiple_of(every)) {
            let problem = json!({ "code": "unavailable", "retry_after_ms": 10 });
            return self.tell(device, json!({ "t": "err", "re": frame["id"], "d": problem }));
        }
        let number: usize = device[1..].parse().unwrap();
        let (peer, conversation) = (format!("d{}", number ^ 1), format!("c{}", number / 2));
        let seq = self.seqs.entry(conversation).or_default();
        *seq += 1;
        let seq = *seq;
        let answer = json!({ "message_id": frame["d"]["message_id"], "seq": seq, "duplicate": false });
        if behaviour.silent != Some(sends) {
            self.tell(device, json!({ "t": "ok", "re": frame["id"], "d": answer }));
        }
        self.deliveries += 1;
        let deliveries = self.deliveries;
        let message =
            json!({ "message_id": frame["d"]["message_id"], "seq": seq, "client_seq": frame["d"]["client_seq"] });
        if behaviour.drops == Some(deliveries) {
            return;
        }
        if behaviour.swaps == Some(deliveries) {
            self.kept = Some((peer, message));
            return;
        }
        self.deliver(&peer, message.clone());
        if behaviour.doubles == Some(deliveries) {
            self.deliver(&peer, message);
        }
        if let Some((peer, kept)) = self.kept.take_if(|(kept, _)| *kept == peer) {
            self.deliver(&peer, kept);
        }
    }

    /// Numbers and chain are right even where a message is missing: only the messages' own names tell.
    fn deliver(&mut self, device: &str, mut message: Value) {
        let n = self.events.get_mut(device).unwrap();
        *n += 1;
        let n = *n;
        let seq = message["seq"].as_u64().unwrap();
        message["after_seq"] = self.last.insert(device.to_owned(), seq).unwrap_or_default().into();
        self.tell(device, json!({ "t": "new_message", "n": n, "d": message }));
    }
}
