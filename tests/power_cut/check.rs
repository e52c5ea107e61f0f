//! Looks up every promise on a node that was started on what a power cut has left.

use super::load::{Facts, Kept, World};
use crate::support::database::Kind;
use crate::support::disk::Cut;
use crate::support::node::TestNode;
use crate::support::people::shared;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::message::Message;
use sotto_client::protocol::{ConversationId, DeviceId, MessageId, Seq};
use sotto_client::rest::HistoryRange;
use sotto_client::{Error, Rest};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

pub const HEADER: &str = "| database | cut | cache | at s | sends answered | marks | accounts | stored | lost | altered | gaps \
    | twice | marks back | accounts gone | refused now | recovery s |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// What was not as promised.
#[derive(Default)]
pub struct Findings {
    /// Messages on the disk, those without an answer included.
    stored: usize,
    lost: Vec<String>,
    /// Whom `lost` counts: each message once, however many miss it.
    missing: HashSet<MessageId>,
    altered: Vec<String>,
    gaps: Vec<String>,
    twice: Vec<String>,
    back: Vec<String>,
    gone: Vec<String>,
    /// What the node should do and does not; also when it does not start.
    refused: Vec<String>,
    /// From power to the last answer, the looking included.
    pub recovery: Duration,
}

impl Findings {
    pub fn broken(text: String) -> Self {
        Self { refused: vec![text], ..Self::default() }
    }

    fn lose(&mut self, kept: &Kept) {
        if self.missing.insert(kept.message) {
            self.lost.push(format!("{}: {} with the number {}", kept.conversation, kept.message, kept.seq));
        }
    }

    fn all(&self) -> [(&'static str, &Vec<String>); 7] {
        [
            ("lost", &self.lost),
            ("altered", &self.altered),
            ("gap", &self.gaps),
            ("twice", &self.twice),
            ("mark back", &self.back),
            ("account gone", &self.gone),
            ("refused", &self.refused),
        ]
    }

    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.all().into_iter().flat_map(|(name, found)| found.iter().map(move |text| format!("{name}: {text}")))
    }

    pub fn count(&self) -> usize {
        self.all().iter().map(|(_, found)| found.len()).sum()
    }

    pub fn row(&self, kind: Kind, number: usize, cut: Cut, at: Duration, counts: &[usize; 3]) -> String {
        let cache = match cut {
            Cut::Flushed => "lost".to_owned(),
            Cut::Written => "written".to_owned(),
            Cut::Torn { one_in, .. } => format!("torn, 1 in {one_in} lost"),
        };
        let [sent, marks, accounts] = counts;
        let found: Vec<String> = self.all().iter().map(|(_, found)| found.len().to_string()).collect();
        format!(
            "| {kind:?} | {number} | {cache} | {:.2} | {sent} | {marks} | {accounts} | {} | {} | {:.1} |",
            at.as_secs_f64(),
            self.stored,
            found.join(" | "),
            self.recovery.as_secs_f64()
        )
    }
}

async fn history(rest: &Rest, conversation: ConversationId) -> Result<Vec<Message>, Error> {
    let (mut entries, mut after): (Vec<Message>, Seq) = (Vec::new(), 0);
    loop {
        let range = HistoryRange { after_seq: Some(after), before_seq: None, limit: Some(500) };
        let page = rest.history(conversation, range).await?;
        let Some(last) = page.items.last() else { return Ok(entries) };
        after = last.seq;
        entries.extend(page.items);
        if page.next.is_none() {
            return Ok(entries);
        }
    }
}

/// A log as one of its members reads it.
struct Log {
    conversation: ConversationId,
    reader: DeviceId,
    entries: Vec<Message>,
}

fn check_log(log: &Log, promised: &Facts, findings: &mut Findings) {
    let Log { conversation, reader, entries } = log;
    let mut known: HashMap<MessageId, &Message> = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        if entry.seq != place as Seq + 1 {
            findings.gaps.push(format!("{conversation}: {} stands in place {}", entry.seq, place + 1));
        }
        if known.insert(entry.message_id, entry).is_some() {
            findings.twice.push(format!("{conversation}: {}", entry.message_id));
        }
    }
    for kept in promised.sent.iter().filter(|kept| kept.conversation == *conversation) {
        let Some(entry) = known.get(&kept.message) else {
            findings.lose(kept);
            continue;
        };
        // Nobody is given the ciphertext of his own message: it was made for the others.
        let text = (kept.device != *reader).then_some(kept.text.as_bytes());
        let is_same = entry.seq == kept.seq
            && entry.ciphertext.as_ref().map(|bytes| bytes.0.as_slice()) == text
            && entry.from.as_ref().is_some_and(|from| from.device_id == kept.device);
        if !is_same {
            findings.altered.push(format!("{conversation}: {} was answered with {}", entry.seq, kept.seq));
        }
    }
}

/// Repeats the last answered send, and sends a new one that another member gets.
async fn check_sending(
    node: &TestNode,
    world: &World,
    place: usize,
    promised: &Facts,
    last: Seq,
) -> Result<(), String> {
    let (conversation, members) = &world.circles[place];
    let sender = &world.devices[members[0]];
    let receiver = world.devices[members[1]].at(node);
    let rest = sender.at(node);
    let is_its = |kept: &&Kept| kept.conversation == *conversation && kept.device == sender.device_id;
    if let Some(kept) = promised.sent.iter().rev().find(is_its) {
        let mut again = shared(*conversation, &kept.text);
        again.message_id = kept.message;
        let sent = rest.send_message(&again, None).await.map_err(|error| format!("a repeat: {error}"))?;
        if !sent.duplicate || sent.seq != kept.seq {
            return Err(format!("a repeat of {} was answered with {}", kept.seq, sent.seq));
        }
    }
    let message = shared(*conversation, "after the cut");
    let sent = rest.send_message(&message, None).await.map_err(|error| format!("a send: {error}"))?;
    if sent.seq != last + 1 {
        return Err(format!("a new message has the number {} after {last}", sent.seq));
    }
    loop {
        let page = receiver.sync(Some(500)).await.map_err(|error| format!("sync: {error}"))?;
        let is_there = page
            .events
            .iter()
            .any(|event| matches!(event, Event::NewMessage(got) if got.message_id == message.message_id));
        if is_there {
            return Ok(());
        }
        if !page.has_more {
            return Err(format!("the new message {} does not come", sent.seq));
        }
        receiver.sync_ack(&page.cursor).await.map_err(|error| format!("sync ack: {error}"))?;
    }
}

async fn check_marks(node: &TestNode, world: &World, promised: &Facts, findings: &mut Findings) {
    for device in &world.devices {
        let rest = device.at(node);
        for (conversation, _) in &world.circles {
            let delivered = promised.delivered.get(&(device.device_id, *conversation)).copied().unwrap_or(0);
            let read = promised.read.get(&(device.user_id, *conversation)).copied().unwrap_or(0);
            if delivered.max(read) == 0 {
                continue;
            }
            match rest.conversation(*conversation).await {
                // Each of them has one device, so that its mark is the user's.
                Ok(now) if now.delivered_up_to >= delivered && now.read_up_to >= read => {}
                Ok(now) => findings.back.push(format!(
                    "{conversation} of {}: delivered {} was {delivered}, read {} was {read}",
                    device.device_id, now.delivered_up_to, now.read_up_to
                )),
                Err(error) => findings.refused.push(format!("conversation {conversation}: {error}")),
            }
        }
    }
}

pub async fn check(node: &TestNode, world: &World, promised: &Facts) -> Findings {
    let mut findings = Findings::default();
    check_marks(node, world, promised, &mut findings).await;
    for (place, (conversation, members)) in world.circles.iter().enumerate() {
        let mut last = 0;
        // Two of them, so that everybody's text is read by another.
        for reader in members[..2].iter().map(|member| &world.devices[*member]) {
            match history(&reader.at(node), *conversation).await {
                Ok(entries) => {
                    last = entries.last().map_or(0, |entry| entry.seq);
                    let log = Log { conversation: *conversation, reader: reader.device_id, entries };
                    check_log(&log, promised, &mut findings);
                }
                Err(error) => {
                    findings.refused.push(format!("history of {conversation}: {error}"));
                    promised
                        .sent
                        .iter()
                        .filter(|kept| kept.conversation == *conversation)
                        .for_each(|kept| findings.lose(kept));
                }
            }
        }
        findings.stored += last as usize;
        if let Err(text) = check_sending(node, world, place, promised, last).await {
            findings.refused.push(format!("{conversation}: {text}"));
        }
    }
    let mut users = HashSet::new();
    for token in &promised.registered {
        match Rest::new(&node.url).expect("a URL").with_token(token).me().await {
            Ok(me) if users.insert(me.user.user_id) => {}
            Ok(me) => findings.gone.push(format!("{} is two", me.user.user_id)),
            Err(error) => findings.gone.push(error.to_string()),
        }
    }
    findings
}
