//! What is to be driven, how fast, and how the devices live.

use std::time::Duration;

use crate::account::Account;

/// Everything that a run begins with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The nodes, as `http://127.0.0.1:8080`.
    pub urls: Vec<String>,
    /// Who is driven.
    pub accounts: Vec<Account>,
    /// Fixes all choices. When what happens is the machine's.
    pub seed: u64,
    /// Messages per second of all devices together; 0: as fast as answers come.
    pub rate: f64,
    /// Unanswered sends of one socket.
    pub depth: usize,
    /// Bytes of ciphertext, at least those of the ids in it.
    pub size: usize,
    /// How long a client waits for an answer before it goes elsewhere. A sound server answers within 5 s.
    pub patience: Duration,
    /// How the devices live.
    pub mix: Mix,
}

impl Plan {
    /// A plan for these nodes and devices: 50 messages a second, 8 unanswered, 128 bytes.
    #[must_use]
    pub fn new(urls: Vec<String>, accounts: Vec<Account>, seed: u64) -> Self {
        Self {
            urls,
            accounts,
            seed,
            rate: 50.0,
            depth: 8,
            size: 128,
            patience: Duration::from_secs(6),
            mix: Mix::default(),
        }
    }
}

/// How devices spend their time.
#[derive(Clone, Debug)]
pub struct Mix {
    /// How often, compared with the other two, the next life is one on a socket.
    pub socket: u32,
    /// … by REST.
    pub rest: u32,
    /// … away.
    pub away: u32,
    /// The shortest life.
    pub shortest: Duration,
    /// The longest life.
    pub longest: Duration,
    /// Percent of sockets that end without a close.
    pub cut: u32,
    /// Percent of sockets that are opened while the `hello` of an older one is under way, which is left open.
    pub hasty: u32,
    /// Percent of sends by REST that go to two nodes at once.
    pub twice: u32,
    /// Percent of messages with one ciphertext for all.
    pub shared: u32,
    /// Percent of messages that are marked as read.
    pub reads: u32,
    /// Whether one-time keys are uploaded and claimed by many at once.
    pub claims: bool,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            socket: 6,
            rest: 2,
            away: 1,
            shortest: Duration::from_millis(300),
            longest: Duration::from_secs(4),
            cut: 50,
            hasty: 10,
            twice: 20,
            shared: 50,
            reads: 8,
            claims: true,
        }
    }
}
