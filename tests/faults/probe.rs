//! Whether sends are answered: by somebody, at any moment, and by each node, after a fault.

use crate::support::node::TestNode;
use crate::support::people::{Device, pair, shared};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use sotto_client::protocol::message::Sent;
use sotto_client::protocol::{ConversationId, ErrorCode};
use sotto_client::rest::HistoryRange;
use sotto_client::{Error, Rest};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long a client waits for an answer before it goes elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two sends of one client.
const PACE: Duration = Duration::from_millis(50);

/// A client that sends one message after the other, to the next node when one does not answer.
pub struct Probe {
    device: Device,
    conversation: ConversationId,
    answers: Arc<Mutex<Vec<Instant>>>,
    /// The last reason why something was not answered.
    trouble: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probe {
    /// Signs somebody in and begins, at the entrance that is its home.
    pub async fn start(node: &TestNode, urls: &[String], home: usize) -> Self {
        let (device, bob, conversation) = pair(node).await;
        // Whom nobody has answered may not go on writing.
        bob.rest.send_message(&shared(conversation, "go on"), None).await.expect("a message");
        let rests: Vec<Rest> = urls.iter().map(|url| at(url, &device)).collect();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let trouble = Arc::new(Mutex::new(String::new()));
        let (kept, noted) = (Arc::clone(&answers), Arc::clone(&trouble));
        let task = tokio::spawn(async move {
            let (mut here, mut moved) = (home, Instant::now());
            loop {
                if here != home && moved.elapsed() > Duration::from_secs(3) {
                    here = home;
                }
                match send(&rests[here], conversation).await {
                    Ok(_) => {
                        kept.lock().expect("answers").push(Instant::now());
                        tokio::time::sleep(PACE).await;
                    }
                    Err(error) => {
                        *noted.lock().expect("trouble") = format!("entrance {here}: {error}");
                        (here, moved) = ((here + 1) % rests.len(), Instant::now());
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
        Self { device, conversation, answers, trouble, task }
    }

    /// The longest time since then without an answer, for somebody who may ask any node.
    pub fn pause_since(&self, begun: Instant) -> Duration {
        let answers = self.answers.lock().expect("answers");
        let mut last = answers.iter().rev().find(|at| **at < begun).copied().unwrap_or(begun);
        let mut longest = Duration::ZERO;
        for at in answers.iter().filter(|at| **at >= begun).copied().chain([Instant::now()]) {
            longest = longest.max(at.duration_since(last));
            last = at;
        }
        longest
    }

    /// Why the last send that failed did.
    pub fn trouble(&self) -> String {
        self.trouble.lock().expect("trouble").clone()
    }

    /// How long it takes until this entrance answers a send; `None`: not within the time.
    ///
    /// A new try begins five times a second, whether or not the ones before it have ended.
    pub async fn answered_by(&self, url: &str, within: Duration) -> Option<Duration> {
        let begun = Instant::now();
        let mut tries = FuturesUnordered::new();
        let mut beat = tokio::time::interval(Duration::from_millis(200));
        while begun.elapsed() < within {
            tokio::select! {
                _ = beat.tick() => {
                    // A connection of its own: an old one may lead to where nobody is any more.
                    let rest = at(url, &self.device);
                    tries.push(async move {
                        let answer = send(&rest, self.conversation).await;
                        if let Err(error) = &answer {
                            *self.trouble.lock().expect("trouble") = format!("{url}: {error}");
                        }
                        answer.is_ok()
                    });
                }
                Some(true) = tries.next() => return Some(begun.elapsed()),
            }
        }
        None
    }

    /// Sends of about so many bytes to an entrance, eight at once.
    pub async fn send_to(&self, url: &str, size: usize) -> Vec<Result<Sent, Error>> {
        let rest = at(url, &self.device);
        let sends = (0..8).map(async |_| {
            // No two alike: a database may compress.
            let words = std::iter::repeat_with(|| uuid::Uuid::new_v4().simple().to_string());
            let text: String = words.take(size / 32).collect();
            rest.send_message(&shared(self.conversation, &text), None).await
        });
        join_all(sends).await
    }

    /// One read of the conversation from an entrance.
    ///
    /// # Errors
    /// Why it was not answered, or how it was refused.
    pub async fn read_from(&self, url: &str) -> Result<usize, Error> {
        let rest = at(url, &self.device);
        let range = HistoryRange { limit: Some(5), ..HistoryRange::default() };
        let page = tokio::time::timeout(PATIENCE, rest.history(self.conversation, range)).await;
        Ok(page.map_err(|_| Error::Timeout)??.items.len())
    }
}

fn at(url: &str, device: &Device) -> Rest {
    Rest::new(url).expect("a URL").with_token(&device.tokens.access_token)
}

async fn send(rest: &Rest, conversation: ConversationId) -> Result<Sent, Error> {
    let message = shared(conversation, "is anybody there?");
    tokio::time::timeout(PATIENCE, rest.send_message(&message, None)).await.map_err(|_| Error::Timeout)?
}

/// Whether a send was refused as the contract says that it is when the database cannot take it.
pub fn is_refusal(error: &Error) -> bool {
    error.code() == Some(ErrorCode::Unavailable)
}
