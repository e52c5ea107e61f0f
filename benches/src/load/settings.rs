//! What is to be run, as flags and as TOML: one struct for both, with the same names, defaults and words.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::wire::{Content, Protocol};

/// Whom to drive, and what to watch meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// The server's address, as http://127.0.0.1:8080; repeat it for the nodes of a cluster, over which the members of
    /// each conversation are spread.
    #[arg(long, value_name = "URL", required = true)]
    pub url: Vec<String>,
    /// Who is driven: a file of `sotto user seed`.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<PathBuf>,
    /// A process of this machine to watch, as PID (the server) or NAME=PID; the listener of a loopback address is found
    /// without it.
    #[arg(long, value_name = "[NAME=]PID")]
    pub pid: Vec<String>,
    /// The database's process, its children included: the same as --pid database=PID.
    #[arg(long, value_name = "PID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_pid: Option<u32>,
    /// How the server is spoken to.
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Protocol,
    /// Generator threads; a conversation lives in one of them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Loopback addresses that connections come from: 127.0.0.1, 127.0.0.2, …; each has about 28,000 ports.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=250))]
    pub sources: u32,
    /// Put load on a server that is not on this machine. You know whose it is.
    #[arg(long)]
    pub remote: bool,
    /// Show the figures of a run whose ledger does not balance, marked as such: for a server that is known to reorder, and
    /// is to be measured in spite of it.
    #[arg(long)]
    pub tolerate_faults: bool,
    /// A name for the run in summary and report.
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Run it so often; figures are medians, and their spread is the noise.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            url: Vec::new(),
            users: None,
            pid: Vec::new(),
            database_pid: None,
            protocol: Protocol::default(),
            threads: 1,
            sources: 1,
            remote: false,
            tolerate_faults: false,
            title: None,
            repeat: 1,
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Span {
    /// Seconds of load that are measured.
    #[arg(long, value_name = "N", default_value_t = Span::default().seconds, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub seconds: u64,
    /// Seconds of load before them.
    #[arg(long, value_name = "N", default_value_t = Span::default().warmup, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub warmup: u64,
}

impl Default for Span {
    fn default() -> Self {
        Self { seconds: 20, warmup: 3 }
    }
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Message {
    /// Bytes of ciphertext.
    #[arg(long, value_name = "BYTES", default_value_t = Message::default().size, value_parser = clap::value_parser!(u32).range(1..=98_304))]
    pub size: u32,
    /// An envelope for each device of the other members, or one ciphertext for all.
    #[arg(long, value_enum, default_value_t)]
    pub content: Content,
}

impl Default for Message {
    fn default() -> Self {
        Self { size: 256, content: Content::default() }
    }
}

/// Closed loop: each sender keeps so many messages unanswered.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pairs {
    /// Pairs of users; the first writes to the second.
    #[arg(long, value_name = "N", default_value_t = Pairs::default().pairs, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub pairs: u32,
    /// Messages that a sender keeps unanswered.
    #[arg(long, alias = "in-flight", value_name = "N", default_value_t = Pairs::default().window, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub window: u32,
    /// The second writes to the first as well.
    #[arg(long)]
    pub both: bool,
}

impl Default for Pairs {
    fn default() -> Self {
        Self { pairs: 100, window: 8, both: false }
    }
}

/// How a client speaks to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// By its socket.
    #[default]
    Socket,
    /// By requests.
    Rest,
}

/// Open loop: so many messages a second, whatever the server does; latency from the intended moment of sending.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// Messages per second of all senders together.
    #[arg(long, value_name = "N", default_value_t = Rate::default().rate, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: u64,
    /// Pairs of users; the first writes to the second.
    #[arg(long, value_name = "N", default_value_t = Rate::default().pairs, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub pairs: u32,
    /// The second writes to the first as well.
    #[arg(long)]
    pub both: bool,
    /// How messages are sent; they are received by socket in any case.
    #[arg(long, value_enum, default_value_t)]
    pub via: Via,
    /// Further connections that are open and do nothing.
    #[arg(long, value_name = "N", default_value_t = Rate::default().idle, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub idle: u32,
    /// The rate is meant to be beyond what the server can: refusals are counted, and are no failure.
    #[arg(long)]
    pub overload: bool,
}

impl Default for Rate {
    fn default() -> Self {
        Self { rate: 500, pairs: 100, both: false, via: Via::default(), idle: 0, overload: false }
    }
}

/// Connections one after the other: sign-in, token check, backlog, `drained`, goodbye.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connect {
    /// Users that connect in turn.
    #[arg(long, value_name = "N", default_value_t = Connect::default().connections, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// How many connect at the same time.
    #[arg(long, value_name = "N", default_value_t = Connect::default().at_once, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub at_once: u32,
}

impl Default for Connect {
    fn default() -> Self {
        Self { connections: 1000, at_once: 64 }
    }
}

/// Connections that do nothing: what each of them costs the server's memory.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Idle {
    /// How many.
    #[arg(long, value_name = "N", default_value_t = Idle::default().connections, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// How many connect at the same time.
    #[arg(long, value_name = "N", default_value_t = Idle::default().at_once, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub at_once: u32,
    /// Seconds between the last one and the look at the memory.
    #[arg(long, value_name = "N", default_value_t = Idle::default().settle, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub settle: u64,
    /// Seconds in which the idle connections' processor time is measured.
    #[arg(long, value_name = "N", default_value_t = Idle::default().watch, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: u64,
}

impl Default for Idle {
    fn default() -> Self {
        Self { connections: 5000, at_once: 64, settle: 5, watch: 5 }
    }
}

/// Groups in which one writes and all read: deliveries per second.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fanout {
    /// Members of a group; the users are seeded with --group and the same number.
    #[arg(long, value_name = "N", default_value_t = Fanout::default().members, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub members: u32,
    /// Groups.
    #[arg(long, value_name = "N", default_value_t = Fanout::default().groups, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub groups: u32,
    /// Members of a group that write.
    #[arg(long, value_name = "N", default_value_t = Fanout::default().senders, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub senders: u32,
    /// Messages that a sender keeps under way: not answered, or not with all members.
    #[arg(long, value_name = "N", default_value_t = Fanout::default().window, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub window: u32,
}

impl Default for Fanout {
    fn default() -> Self {
        Self { members: 100, groups: 10, senders: 1, window: 4 }
    }
}

/// Devices that were away: a backlog for each, then all come back at once.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Offline {
    /// Devices that are away.
    #[arg(long, value_name = "N", default_value_t = Offline::default().devices, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub devices: u32,
    /// Messages that wait for each.
    #[arg(long, value_name = "N", default_value_t = Offline::default().messages, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub messages: u32,
    /// How they get their backlog.
    #[arg(long, value_enum, default_value_t)]
    pub via: Via,
    /// How many come back at the same time.
    #[arg(long, value_name = "N", default_value_t = Offline::default().at_once, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub at_once: u32,
}

impl Default for Offline {
    fn default() -> Self {
        Self { devices: 1000, messages: 200, via: Via::default(), at_once: 1000 }
    }
}

/// All connections are cut at once, and all come back.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storm {
    /// How many.
    #[arg(long, value_name = "N", default_value_t = Storm::default().connections, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Seconds between the last one and the cut.
    #[arg(long, value_name = "N", default_value_t = Storm::default().settle, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub settle: u64,
    /// Kill this process, the node at the first --url, instead of cutting; all come back to the last --url.
    #[arg(long, value_name = "PID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill: Option<u32>,
}

impl Default for Storm {
    fn default() -> Self {
        Self { connections: 5000, settle: 3, kill: None }
    }
}

/// A day of a messenger in small groups: typing, messages, media, reads, and some who send by REST.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// Messages per second of all senders together.
    #[arg(long, value_name = "N", default_value_t = Mix::default().rate, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: u64,
    /// Members of a conversation; the users are seeded with --group and the same number, or with --pairs for 2.
    #[arg(long, value_name = "N", default_value_t = Mix::default().members, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub members: u32,
    /// Conversations.
    #[arg(long, value_name = "N", default_value_t = Mix::default().conversations, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub conversations: u32,
    /// Of 100 messages, how many are announced by `typing`.
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().typing, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub typing: u32,
    /// Of 100 messages that came, how many are marked as read.
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().reads, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub reads: u32,
    /// Of 100 messages, how many are as large as a preview of media.
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().media, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub media: u32,
    /// Bytes of such a message's ciphertext.
    #[arg(long, value_name = "BYTES", default_value_t = Mix::default().media_size, value_parser = clap::value_parser!(u32).range(1..=98_304))]
    pub media_size: u32,
    /// Of 100 messages, how many are sent by REST.
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().rest, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub rest: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            rate: 500,
            members: 4,
            conversations: 250,
            typing: 50,
            reads: 30,
            media: 5,
            media_size: 16_384,
            rest: 10,
        }
    }
}

/// The mix for a long time, and whether memory grows.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Soak {
    /// Minutes that are measured.
    #[arg(long, value_name = "N", default_value_t = Soak::default().minutes, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub minutes: u64,
}

impl Default for Soak {
    fn default() -> Self {
        Self { minutes: 60 }
    }
}
