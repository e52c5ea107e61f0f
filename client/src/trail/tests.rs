//! Random trails with random changes: every change is found, and a trail that is whole is believed.

use super::*;
use proptest::prelude::*;
use sotto_protocol::trail::TrailEvent;
use sotto_protocol::{DeviceId, Timestamp};

/// A trail of so many entries, and the end of it.
fn trail(user: UserId, length: usize, salt: u8) -> (Vec<TrailItem>, TrailHead) {
    let (mut items, mut hash) = (Vec::new(), BEGINNING);
    for number in 0..length {
        let seq = i64::try_from(number + 1).unwrap();
        let event = match number % 3 {
            0 => TrailEvent::Registered { device_id: DeviceId(uuid::Uuid::from_bytes([salt; 16])) },
            1 => TrailEvent::BackupCodeUsed,
            _ => TrailEvent::SecondFactorEnabled,
        };
        let at = Timestamp::from_millis(seq);
        let entry = serde_json::to_string(&TrailEntry { seq, at, user_id: user, event, address: None }).unwrap();
        hash = link(&hash, &entry);
        items.push(TrailItem { seq, entry, hash: Binary(hash.to_vec()) });
    }
    let seq = i64::try_from(length).unwrap();
    (items, TrailHead { seq, hash: Binary(hash.to_vec()) })
}

/// Follows a trail from an end that was verified before.
fn follow(
    user: UserId,
    verified: Option<&TrailHead>,
    items: &[TrailItem],
    head: &TrailHead,
) -> std::result::Result<TrailHead, TrailFault> {
    let mut verifier = TrailVerifier::new(user, verified);
    let from = verified.map_or(0, |head| head.seq);
    for item in items.iter().filter(|item| item.seq > from) {
        verifier.follow(item)?;
    }
    verifier.end(head)
}

/// Hashes everything anew from an entry on, as somebody does who owns the database.
fn hashed_again(items: &mut [TrailItem]) -> TrailHead {
    let (mut hash, mut seq) = (BEGINNING, 0);
    for item in items.iter_mut() {
        hash = link(&hash, &item.entry);
        (item.hash, seq) = (Binary(hash.to_vec()), item.seq);
    }
    TrailHead { seq, hash: Binary(hash.to_vec()) }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Byte(usize),
    Hash(usize),
    Remove,
    Swap,
    Repeat,
    Cut,
    User,
    /// A change of an entry that was verified, with all hashes made anew.
    Rewrite,
    /// The end alone.
    Head,
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<usize>().prop_map(Change::Byte),
        any::<usize>().prop_map(Change::Hash),
        Just(Change::Remove),
        Just(Change::Swap),
        Just(Change::Repeat),
        Just(Change::Cut),
        Just(Change::User),
        Just(Change::Rewrite),
        Just(Change::Head),
    ]
}

/// Changes a trail and shows it to one who has verified the beginning of it, or nothing.
fn play(length: usize, place: usize, verified: usize, change: Change) {
    let user = UserId(uuid::Uuid::from_u128(7));
    let (whole, head) = trail(user, length, 1);
    let place = place % length;
    // Of what was verified one device has seen all before the place, unless it is about what was verified.
    let verified = if matches!(change, Change::Rewrite | Change::Cut) { length } else { verified % (place + 1) };
    let (_, seen) = trail(user, verified, 1);
    let seen = (verified > 0).then_some(&seen);
    assert_eq!(follow(user, seen, &whole, &head), Ok(head.clone()), "a whole trail is believed");

    let (mut items, mut end) = (whole.clone(), head.clone());
    match change {
        Change::Byte(at) => {
            let mut bytes = items[place].entry.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            items[place].entry = String::from_utf8(bytes).unwrap();
        }
        Change::Hash(at) => items[place].hash.0[at % 32] ^= 1,
        Change::Remove => {
            items.remove(place);
        }
        Change::Swap if place + 1 < length => items.swap(place, place + 1),
        Change::Repeat => items.insert(place, items[place].clone()),
        Change::Cut => {
            items.truncate(place);
            end = hashed_again(&mut items);
        }
        Change::User => {
            let (foreign, foreign_head) = trail(UserId(uuid::Uuid::from_u128(8)), length, 1);
            (items, end) = (foreign, foreign_head);
        }
        Change::Rewrite => {
            let text = items[place].entry.replace("\"at\":\"1970", "\"at\":\"1971");
            items[place].entry = text;
            end = hashed_again(&mut items);
        }
        Change::Swap | Change::Head => end.hash.0[0] ^= 1,
    }
    let found = follow(user, seen, &items, &end);
    assert!(found.is_err(), "{change:?} at {place} of {length}, {verified} verified: {found:?}");
    match change {
        Change::Cut => assert!(matches!(found, Err(TrailFault::Shortened { .. })), "{found:?}"),
        Change::Rewrite => assert!(matches!(found, Err(TrailFault::Forked { .. })), "{found:?}"),
        Change::Remove if place + 1 < length => assert!(matches!(found, Err(TrailFault::Missing { .. })), "{found:?}"),
        _ => {}
    }
}

fn cases() -> impl Strategy<Value = (usize, usize, usize, Change)> {
    (1..40_usize, any::<usize>(), any::<usize>(), changes())
}

proptest! {
    #[test]
    fn every_change_is_found((length, place, verified, change) in cases()) {
        play(length, place, verified, change);
    }
}

#[test]
#[ignore = "a hundred thousand trails take their time"]
fn a_hundred_thousand_trails() {
    let config = ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&cases(), |(length, place, verified, change)| {
            play(length, place, verified, change);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_trail_without_entries_ends_at_its_beginning() {
    let user = UserId::random();
    assert_eq!(TrailVerifier::new(user, None).end(&TrailHead::beginning()), Ok(TrailHead::beginning()));
    let (_, head) = trail(user, 3, 1);
    let found = TrailVerifier::new(user, None).end(&head);
    assert_eq!(found, Err(TrailFault::Missing { expected: 1, found: 3 }));
}
