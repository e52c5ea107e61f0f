//! Compares what was acknowledged with what every device got: the promises of delivery, as a function of what was seen.
//!
//! It knows nothing of the server, only what the public interface has shown, so that fabricated evidence tests it.

use sotto_client::protocol::{ConversationId, DeviceId, MessageId, Seq, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Everything that was sent, answered and seen.
#[derive(Clone, Default)]
pub struct Evidence {
    /// Who reads what: devices of each conversation.
    pub readers: BTreeMap<ConversationId, Vec<DeviceId>>,
    pub sends: HashMap<MessageId, Sending>,
    /// What each device saw, in its own order of time.
    pub looks: BTreeMap<DeviceId, Vec<Look>>,
    /// Whole logs, read anew at the end by every device.
    pub histories: Vec<History>,
    /// Parts of logs, read in between: number and message must be those of the end.
    pub glances: Vec<(ConversationId, Seq, MessageId)>,
    /// Answers that the contract does not know here.
    pub refused: Vec<String>,
}

/// A message on its way.
#[derive(Clone)]
pub struct Sending {
    pub conversation: ConversationId,
    pub device: DeviceId,
    /// The highest number that was acknowledged in the conversation before this was sent for the first time.
    pub floor: Seq,
    /// How often it was sent again.
    pub repeats: usize,
    pub answers: Vec<Answer>,
}

#[derive(Clone, Copy)]
pub struct Answer {
    /// The socket, and the place of the frame on it; none: by REST.
    pub frame: Option<(u64, u64)>,
    pub seq: Seq,
    pub at: Timestamp,
    pub duplicate: bool,
}

/// What a device saw.
#[derive(Clone)]
pub enum Look {
    /// A connection or a page of the catching up begins.
    Began,
    Got {
        conversation: ConversationId,
        seq: Seq,
        message: MessageId,
        after: Option<Seq>,
        /// Content and sender are those of the message.
        intact: bool,
    },
    /// `acked` or 204: up to here nothing may come again.
    Confirmed { conversation: ConversationId, up_to: Seq },
    /// Somebody's mark, as an event or a conversation's description tells it.
    Mark { conversation: ConversationId, whose: String, up_to: Seq },
}

#[derive(Clone)]
pub struct History {
    pub device: DeviceId,
    pub conversation: ConversationId,
    pub last_seq: Seq,
    pub entries: Vec<(Seq, MessageId)>,
}

/// What broke, each in words.
#[derive(Default, Debug)]
pub struct Verdict {
    pub lost: BTreeSet<String>,
    pub twice: BTreeSet<String>,
    pub gaps: BTreeSet<String>,
    pub reordered: BTreeSet<String>,
    pub back: BTreeSet<String>,
    pub altered: BTreeSet<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.all().iter().all(|(_, found)| found.is_empty())
    }

    pub fn all(&self) -> [(&'static str, &BTreeSet<String>); 6] {
        [
            ("lost", &self.lost),
            ("twice", &self.twice),
            ("gaps", &self.gaps),
            ("reordered", &self.reordered),
            ("marks back", &self.back),
            ("altered", &self.altered),
        ]
    }
}

/// Judges the evidence.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.altered.extend(evidence.refused.iter().cloned());
    let log = logs(evidence, &mut verdict);
    answers(evidence, &log, &mut verdict);
    orders(evidence, &mut verdict);
    for (device, looks) in &evidence.looks {
        device_looks(evidence, &log, *device, looks, &mut verdict);
    }
    verdict
}

/// Which message stands at which number: the first history's word.
type Log = HashMap<ConversationId, BTreeMap<Seq, MessageId>>;

fn logs(evidence: &Evidence, verdict: &mut Verdict) -> Log {
    let mut log = Log::new();
    for history in &evidence.histories {
        let (id, by) = (history.conversation, history.device);
        let mut places: HashMap<MessageId, Seq> = HashMap::new();
        let mut expected = 1;
        for (seq, message) in &history.entries {
            if *seq < expected {
                verdict.reordered.insert(format!("history of {id} for {by}: {seq} where {expected} was next"));
            } else if *seq > expected {
                verdict.gaps.insert(format!("history of {id} for {by}: {seq} where {expected} was next"));
            }
            expected = seq + 1;
            if let Some(other) = places.insert(*message, *seq) {
                verdict.twice.insert(format!("{message} stands at {other} and {seq} of {id}"));
            }
            if evidence.sends.get(message).is_none_or(|sending| sending.conversation != id) {
                verdict.altered.insert(format!("{message} at {seq} of {id} was never sent there"));
            }
            let first = *log.entry(id).or_default().entry(*seq).or_insert(*message);
            if first != *message {
                verdict.reordered.insert(format!("{seq} of {id} is {first} for others, {message} for {by}"));
            }
        }
        if history.last_seq != expected - 1 {
            verdict.gaps.insert(format!(
                "{id} says {} for {by}, its history ends at {}",
                history.last_seq,
                expected - 1
            ));
        }
        for (message, sending) in evidence.sends.iter().filter(|(_, sending)| sending.conversation == id) {
            if !sending.answers.is_empty() && !places.contains_key(message) {
                verdict.lost.insert(format!("{message} was acknowledged, not in the history of {id} for {by}"));
            }
        }
    }
    for (id, seq, message) in &evidence.glances {
        let found = log.get(id).and_then(|log| log.get(seq));
        if found != Some(message) {
            verdict.reordered.insert(format!("{seq} of {id} was {message} in between, at the end {found:?}"));
        }
    }
    log
}

fn answers(evidence: &Evidence, log: &Log, verdict: &mut Verdict) {
    for (message, sending) in &evidence.sends {
        let id = sending.conversation;
        let Some(first) = sending.answers.first() else {
            verdict.lost.insert(format!("{message} to {id} was never answered"));
            continue;
        };
        if sending.answers.iter().any(|answer| (answer.seq, answer.at) != (first.seq, first.at)) {
            let all: Vec<_> = sending.answers.iter().map(|answer| answer.seq).collect();
            verdict.twice.insert(format!("{message} was answered with {all:?} of {id}"));
        }
        if sending.answers.iter().filter(|answer| !answer.duplicate).count() > 1 {
            verdict.twice.insert(format!("{message} was new more than once in {id}"));
        }
        if first.seq <= sending.floor {
            verdict.reordered.insert(format!("{message} got {} of {id} after {}", first.seq, sending.floor));
        }
        let stands = log.get(&id).and_then(|log| log.get(&first.seq));
        if stands.is_some_and(|stands| stands != message) {
            verdict.reordered.insert(format!("{message} was answered with {} of {id}, where another is", first.seq));
        }
    }
}

/// Sends of one connection to one conversation are numbered in the order of their frames.
fn orders(evidence: &Evidence, verdict: &mut Verdict) {
    let mut lines: BTreeMap<(u64, ConversationId), BTreeMap<u64, Seq>> = BTreeMap::new();
    for sending in evidence.sends.values() {
        for answer in sending.answers.iter().filter(|answer| !answer.duplicate) {
            if let Some((connection, frame)) = answer.frame {
                lines.entry((connection, sending.conversation)).or_default().insert(frame, answer.seq);
            }
        }
    }
    for ((connection, id), frames) in lines {
        let seqs: Vec<Seq> = frames.into_values().collect();
        if let Some(pair) = seqs.windows(2).find(|pair| pair[0] >= pair[1]) {
            verdict.reordered.insert(format!("connection {connection}, {id}: {} before {}", pair[0], pair[1]));
        }
    }
}

fn device_looks(evidence: &Evidence, log: &Log, device: DeviceId, looks: &[Look], verdict: &mut Verdict) {
    let mut last: HashMap<ConversationId, Seq> = HashMap::new();
    let mut confirmed: HashMap<ConversationId, Seq> = HashMap::new();
    let mut marks: HashMap<(ConversationId, &str), Seq> = HashMap::new();
    let mut got: HashMap<ConversationId, HashSet<MessageId>> = HashMap::new();
    let is_for = |id: &ConversationId, seq: Seq| {
        let message = log.get(id).and_then(|log| log.get(&seq));
        message.and_then(|message| evidence.sends.get(message)).is_some_and(|sending| sending.device != device)
    };
    for look in looks {
        match look {
            Look::Began => last.clear(),
            Look::Got { conversation: id, seq, message, after, intact } => {
                if !intact {
                    verdict.altered.insert(format!("{message}, {seq} of {id}, is not what was sent to {device}"));
                }
                let stands = log.get(id).and_then(|log| log.get(seq));
                if stands != Some(message) {
                    verdict.reordered.insert(format!("{device} got {message} as {seq} of {id}, there is {stands:?}"));
                }
                if confirmed.get(id).is_some_and(|up_to| seq <= up_to) {
                    verdict.twice.insert(format!("{device} got {seq} of {id} after its mark was confirmed"));
                }
                let before = last.insert(*id, *seq);
                match (before, after) {
                    (Some(before), _) if *seq == before => {
                        verdict.twice.insert(format!("{device} got {seq} of {id} twice on one connection"));
                    }
                    (Some(before), _) if *seq < before => {
                        verdict.reordered.insert(format!("{device} got {seq} of {id} after {before}"));
                    }
                    (Some(before), Some(after)) if before != *after => {
                        verdict.gaps.insert(format!("{device}: {seq} of {id} says after {after}, it was {before}"));
                    }
                    (None, Some(after)) if confirmed.get(id).is_some_and(|up_to| after < up_to) => {
                        verdict
                            .back
                            .insert(format!("{device}: the mark of {id} is {after} after it was confirmed higher"));
                    }
                    _ => {}
                }
                if let Some(passed) = before.or(*after)
                    && let Some(missed) = (passed + 1..*seq).find(|seq| is_for(id, *seq))
                {
                    verdict.gaps.insert(format!("{device} got {seq} of {id} after {passed}, without {missed}"));
                }
                got.entry(*id).or_default().insert(*message);
            }
            Look::Confirmed { conversation, up_to } => {
                let mark = confirmed.entry(*conversation).or_default();
                *mark = (*mark).max(*up_to);
            }
            Look::Mark { conversation, whose, up_to } => {
                let mark = marks.entry((*conversation, whose)).or_default();
                if up_to < mark {
                    verdict.back.insert(format!("{device}: {whose} of {conversation} was {mark}, now {up_to}"));
                }
                *mark = (*mark).max(*up_to);
            }
        }
    }
    for (id, readers) in &evidence.readers {
        if !readers.contains(&device) {
            continue;
        }
        for (message, sending) in &evidence.sends {
            let was_got = got.get(id).is_some_and(|got| got.contains(message));
            if sending.conversation == *id && sending.device != device && !sending.answers.is_empty() && !was_got {
                verdict.lost.insert(format!("{device} never got {message} of {id}"));
            }
            if was_got && sending.device == device {
                verdict.altered.insert(format!("{device} got its own {message} of {id}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ConversationId = ConversationId(uuid::Uuid::from_u128(1));
    const ANN: DeviceId = DeviceId(uuid::Uuid::from_u128(10));
    const BEN: DeviceId = DeviceId(uuid::Uuid::from_u128(11));
    const EVA: DeviceId = DeviceId(uuid::Uuid::from_u128(12));

    fn id(number: u128) -> MessageId {
        MessageId(uuid::Uuid::from_u128(number))
    }

    fn got(seq: Seq, after: Option<Seq>) -> Look {
        Look::Got { conversation: HERE, seq, message: id(seq as u128), after, intact: true }
    }

    fn confirmed(up_to: Seq) -> Look {
        Look::Confirmed { conversation: HERE, up_to }
    }

    fn mark(up_to: Seq) -> Look {
        Look::Mark { conversation: HERE, whose: "ben".to_owned(), up_to }
    }

    /// Ann has sent 1…6 on one socket, but 4 is Ben's; Ben and Eva have got everything, with a crash in between.
    fn clean() -> Evidence {
        let mut evidence = Evidence { readers: BTreeMap::from([(HERE, vec![ANN, BEN, EVA])]), ..Evidence::default() };
        for seq in 1..=6 {
            let answer = Answer {
                frame: Some((if seq == 4 { 8 } else { 7 }, seq as u64)),
                seq,
                at: Timestamp::from_millis(seq),
                duplicate: false,
            };
            let device = if seq == 4 { BEN } else { ANN };
            let sending = Sending { conversation: HERE, device, floor: 0, repeats: 0, answers: vec![answer] };
            evidence.sends.insert(id(seq as u128), sending);
        }
        let entries: Vec<_> = (1..=6).map(|seq| (seq, id(seq as u128))).collect();
        for device in [ANN, BEN, EVA] {
            evidence.histories.push(History { device, conversation: HERE, last_seq: 6, entries: entries.clone() });
        }
        evidence.glances = entries[..3].iter().map(|(seq, message)| (HERE, *seq, *message)).collect();
        evidence.looks = BTreeMap::from([
            (ANN, vec![Look::Began, got(4, Some(0)), mark(2), mark(6), confirmed(4)]),
            (
                BEN,
                vec![
                    Look::Began,
                    got(1, Some(0)),
                    got(2, Some(1)),
                    got(3, Some(2)),
                    confirmed(2),
                    Look::Began,
                    got(3, Some(2)),
                    got(5, Some(3)),
                    got(6, Some(5)),
                    confirmed(6),
                ],
            ),
            (EVA, [Look::Began].into_iter().chain((1..=6).map(|seq| got(seq, None))).collect()),
        ]);
        evidence
    }

    /// The kinds of violations that are found in the changed evidence.
    fn found(change: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
        let mut evidence = clean();
        change(&mut evidence);
        let verdict = check(&evidence);
        verdict.all().iter().filter(|(_, found)| !found.is_empty()).map(|(name, _)| *name).collect()
    }

    fn bens(evidence: &mut Evidence) -> &mut Vec<Look> {
        evidence.looks.get_mut(&BEN).unwrap()
    }

    fn sending(evidence: &mut Evidence, number: u128) -> &mut Sending {
        evidence.sends.get_mut(&id(number)).unwrap()
    }

    #[test]
    fn what_holds_is_clean() {
        let verdict = check(&clean());
        assert!(verdict.is_clean(), "{verdict:?}");
        // A repeat that is answered alike is clean too.
        assert_eq!(
            found(|evidence| {
                let again = Answer { duplicate: true, frame: Some((9, 0)), ..sending(evidence, 2).answers[0] };
                sending(evidence, 2).answers.push(again);
            }),
            Vec::<&str>::new()
        );
    }

    #[test]
    fn a_lost_message_is_found() {
        // Acknowledged, but in nobody's log: the next one has its number.
        let lost = found(|evidence| {
            for history in &mut evidence.histories {
                history.entries.pop();
                history.last_seq = 5;
            }
            for looks in evidence.looks.values_mut() {
                looks.retain(|look| !matches!(look, Look::Got { seq: 6, .. }));
            }
        });
        assert_eq!(lost, ["lost"]);
        // Stored, but one device never got it; it was the last, so that nothing later shows the gap.
        let lost = found(|evidence| bens(evidence).retain(|look| !matches!(look, Look::Got { seq: 6, .. })));
        assert_eq!(lost, ["lost"]);
        // Never answered, however often it was repeated.
        assert_eq!(found(|evidence| sending(evidence, 6).answers.clear()), ["lost"]);
    }

    #[test]
    fn a_message_stored_twice_is_found() {
        let twice = found(|evidence| {
            for history in &mut evidence.histories {
                history.entries.push((7, id(6)));
                history.last_seq = 7;
            }
        });
        assert_eq!(twice, ["twice"]);
        // Answered with two numbers.
        let twice = found(|evidence| {
            let other = Answer { seq: 7, duplicate: true, ..sending(evidence, 6).answers[0] };
            sending(evidence, 6).answers.push(other);
        });
        assert_eq!(twice, ["twice"]);
        // Two answers say that it was new.
        let twice = found(|evidence| {
            let again = Answer { frame: None, ..sending(evidence, 6).answers[0] };
            sending(evidence, 6).answers.push(again);
        });
        assert_eq!(twice, ["twice"]);
    }

    #[test]
    fn a_message_that_comes_after_its_confirmation_is_found() {
        assert_eq!(found(|evidence| bens(evidence).extend([Look::Began, got(6, None)])), ["twice"]);
        assert_eq!(found(|evidence| bens(evidence).insert(2, got(1, None))), ["twice"]);
    }

    #[test]
    fn a_gap_is_found() {
        // In the log.
        let gaps = found(|evidence| {
            for history in &mut evidence.histories {
                history.entries.push((8, id(8)));
                history.last_seq = 8;
            }
            let mut late = sending(evidence, 6).clone();
            late.answers[0].seq = 8;
            late.answers[0].frame = None;
            evidence.sends.insert(id(8), late);
            let eighth = |after| Look::Got { conversation: HERE, seq: 8, message: id(8), after, intact: true };
            bens(evidence).push(eighth(Some(6)));
            evidence.looks.get_mut(&EVA).unwrap().push(eighth(None));
        });
        assert_eq!(gaps, ["gaps"]);
        // On a connection: 2 comes only later.
        let gaps = found(|evidence| {
            bens(evidence).splice(1..3, [got(1, Some(0)), got(3, Some(1)), Look::Began, got(2, Some(1))]);
        });
        assert_eq!(gaps, ["gaps"]);
        // `after_seq` that does not name the one before.
        let gaps = found(|evidence| bens(evidence)[2] = got(2, Some(0)));
        assert_eq!(gaps, ["gaps"]);
        // The conversation says more than it has.
        assert_eq!(found(|evidence| evidence.histories[1].last_seq = 7), ["gaps"]);
    }

    #[test]
    fn another_order_is_found() {
        // Two devices see the same numbers differently.
        let reordered = found(|evidence| evidence.histories[1].entries[4].1 = id(6));
        assert!(reordered.contains(&"reordered"), "{reordered:?}");
        // Frames of one connection.
        let reordered = found(|evidence| {
            sending(evidence, 1).answers[0].frame = Some((7, 2));
            sending(evidence, 2).answers[0].frame = Some((7, 1));
        });
        assert_eq!(reordered, ["reordered"]);
        // Sent after 3 was acknowledged, numbered before it.
        assert_eq!(found(|evidence| sending(evidence, 2).floor = 3), ["reordered"]);
        // A socket that brings 2 before 1.
        let reordered = found(|evidence| {
            bens(evidence).splice(1..3, [got(2, None), got(1, None)]);
        });
        assert!(reordered.contains(&"reordered"), "{reordered:?}");
        // What was seen before a crash is another after it.
        assert_eq!(found(|evidence| evidence.glances[1].2 = id(9)), ["reordered"]);
        let reordered = found(|evidence| {
            bens(evidence)[1] = Look::Got { conversation: HERE, seq: 1, message: id(2), after: Some(0), intact: true };
        });
        assert!(reordered.contains(&"reordered"), "{reordered:?}");
    }

    #[test]
    fn a_mark_that_goes_back_is_found() {
        assert_eq!(found(|evidence| evidence.looks.get_mut(&ANN).unwrap().push(mark(5))), ["marks back"]);
        // The chain of a new connection begins below what was confirmed.
        let back = found(|evidence| bens(evidence)[6] = got(3, Some(1)));
        assert_eq!(back, ["gaps", "marks back"]);
    }

    #[test]
    fn altered_content_and_unknown_answers_are_found() {
        let altered = found(|evidence| {
            bens(evidence)[1] = Look::Got { conversation: HERE, seq: 1, message: id(1), after: Some(0), intact: false };
        });
        assert_eq!(altered, ["altered"]);
        assert_eq!(found(|evidence| evidence.refused.push("409".to_owned())), ["altered"]);
        assert_eq!(found(|evidence| evidence.looks.get_mut(&ANN).unwrap().push(got(5, None))), ["altered"]);
    }
}
