//! Cursors: strings by which a client goes on, sealed so that only what this server said comes back.
//!
//! A cursor is base64url of a body and its HMAC-SHA256. The seal covers whom the cursor was made for, which is
//! therefore not written down: another device's cursor is as unknown as an invented one. Nothing is kept on the
//! server, so a cursor is valid on every node and after restarts. After a restore the same numbers may stand for other
//! messages, and an old page must not acknowledge those: from then on the seal of a sync cursor covers the store's epoch
//! too. A store that was never restored has a random epoch (version 4), every later one is ordered (version 7).
//!
//! The body of a sync cursor is binary. Numbers are LEB128 varints; of each conversation id only the part is written
//! that differs from the one before: `0x01, made_at, account, count, count × (shared | told << 5, id[shared..], first,
//! how many numbers from there, receipts)`.

use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use sotto_actors::sync::{Covered, Range};
use sotto_protocol::{Binary, ConversationId, DeviceId, ErrorCode, Problem, Timestamp, UserId, limits};
use uuid::Uuid;

use crate::identity::secret_key::SecretKeys;

/// How long a sync cursor is valid.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Length of the seal in bytes.
const SEAL: usize = 32;
/// First byte of a sync cursor.
const SYNC: u8 = 1;
/// First byte of a list cursor.
const LIST: u8 = 2;
/// First byte of a cursor in a history of sign-ins.
const LOGIN: u8 = 3;
/// First byte of a cursor in a list of members.
const MEMBER: u8 = 4;
/// In a range's first byte, beside the length of the shared part of the id: it holds messages for the device.
const TOLD: u8 = 1 << 5;
/// Longest body of a cursor that is not longer than the contract allows.
const MAX_BODY: usize = limits::MAX_CURSOR / 4 * 3 - SEAL;

/// Makes and reads cursors with the server's keys.
#[derive(Clone, Debug)]
pub struct Cursors {
    keys: Arc<SecretKeys>,
}

impl Cursors {
    /// With these keys; the active one seals, all of them are tried on reading.
    #[must_use]
    pub fn new(keys: Arc<SecretKeys>) -> Self {
        Self { keys }
    }

    /// The cursor of a sync page. Should the page have covered more than fits into a cursor, its last ranges are left
    /// out: they are not acknowledged then, and come again.
    #[must_use]
    pub fn sync(&self, device: DeviceId, epoch: Uuid, covered: &Covered, now: Timestamp) -> String {
        self.seal(&reader(&device, &epoch), write_sync(covered, now))
    }

    /// What a sync page covered.
    ///
    /// # Errors
    /// `cursor_unknown` when the cursor was not made here, for another device, before a restore, or more than 7 days
    /// ago.
    pub fn read_sync(&self, device: DeviceId, epoch: Uuid, cursor: &str, now: Timestamp) -> Result<Covered, Problem> {
        let body = self.open(&reader(&device, &epoch), cursor).ok_or_else(unknown)?;
        let (made_at, covered) = read_sync(&body).ok_or_else(unknown)?;
        let age = u64::try_from(now.as_seconds().saturating_sub(made_at)).unwrap_or(0);
        if age > LIFETIME.as_secs() {
            return Err(unknown());
        }
        Ok(covered)
    }

    /// The cursor behind a conversation in the list of a user.
    #[must_use]
    pub fn list(&self, user: UserId, after: ConversationId) -> String {
        let mut body = vec![LIST];
        body.extend_from_slice(after.as_bytes());
        self.seal(&[user.as_bytes()], body)
    }

    /// The conversation behind which a list goes on.
    ///
    /// # Errors
    /// `cursor_unknown` when the cursor was not made here or for another user.
    pub fn read_list(&self, user: UserId, cursor: &str) -> Result<ConversationId, Problem> {
        let body = self.open(&[user.as_bytes()], cursor).ok_or_else(unknown)?;
        match body.split_first() {
            Some((&LIST, id)) => Uuid::from_slice(id).map(ConversationId).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }

    /// The cursor behind a member of a conversation, for one who lists them.
    #[must_use]
    pub fn members(&self, user: UserId, conversation: ConversationId, after: UserId) -> String {
        let body = [&[MEMBER], after.as_bytes().as_slice()].concat();
        self.seal(&[user.as_bytes(), conversation.as_bytes()], body)
    }

    /// The member behind whom a list goes on.
    ///
    /// # Errors
    /// `cursor_unknown` when the cursor was not made here, for another user or for another conversation.
    pub fn read_members(&self, user: UserId, conversation: ConversationId, cursor: &str) -> Result<UserId, Problem> {
        let body = self.open(&[user.as_bytes(), conversation.as_bytes()], cursor).ok_or_else(unknown)?;
        match body.split_first() {
            Some((&MEMBER, id)) => Uuid::from_slice(id).map(UserId).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }

    /// The cursor behind a try in the history of a user's sign-ins.
    #[must_use]
    pub fn login(&self, user: UserId, at: Timestamp, id: Uuid) -> String {
        let body = [&[LOGIN], at.as_micros().to_be_bytes().as_slice(), id.as_bytes()].concat();
        self.seal(&[user.as_bytes()], body)
    }

    /// The try behind which a history goes on.
    ///
    /// # Errors
    /// `cursor_unknown` when the cursor was not made here or for another user.
    pub fn read_login(&self, user: UserId, cursor: &str) -> Result<(Timestamp, Uuid), Problem> {
        let body = self.open(&[user.as_bytes()], cursor).ok_or_else(unknown)?;
        let (&LOGIN, rest) = body.split_first().ok_or_else(unknown)? else {
            return Err(unknown());
        };
        let (at, id) = rest.split_first_chunk().ok_or_else(unknown)?;
        let id = Uuid::from_slice(id).map_err(|_| unknown())?;
        Ok((Timestamp::from_micros(i64::from_be_bytes(*at)), id))
    }

    fn seal(&self, owner: &[&[u8; 16]], mut body: Vec<u8>) -> String {
        let seal = hmac::sign(self.keys.active().cursor(), &sealed(owner, &body));
        body.extend_from_slice(seal.as_ref());
        Binary::encode(&body)
    }

    fn open(&self, owner: &[&[u8; 16]], cursor: &str) -> Option<Vec<u8>> {
        if cursor.len() > limits::MAX_CURSOR {
            return None;
        }
        let mut body = Binary::decode(cursor)?;
        let seal = body.split_off(body.len().checked_sub(SEAL)?);
        let message = sealed(owner, &body);
        let is_ours = || self.keys.all().any(|keys| hmac::verify(keys.cursor(), &message, &seal).is_ok());
        if is_ours() {
            return Some(body);
        }
        // Another node may have a key that was added a moment ago.
        self.keys.look();
        is_ours().then_some(body)
    }
}

fn unknown() -> Problem {
    Problem::new(ErrorCode::CursorUnknown, "this cursor was not made for you, or more than 7 days ago")
}

/// For whom a sync cursor is made.
fn reader<'a>(device: &'a DeviceId, epoch: &'a Uuid) -> Vec<&'a [u8; 16]> {
    let is_restored = epoch.get_version_num() == 7;
    std::iter::once(device.as_bytes()).chain(is_restored.then_some(epoch.as_bytes())).collect()
}

fn sealed(owner: &[&[u8; 16]], body: &[u8]) -> Vec<u8> {
    owner.iter().map(|part| part.as_slice()).chain([body]).collect::<Vec<_>>().concat()
}

fn write_sync(covered: &Covered, now: Timestamp) -> Vec<u8> {
    let mut ranges: Vec<&Range> = covered.ranges.iter().collect();
    ranges.sort_unstable_by_key(|range| range.conversation_id);
    let mut entries = Vec::new();
    let mut count = 0;
    let mut previous = [0; 16];
    // What stands before the entries has at most 24 bytes.
    let room = MAX_BODY.saturating_sub(24);
    for range in ranges {
        let mark = entries.len();
        let id = range.conversation_id.as_bytes();
        let shared = previous.iter().zip(id).take_while(|(before, now)| before == now).count();
        entries.push(u8::try_from(shared).unwrap_or(0) | if range.told { TOLD } else { 0 });
        entries.extend(id.iter().skip(shared));
        put(&mut entries, range.first);
        put(&mut entries, range.last.saturating_add(1).saturating_sub(range.first));
        put(&mut entries, range.receipts);
        if entries.len() > room {
            entries.truncate(mark);
            break;
        }
        count += 1;
        previous = *id;
    }
    let mut body = vec![SYNC];
    put(&mut body, now.as_seconds());
    put(&mut body, covered.account);
    put(&mut body, count);
    body.append(&mut entries);
    body
}

fn read_sync(body: &[u8]) -> Option<(i64, Covered)> {
    let (&SYNC, mut rest) = body.split_first()? else {
        return None;
    };
    let made_at = take(&mut rest)?;
    let account = take(&mut rest)?;
    let count = usize::try_from(take(&mut rest)?).ok()?;
    let mut ranges = Vec::with_capacity(count.min(limits::MAX_CURSOR));
    let mut id = [0; 16];
    for _ in 0..count {
        let (&flags, behind) = rest.split_first()?;
        rest = behind;
        let own = id.get_mut(usize::from(flags & !TOLD)..)?;
        let (tail, behind) = rest.split_at_checked(own.len())?;
        own.copy_from_slice(tail);
        rest = behind;
        let first = take(&mut rest)?;
        let last = first.checked_add(take(&mut rest)?)?.checked_sub(1)?;
        let receipts = take(&mut rest)?;
        let conversation_id = Uuid::from_bytes(id).into();
        ranges.push(Range { conversation_id, first, last, receipts, told: flags & TOLD != 0 });
    }
    rest.is_empty().then_some((made_at, Covered { ranges, account }))
}

/// Writes a number that is not negative; a negative one becomes 0, which says "nothing" everywhere here.
fn put(out: &mut Vec<u8>, number: i64) {
    let mut left = u64::try_from(number).unwrap_or(0);
    loop {
        let low = u8::try_from(left & 0x7f).unwrap_or(0);
        left >>= 7;
        if left == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn take(rest: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return i64::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: Uuid = Uuid::from_u128(0x4000 << 64);

    fn cursors() -> Cursors {
        Cursors::new(Arc::new(SecretKeys::random().unwrap()))
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_795_253_400_000)
    }

    fn covered(ids: impl Iterator<Item = ConversationId>, top: i64) -> Covered {
        let ranges = ids.map(|id| Range { conversation_id: id, first: top, last: top + 99, receipts: top, told: true });
        Covered { ranges: ranges.collect(), account: top }
    }

    fn sorted(covered: &Covered) -> Vec<Range> {
        let mut ranges = covered.ranges.clone();
        ranges.sort_unstable_by_key(|range| range.conversation_id);
        ranges
    }

    proptest! {
        #[test]
        fn what_a_page_covered_comes_back(
            account in 0..i64::MAX,
            ranges in proptest::collection::btree_map(
                any::<u128>(),
                (0..i64::MAX / 2, 0..i64::MAX / 2, 0..i64::MAX, any::<bool>()),
                0..250,
            ),
        ) {
            let ranges = ranges.into_iter().map(|(id, (first, count, receipts, told))| {
                let conversation_id = Uuid::from_u128(id).into();
                Range { conversation_id, first, last: first + count - 1, receipts, told }
            });
            let said = Covered { ranges: ranges.collect(), account };
            let (cursors, device) = (cursors(), DeviceId::random());
            let heard = cursors.read_sync(device, EPOCH, &cursors.sync(device, EPOCH, &said, now()), now()).unwrap();
            prop_assert_eq!(heard.account, said.account);
            prop_assert_eq!(sorted(&heard), sorted(&said));
        }

        #[test]
        fn nothing_invented_is_taken(text in "[A-Za-z0-9_-]{0,400}") {
            prop_assert!(cursors().read_sync(DeviceId::random(), EPOCH, &text, now()).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_sync(&bytes);
            let _ = read_sync(&[&[SYNC], bytes.as_slice()].concat());
        }

        #[test]
        fn one_changed_character_is_noticed(at in any::<proptest::sample::Index>()) {
            let (cursors, device) = (cursors(), DeviceId::random());
            let mut cursor = cursors.sync(device, EPOCH, &covered(std::iter::once(ConversationId::ordered()), 7), now());
            // The last character may hold bits that mean nothing.
            let at = at.index(cursor.len() - 1);
            let other = if &cursor[at..=at] == "A" { "B" } else { "A" };
            cursor.replace_range(at..=at, other);
            prop_assert!(cursors.read_sync(device, EPOCH, &cursor, now()).is_err());
        }
    }

    #[test]
    fn five_hundred_conversations_fit() {
        let (cursors, device) = (cursors(), DeviceId::random());
        let said = covered((0..500).map(|_| ConversationId::random()), 2_000_000);
        let cursor = cursors.sync(device, EPOCH, &said, now());
        assert!(cursor.len() <= limits::MAX_CURSOR, "{}", cursor.len());
        assert_eq!(cursors.read_sync(device, EPOCH, &cursor, now()).unwrap().ranges.len(), 500);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let (cursors, device) = (cursors(), DeviceId::random());
        let said = covered((0..500).map(|_| ConversationId::random()), i64::MAX / 2);
        let cursor = cursors.sync(device, EPOCH, &said, now());
        assert!(cursor.len() <= limits::MAX_CURSOR, "{}", cursor.len());
        let heard = cursors.read_sync(device, EPOCH, &cursor, now()).unwrap();
        assert!(heard.ranges.len() > 200);
        assert!(sorted(&heard).iter().all(|range| sorted(&said).contains(range)));
    }

    #[test]
    fn a_cursor_is_bound_to_its_device_and_seven_days() {
        let (cursors, device) = (cursors(), DeviceId::random());
        let cursor = cursors.sync(device, EPOCH, &covered(std::iter::empty(), 0), now());
        let later = |seconds| now().plus(Duration::from_secs(seconds));
        assert!(cursors.read_sync(device, EPOCH, &cursor, later(7 * 86_400)).is_ok());
        let expired = cursors.read_sync(device, EPOCH, &cursor, later(7 * 86_400 + 1)).unwrap_err();
        assert_eq!((expired.status, expired.code), (400, ErrorCode::CursorUnknown));
        assert!(cursors.read_sync(DeviceId::random(), EPOCH, &cursor, now()).is_err());
    }

    #[test]
    fn a_cursor_ends_with_the_history_that_it_speaks_of() {
        let (cursors, device) = (cursors(), DeviceId::random());
        let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
        for (before, after) in [(EPOCH, first), (first, second)] {
            let cursor = cursors.sync(device, before, &covered(std::iter::empty(), 0), now());
            assert!(cursors.read_sync(device, before, &cursor, now()).is_ok());
            let restored = cursors.read_sync(device, after, &cursor, now()).unwrap_err();
            assert_eq!(restored.code, ErrorCode::CursorUnknown);
        }
    }

    #[test]
    fn list_cursors_belong_to_a_user_and_are_no_sync_cursors() {
        let (cursors, user, id) = (cursors(), UserId::random(), ConversationId::ordered());
        let cursor = cursors.list(user, id);
        assert_eq!(cursors.read_list(user, &cursor).unwrap(), id);
        assert!(cursors.read_list(UserId::random(), &cursor).is_err());
        assert!(cursors.read_sync(DeviceId(user.0), EPOCH, &cursor, now()).is_err());
        let sync = cursors.sync(DeviceId(user.0), EPOCH, &covered(std::iter::empty(), 0), now());
        assert!(cursors.read_list(user, &sync).is_err());
    }
}
