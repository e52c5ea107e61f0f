//! What the Journal writes in one transaction, and the decision which message gets which number.
//! The statements around it are the databases' own; this part is one for both (rules D8, D11).

use crate::planted::{self, Bug};
use bytes::Bytes;
use sotto_protocol::message::{Kind, Sender};
use sotto_protocol::{ConversationId, DeviceId, MessageId, Seq, Timestamp, UserId};
use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// So many messages are written one by one faster than as a batch.
pub const FEW: usize = 4;

/// A message to be appended.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where to.
    pub conversation_id: ConversationId,
    /// Its name.
    pub message_id: MessageId,
    /// Who sends.
    pub sender: Sender,
    /// What it is for.
    pub kind: Kind,
    /// The shared ciphertext.
    pub ciphertext: Option<Bytes>,
    /// The packed envelopes.
    pub envelopes: Option<Bytes>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// The sender's count.
    pub client_seq: Option<i64>,
    /// Seconds until it expires.
    pub expires_in: Option<i64>,
    /// The membership that the check used.
    pub membership_version: i64,
    /// The sum of the members' device versions that the check used, where it used any. Versions
    /// only grow and the membership is the same, so equal sums mean equal versions.
    pub device_versions: Option<i64>,
    /// Whether this may be the sender's first message here.
    pub first_of_sender: bool,
}

impl Append {
    /// When the message expires, stored now.
    #[must_use]
    pub fn expires_at(&self, now: Timestamp) -> Option<Timestamp> {
        let seconds = u64::try_from(self.expires_in?).ok()?;
        Some(now.plus(Duration::from_secs(seconds)))
    }
}

/// What became of one message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Stored with this number.
    Stored {
        /// Its number.
        seq: Seq,
        /// When.
        at: Timestamp,
    },
    /// The same user stored the same id before.
    Known {
        /// Its number.
        seq: Seq,
        /// When.
        at: Timestamp,
    },
    /// Another user has used the id in this conversation.
    Conflict,
    /// Membership or a device list moved since the check: check again.
    Stale,
    /// The conversation does not exist.
    Missing,
    /// Another transaction holds the conversation: nothing was written of it, or nothing that its ids would not show.
    Locked,
}

/// What to do about conversations that another transaction holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Leave them out, so that others need not wait.
    Skip,
    /// Wait for them, up to the lock's time limit.
    Wait,
}

/// A device's mark to be raised, and the receipts it has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredMark {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Whose device.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// What the device knew before, as far as its session can tell.
    pub after: Seq,
    /// Everything up to here is stored on the device.
    pub up_to: Seq,
    /// The newest receipt it has acknowledged; 0: no change.
    pub receipts_seen: i64,
    /// Whether the range holds events of the device. A range that was only passed over raises the
    /// mark and is no news to anybody.
    pub told: bool,
}

/// A member's read mark to be raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadMark {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Who read.
    pub user_id: UserId,
    /// On which device: the one that is not told.
    pub device_id: DeviceId,
    /// Everything up to here was read.
    pub up_to: Seq,
}

/// A device's place in its user's account log to be raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountMark {
    /// The device.
    pub device_id: DeviceId,
    /// The newest event it has acknowledged.
    pub seen: i64,
}

/// One transaction's work.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Messages, in the order of their arrival.
    pub appends: Vec<Arc<Append>>,
    /// Delivered marks.
    pub delivered: Vec<DeliveredMark>,
    /// Read marks.
    pub reads: Vec<ReadMark>,
    /// Places in account logs.
    pub accounts: Vec<AccountMark>,
}

impl Batch {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.delivered.is_empty() && self.reads.is_empty() && self.accounts.is_empty()
    }

    /// The marks alone, without those of some conversations.
    pub(crate) fn marks_without(&self, conversations: &[ConversationId]) -> Self {
        let keep = |id: &ConversationId| !conversations.contains(id);
        Self {
            appends: Vec::new(),
            delivered: self.delivered.iter().filter(|mark| keep(&mark.conversation_id)).cloned().collect(),
            reads: self.reads.iter().filter(|mark| keep(&mark.conversation_id)).cloned().collect(),
            accounts: Vec::new(),
        }
    }
}

/// A mark that was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Whose mark.
    pub user_id: UserId,
    /// The device; none: a read mark.
    pub device_id: Option<DeviceId>,
    /// The newly covered range begins after this number.
    pub after: Seq,
    /// And ends here.
    pub up_to: Seq,
    /// The receipt's version.
    pub version: i64,
    /// When.
    pub at: Timestamp,
}

/// What a batch did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// One per append, in order.
    pub appended: Vec<Appended>,
    /// Marks that were raised.
    pub raised: Vec<Raised>,
    /// Conversations whose marks were left out because another transaction holds them.
    pub skipped_marks: Vec<ConversationId>,
}

/// What a commit tells every node (rule D1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// Conversation, last number, newest receipt; 0 says "not moved".
    pub conversations: Vec<(ConversationId, Seq, i64)>,
    /// User, newest account event.
    pub users: Vec<(UserId, i64)>,
}

impl Wake {
    /// A wake that only concerns account logs.
    #[must_use]
    pub const fn of_users(users: Vec<(UserId, i64)>) -> Self {
        Self { conversations: Vec::new(), users }
    }

    /// The stored form: two counts, then fixed-size entries, big-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.conversations.len() * 32 + self.users.len() * 24);
        bytes.extend(u32::try_from(self.conversations.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(u32::try_from(self.users.len()).unwrap_or(0).to_be_bytes());
        for (conversation, seq, receipts) in &self.conversations {
            bytes.extend(conversation.as_bytes());
            bytes.extend(seq.to_be_bytes());
            bytes.extend(receipts.to_be_bytes());
        }
        for (user, seq) in &self.users {
            bytes.extend(user.as_bytes());
            bytes.extend(seq.to_be_bytes());
        }
        bytes
    }

    /// Reads [`Wake::to_bytes`]; `None` when it is something else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        fn number(bytes: &[u8]) -> Option<(i64, &[u8])> {
            let (head, rest) = bytes.split_first_chunk::<8>()?;
            Some((i64::from_be_bytes(*head), rest))
        }
        let (conversations, rest) = bytes.split_first_chunk::<4>()?;
        let (users, mut rest) = rest.split_first_chunk::<4>()?;
        let mut wake = Self::default();
        for _ in 0..u32::from_be_bytes(*conversations) {
            let (id, after) = rest.split_first_chunk::<16>()?;
            let (seq, after) = number(after)?;
            let (receipts, after) = number(after)?;
            let id = uuid::Uuid::from_bytes(*id).into();
            wake.conversations.push((id, seq, receipts));
            rest = after;
        }
        for _ in 0..u32::from_be_bytes(*users) {
            let (id, after) = rest.split_first_chunk::<16>()?;
            let (seq, after) = number(after)?;
            wake.users.push((uuid::Uuid::from_bytes(*id).into(), seq));
            rest = after;
        }
        Some(wake)
    }
}

/// What all devices of a user have acknowledged of his account log is forgotten.
pub(crate) const FORGET_ACCOUNT_EVENTS: &str = "DELETE FROM account_events \
    WHERE user_id = (SELECT user_id FROM devices WHERE id = $1) AND seq <= \
      (SELECT MIN(all_devices.account_seen) FROM devices one \
       JOIN devices all_devices ON all_devices.user_id = one.user_id WHERE one.id = $1)";

/// A conversation's head as it was read under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub locked: bool,
    pub last_seq: Seq,
    pub membership_version: i64,
    pub device_versions: i64,
}

/// A message that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub seq: Seq,
    pub sender: Option<UserId>,
    pub at: Timestamp,
}

/// Which messages of a batch are written with which numbers.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub appended: Vec<Appended>,
    /// Index into the batch's appends, and the number.
    pub rows: Vec<(usize, Seq)>,
    /// New heads of the conversations that grew.
    pub heads: BTreeMap<ConversationId, Seq>,
}

/// Rule D11, step 3 and 4: drop what is known, doubles and mismatched versions; number the rest.
/// Numbers are given last, so that whatever is dropped leaves no hole.
pub(crate) fn plan(
    appends: &[impl Borrow<Append>],
    heads: &HashMap<ConversationId, Head>,
    mut known: HashMap<(ConversationId, MessageId), Known>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    for (index, append) in appends.iter().map(Borrow::borrow).enumerate() {
        let name = (append.conversation_id, append.message_id);
        let earlier = known.get(&name).filter(|_| !planted::is(Bug::NoDedupe));
        let outcome = match (earlier, heads.get(&append.conversation_id)) {
            (Some(earlier), _) if earlier.sender == Some(append.sender.user_id) => {
                Appended::Known { seq: earlier.seq, at: earlier.at }
            }
            (Some(_), _) => Appended::Conflict,
            (None, None) => Appended::Missing,
            (None, Some(head)) if !head.locked => Appended::Locked,
            (None, Some(head))
                if head.membership_version != append.membership_version
                    || append.device_versions.is_some_and(|checked| checked != head.device_versions) =>
            {
                if planted::is(Bug::VersionAfterNumbering) {
                    *plan.heads.entry(append.conversation_id).or_insert(head.last_seq) += 1;
                }
                Appended::Stale
            }
            (None, Some(head)) => {
                let last = plan.heads.entry(append.conversation_id).or_insert(head.last_seq);
                *last += 1;
                plan.rows.push((index, *last));
                known.insert(name, Known { seq: *last, sender: Some(append.sender.user_id), at: now });
                Appended::Stored { seq: *last, at: now }
            }
        };
        plan.appended.push(outcome);
    }
    plan
}

/// A stored mark as it was read under its conversation's receipts lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub up_to: Seq,
    pub version: i64,
    pub receipts_seen: i64,
    pub at: Timestamp,
}

/// The rows that a batch's marks become.
#[derive(Debug, Default)]
pub(crate) struct MarkPlan {
    pub delivered: BTreeMap<(ConversationId, DeviceId), (UserId, Mark)>,
    pub reads: BTreeMap<(ConversationId, UserId), (DeviceId, Mark)>,
    /// New versions of the conversations that had a mark raised.
    pub versions: BTreeMap<ConversationId, i64>,
    pub raised: Vec<Raised>,
    pub skipped: Vec<ConversationId>,
}

/// Rules D6 and D12: marks only grow, and each raise takes the next version of its conversation.
pub(crate) fn plan_marks(
    batch: &Batch,
    versions: &HashMap<ConversationId, i64>,
    delivered: &HashMap<(ConversationId, DeviceId), Mark>,
    reads: &HashMap<(ConversationId, UserId), (DeviceId, Mark)>,
    now: Timestamp,
) -> MarkPlan {
    let mut plan = MarkPlan::default();
    for mark in &batch.delivered {
        let key = (mark.conversation_id, mark.device_id);
        let stored = delivered.get(&key).copied();
        let (_, row) = plan.delivered.entry(key).or_insert_with(|| {
            let fresh = Mark { up_to: mark.after, at: now, ..Mark::default() };
            (mark.user_id, stored.unwrap_or(fresh))
        });
        row.receipts_seen = row.receipts_seen.max(mark.receipts_seen);
        if mark.up_to > row.up_to && !mark.told {
            row.up_to = mark.up_to;
        } else if mark.up_to > row.up_to {
            let Some(version) = next_version(&mut plan.versions, versions, mark.conversation_id) else {
                continue;
            };
            plan.raised.push(Raised {
                conversation_id: mark.conversation_id,
                user_id: mark.user_id,
                device_id: Some(mark.device_id),
                after: row.up_to,
                up_to: mark.up_to,
                version,
                at: now,
            });
            row.up_to = mark.up_to;
            row.version = version;
            row.at = now;
        }
    }
    for mark in &batch.reads {
        let key = (mark.conversation_id, mark.user_id);
        let (device, row) = plan.reads.entry(key).or_insert_with(|| {
            let fresh = (mark.device_id, Mark::default());
            reads.get(&key).copied().unwrap_or(fresh)
        });
        if mark.up_to > row.up_to {
            let Some(version) = next_version(&mut plan.versions, versions, mark.conversation_id) else {
                continue;
            };
            plan.raised.push(Raised {
                conversation_id: mark.conversation_id,
                user_id: mark.user_id,
                device_id: None,
                after: row.up_to,
                up_to: mark.up_to,
                version,
                at: now,
            });
            row.up_to = mark.up_to;
            row.version = version;
            row.at = now;
            *device = mark.device_id;
        }
    }
    plan.reads.retain(|_, (_, row)| row.up_to > 0);
    plan
}

fn next_version(
    raised: &mut BTreeMap<ConversationId, i64>,
    stored: &HashMap<ConversationId, i64>,
    conversation: ConversationId,
) -> Option<i64> {
    let base = *stored.get(&conversation)?;
    let version = raised.entry(conversation).or_insert(base);
    *version += 1;
    Some(*version)
}

/// The wake of a transaction that appended and raised marks. A 0 says "not moved".
pub(crate) fn wake(plan: &Plan, marks: &MarkPlan) -> Wake {
    if planted::is(Bug::NoWakes) {
        return Wake::default();
    }
    let mut conversations: BTreeMap<ConversationId, (Seq, i64)> = BTreeMap::new();
    for (conversation, seq) in &plan.heads {
        conversations.entry(*conversation).or_default().0 = *seq;
    }
    for (conversation, version) in &marks.versions {
        conversations.entry(*conversation).or_default().1 = *version;
    }
    Wake {
        conversations: conversations.into_iter().map(|(id, (seq, receipts))| (id, seq, receipts)).collect(),
        users: Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn conversation(number: u8) -> ConversationId {
        ConversationId(uuid::Uuid::from_u128(u128::from(number) + 1))
    }

    fn user(number: u8) -> UserId {
        UserId(uuid::Uuid::from_u128(u128::from(number) + 100))
    }

    fn device(number: u8) -> DeviceId {
        DeviceId(uuid::Uuid::from_u128(u128::from(number) + 200))
    }

    /// One message of a batch: small numbers, so that ids, conversations and versions collide.
    fn append() -> impl Strategy<Value = Append> {
        let versions = prop::option::of(0_i64..2);
        (0_u8..4, 0_u128..12, 0_u8..3, 0_i64..2, versions).prop_map(|(to, id, from, membership, devices)| Append {
            conversation_id: conversation(to),
            message_id: MessageId(uuid::Uuid::from_u128(id)),
            sender: Sender { user_id: user(from), device_id: device(from) },
            kind: Kind::Text,
            ciphertext: None,
            envelopes: None,
            reply_to: None,
            client_seq: None,
            expires_in: None,
            membership_version: membership,
            device_versions: devices,
            first_of_sender: false,
        })
    }

    /// Conversation 3 does not exist; the others are locked by us or not, with versions of their own.
    fn heads() -> impl Strategy<Value = HashMap<ConversationId, Head>> {
        let head = (any::<bool>(), 0_i64..50, 0_i64..2, 0_i64..2);
        prop::array::uniform3(head).prop_map(|heads| {
            let all = (0_u8..).zip(heads).map(|(number, (locked, last_seq, membership_version, device_versions))| {
                (conversation(number), Head { locked, last_seq, membership_version, device_versions })
            });
            all.collect()
        })
    }

    proptest! {
        /// Whatever is dropped from a batch, what is stored is numbered without a hole from the head on, in the order
        /// of its arrival; an id is stored at most once and always answered alike.
        #[test]
        fn numbers_have_no_holes(
            appends in prop::collection::vec(append(), 0..40),
            heads in heads(),
            earlier in prop::collection::hash_map((0_u8..3, 0_u128..12), prop::option::of(0_u8..3), 0..8),
        ) {
            let now = Timestamp::from_millis(7);
            let known: HashMap<_, _> = (1_i64..).zip(earlier).map(|(seq, ((to, id), sender))| {
                let name = (conversation(to), MessageId(uuid::Uuid::from_u128(id)));
                (name, Known { seq, sender: sender.map(user), at: Timestamp::from_millis(seq) })
            }).collect();
            let plan = plan(&appends, &heads, known.clone(), now);
            prop_assert_eq!(plan.appended.len(), appends.len());
            let mut next: HashMap<ConversationId, Seq> = HashMap::new();
            let mut stored: HashMap<(ConversationId, MessageId), (UserId, Seq)> = HashMap::new();
            let mut rows = plan.rows.iter();
            for (index, (append, appended)) in appends.iter().zip(&plan.appended).enumerate() {
                let id = append.conversation_id;
                let name = (id, append.message_id);
                let from = append.sender.user_id;
                let is_current = |head: &Head| {
                    head.membership_version == append.membership_version
                        && append.device_versions.is_none_or(|checked| checked == head.device_versions)
                };
                let expected = match (known.get(&name), stored.get(&name), heads.get(&id)) {
                    (Some(known), _, _) if known.sender == Some(from) => {
                        Appended::Known { seq: known.seq, at: known.at }
                    }
                    (None, Some((sender, seq)), _) if *sender == from => Appended::Known { seq: *seq, at: now },
                    (Some(_), _, _) | (None, Some(_), _) => Appended::Conflict,
                    (None, None, None) => Appended::Missing,
                    (None, None, Some(head)) if !head.locked => Appended::Locked,
                    (None, None, Some(head)) if !is_current(head) => Appended::Stale,
                    (None, None, Some(head)) => {
                        let seq = next.entry(id).or_insert(head.last_seq);
                        *seq += 1;
                        stored.insert(name, (from, *seq));
                        prop_assert_eq!(rows.next(), Some(&(index, *seq)));
                        Appended::Stored { seq: *seq, at: now }
                    }
                };
                prop_assert_eq!(*appended, expected, "{:?}", append);
            }
            prop_assert_eq!(rows.next(), None);
            prop_assert_eq!(plan.heads, next.into_iter().collect::<BTreeMap<_, _>>());
        }

        /// Marks come in whatever order and batches, late and early, known and new: they only grow, each raise has a
        /// version of its own above all before it, and the raised ranges of a mark do not overlap and leave nothing
        /// out but what was only passed over.
        #[test]
        fn marks_only_grow_and_ranges_tile(
            batches in prop::collection::vec(
                prop::collection::vec((0_u8..3, 0_u8..3, 0_i64..40, 0_i64..9, any::<bool>(), any::<bool>()), 0..12),
                1..12,
            ),
        ) {
            // Conversation 2 was removed meanwhile: it has no row for its versions.
            let mut versions = HashMap::from([(conversation(0), 5), (conversation(1), 0)]);
            let mut highest = versions.clone();
            let mut delivered: HashMap<(ConversationId, DeviceId), Mark> = HashMap::new();
            let mut reads: HashMap<(ConversationId, UserId), (DeviceId, Mark)> = HashMap::new();
            let mut model: HashMap<(ConversationId, DeviceId), Seq> = HashMap::new();
            // Where the ranges of a mark have come to.
            let mut ends: HashMap<(ConversationId, UserId, Option<DeviceId>), Seq> = HashMap::new();
            for marks in batches {
                let mut batch = Batch::default();
                let mut expected = Vec::new();
                for (to, who, up_to, receipts_seen, told, is_read) in marks {
                    let (conversation_id, user_id, device_id) = (conversation(to), user(who), device(who));
                    if is_read {
                        batch.reads.push(ReadMark { conversation_id, user_id, device_id, up_to });
                        continue;
                    }
                    let mark = model.entry((conversation_id, device_id)).or_default();
                    if up_to > *mark && (to < 2 || !told) {
                        if told {
                            expected.push((conversation_id, device_id, *mark, up_to));
                        }
                        *mark = up_to;
                    }
                    let mark =
                        DeliveredMark { conversation_id, user_id, device_id, after: 0, up_to, receipts_seen, told };
                    batch.delivered.push(mark);
                }
                let plan = plan_marks(&batch, &versions, &delivered, &reads, Timestamp::from_millis(1));
                for raised in &plan.raised {
                    let id = raised.conversation_id;
                    prop_assert!(raised.version > highest[&id], "versions grow: {:?}", raised);
                    highest.insert(id, raised.version);
                    prop_assert!(raised.up_to > raised.after);
                    let end = ends.entry((id, raised.user_id, raised.device_id)).or_default();
                    if raised.device_id.is_none() {
                        prop_assert_eq!(raised.after, *end, "a read mark passes nothing over");
                    } else {
                        prop_assert!(raised.after >= *end, "no number is told twice: {:?} after {}", raised, end);
                    }
                    *end = raised.up_to;
                }
                let told = plan.raised.iter().filter_map(|raised| {
                    Some((raised.conversation_id, raised.device_id?, raised.after, raised.up_to))
                });
                prop_assert_eq!(told.collect::<Vec<_>>(), expected, "ranges begin where the mark stood");
                for (id, version) in &plan.versions {
                    prop_assert_eq!(*version, highest[id], "what is stored is the version of the last raise");
                    versions.insert(*id, *version);
                }
                for (key, (_, mark)) in plan.delivered {
                    let before = delivered.insert(key, mark).unwrap_or_default();
                    prop_assert!(mark.up_to >= before.up_to && mark.receipts_seen >= before.receipts_seen);
                    prop_assert!(mark.version >= before.version);
                    prop_assert_eq!(mark.up_to, model[&key], "the highest counts");
                }
                for (key, (by, mark)) in plan.reads {
                    let before = reads.insert(key, (by, mark)).map_or(Mark::default(), |(_, before)| before);
                    prop_assert!(mark.up_to >= before.up_to && mark.version >= before.version);
                    prop_assert_eq!(ends[&(key.0, key.1, None)], mark.up_to, "each raise of a read mark is told");
                }
            }
        }

        /// The stored form of a wake comes back, and what was cut short is none.
        #[test]
        fn wakes_come_back(
            conversations in prop::collection::vec((any::<u128>(), any::<i64>(), any::<i64>()), 0..20),
            users in prop::collection::vec((any::<u128>(), any::<i64>()), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let id = uuid::Uuid::from_u128;
            let wake = Wake {
                conversations: conversations.into_iter().map(|(bits, seq, read)| (id(bits).into(), seq, read)).collect(),
                users: users.into_iter().map(|(bits, seq)| (id(bits).into(), seq)).collect(),
            };
            let bytes = wake.to_bytes();
            prop_assert_eq!(Wake::from_bytes(&bytes[..cut.index(bytes.len())]), None);
            prop_assert_eq!(Wake::from_bytes(&bytes), Some(wake));
        }

        #[test]
        fn any_bytes_are_a_wake_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(wake) = Wake::from_bytes(&bytes) {
                prop_assert!(bytes.starts_with(&wake.to_bytes()), "what was read is what stands there");
            }
        }

        /// A transaction wakes everything that it moved, each conversation once.
        #[test]
        fn a_wake_names_what_moved(
            heads in prop::collection::btree_map(0_u8..9, 1_i64..99, 0..6),
            versions in prop::collection::btree_map(0_u8..9, 1_i64..99, 0..6),
        ) {
            let named = |numbers: &BTreeMap<u8, i64>| {
                numbers.iter().map(|(id, number)| (conversation(*id), *number)).collect()
            };
            let plan = Plan { heads: named(&heads), ..Plan::default() };
            let marks = MarkPlan { versions: named(&versions), ..MarkPlan::default() };
            let wake = wake(&plan, &marks);
            let ids: BTreeSet<u8> = heads.keys().chain(versions.keys()).copied().collect();
            let number = |of: &BTreeMap<u8, i64>, id: u8| of.get(&id).copied().unwrap_or(0);
            let expected: Vec<_> =
                ids.into_iter().map(|id| (conversation(id), number(&heads, id), number(&versions, id))).collect();
            prop_assert_eq!(wake.conversations, expected);
            prop_assert!(wake.users.is_empty());
        }
    }
}
