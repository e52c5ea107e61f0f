//! Made-up histories: each broken promise is found by its name, and what is next to it and right is not.

use super::*;

const ANN: DeviceId = DeviceId(Uuid::from_u128(10));
const BEN: DeviceId = DeviceId(Uuid::from_u128(11));
const EVA: DeviceId = DeviceId(Uuid::from_u128(12));
const ALL: [DeviceId; 3] = [ANN, BEN, EVA];
const LAST: Seq = 6;

fn id(number: Seq) -> MessageId {
    MessageId(Uuid::from_u128(1000 + u128::try_from(number).unwrap()))
}

/// Ann has sent all but the fourth.
fn sender(seq: Seq) -> DeviceId {
    if seq == 4 { BEN } else { ANN }
}

/// Odd ones have one ciphertext for all.
fn entry(seq: Seq, by: DeviceId) -> Entry {
    let body = match (sender(seq) == by, seq % 2 == 1) {
        (true, _) => Body::Absent,
        (false, true) => Body::Shared,
        (false, false) => Body::Own,
    };
    Entry { seq, message: id(seq), from: Some(sender(seq)), body }
}

fn composed(seq: Seq) -> Note {
    Note::Composed { message: id(seq), by: sender(seq), shared: seq % 2 == 1, at: 0 }
}

fn answered(seq: Seq) -> Note {
    let connection = if sender(seq) == BEN { 8 } else { 7 };
    let place = Some((connection, u64::try_from(seq).unwrap()));
    Note::Answered { message: id(seq), place, seq, time: Timestamp::from_millis(seq), duplicate: false }
}

fn got(by: DeviceId, seq: Seq, after: Option<Seq>) -> Note {
    Note::Got { by, entry: entry(seq, by), after }
}

fn confirmed(by: DeviceId, up_to: Seq) -> Note {
    Note::Confirmed { by, up_to }
}

fn marked(up_to: Seq) -> Note {
    Note::Marked { by: ANN, mark: MarkOf::ToldDelivered(BEN), up_to }
}

fn page(by: DeviceId, after: Seq, to: Seq, anew: bool) -> Note {
    Note::Page { by, after, entries: (after + 1..=to).map(|seq| entry(seq, by)).collect(), anew }
}

fn end(by: DeviceId, last_seq: Seq, read_to: Seq) -> Note {
    Note::End { by, last_seq, read_to }
}

/// Ben sees a part, loses his connection, and comes back; Eva catches up by REST; everybody reads it all again.
fn clean() -> Vec<Note> {
    let mut notes: Vec<Note> = (1..=LAST).map(composed).collect();
    notes.extend((1..=LAST).map(answered));
    notes.extend([Note::Began { by: ANN }, got(ANN, 4, Some(0)), marked(2), marked(6), confirmed(ANN, 4)]);
    notes.extend([Note::Began { by: BEN }, got(BEN, 1, Some(0)), got(BEN, 2, Some(1)), got(BEN, 3, Some(2))]);
    notes.extend([confirmed(BEN, 2), Note::Began { by: BEN }, got(BEN, 3, Some(2)), got(BEN, 5, Some(3))]);
    notes.extend([got(BEN, 6, Some(5)), confirmed(BEN, 6)]);
    notes.push(page(EVA, 1, 3, false));
    notes.push(Note::Began { by: EVA });
    notes.extend((1..=LAST).map(|seq| got(EVA, seq, None)));
    for by in ALL {
        notes.extend([page(by, 0, 4, true), page(by, 4, LAST, true), end(by, LAST, LAST)]);
    }
    notes
}

/// The promises that are broken in these notes, in the order of the tables.
fn broken(notes: Vec<Note>) -> Vec<Promise> {
    let findings = check(0, &ALL, notes);
    findings.iter().filter(|(_, count, _)| *count > 0).map(|(promise, ..)| promise).collect()
}

fn changed(change: impl FnOnce(&mut Vec<Note>)) -> Vec<Promise> {
    let mut notes = clean();
    change(&mut notes);
    broken(notes)
}

/// Where a note is; what is sought must be there.
fn place(notes: &[Note], is_it: impl Fn(&Note) -> bool) -> usize {
    notes.iter().position(is_it).expect("the note is there")
}

fn is_got(note: &Note, device: DeviceId, number: Seq) -> bool {
    matches!(note, Note::Got { by, entry, .. } if *by == device && entry.seq == number)
}

fn is_answer(note: &Note, number: Seq) -> bool {
    matches!(note, Note::Answered { message, .. } if *message == id(number))
}

fn at_end_of_looks(notes: &[Note]) -> usize {
    place(notes, |note| matches!(note, Note::Page { anew: true, .. }))
}

const CLEAN: [Promise; 0] = [];

#[test]
fn what_holds_is_clean() {
    let findings = check(0, &ALL, clean());
    assert!(findings.is_clean(), "{findings:?}");
}

#[test]
fn a_log_that_was_there_before_is_not_judged_but_its_order_is() {
    let shift = 40;
    let moved = |mut note: Note| {
        match &mut note {
            Note::Answered { seq, .. } => *seq += shift,
            Note::Got { entry, after, .. } => {
                entry.seq += shift;
                *after = after.map(|after| after + shift);
            }
            Note::Confirmed { up_to, .. } | Note::Marked { up_to, .. } => *up_to += shift,
            Note::Page { after, entries, .. } => {
                *after += shift;
                entries.iter_mut().for_each(|entry| entry.seq += shift);
            }
            Note::End { last_seq, read_to, .. } => {
                *last_seq += shift;
                *read_to += shift;
            }
            _ => {}
        }
        note
    };
    let old = |seq| Note::Got {
        by: BEN,
        entry: Entry { seq, message: id(900), from: Some(EVA), body: Body::Other },
        after: None,
    };
    let mut notes: Vec<Note> = vec![Note::Began { by: BEN }, old(38), old(40)];
    notes.extend(clean().into_iter().map(moved));
    assert!(check(shift, &ALL, notes.clone()).is_clean());
    notes.swap(1, 2);
    assert_eq!(check(shift, &ALL, notes).count(Promise::Reordered), 1);
}

#[test]
fn lost_acknowledged_and_in_nobodys_log() {
    let lost = changed(|notes| {
        notes.retain(|note| !is_got(note, BEN, 6) && !is_got(note, EVA, 6));
        notes.retain(|note| !matches!(note, Note::Page { anew: true, .. } | Note::End { .. }));
        for by in ALL {
            notes.extend([page(by, 0, 5, true), end(by, 5, 5)]);
        }
    });
    assert_eq!(lost, [Promise::Lost]);
    // Not even sent: nothing is missed.
    let clean = changed(|notes| {
        notes.retain(|note| !is_got(note, BEN, 6) && !is_got(note, EVA, 6) && !is_answer(note, 6));
        notes.retain(|note| !matches!(note, Note::Composed { message, .. } if *message == id(6)));
        notes.retain(|note| !matches!(note, Note::Page { anew: true, .. } | Note::End { .. }));
        for by in ALL {
            notes.extend([page(by, 0, 5, true), end(by, 5, 5)]);
        }
    });
    assert_eq!(clean, CLEAN);
}

#[test]
fn lost_for_one_device_with_nothing_behind_it() {
    assert_eq!(changed(|notes| notes.retain(|note| !is_got(note, BEN, 6))), [Promise::Lost]);
    // Nothing is owed to one that was signed out before.
    let left = changed(|notes| {
        notes.retain(|note| !is_got(note, BEN, 6));
        notes.push(Note::Left { by: BEN, user: UserId(Uuid::from_u128(1)) });
    });
    assert_eq!(left, CLEAN);
}

#[test]
fn lost_when_it_was_never_answered() {
    assert_eq!(changed(|notes| notes.retain(|note| !is_answer(note, 6))), [Promise::Lost]);
    // All attempts were refused: it is given up, and then it may not be stored.
    let seventh = Note::Composed { message: id(7), by: ANN, shared: true, at: 0 };
    let withdrawn = Note::Withdrawn { message: id(7) };
    assert_eq!(changed(|notes| notes.extend([seventh.clone(), withdrawn.clone()])), CLEAN);
    let stored = changed(|notes| {
        notes.retain(|note| !is_answer(note, 6));
        notes.push(Note::Withdrawn { message: id(6) });
    });
    assert_eq!(stored, [Promise::Altered]);
    assert_eq!(changed(|notes| notes.push(seventh)), [Promise::Lost]);
}

#[test]
fn lost_for_a_device_that_was_there_and_was_told_later() {
    let waited = |by| Note::Waited { by };
    let before = |device, number, note: Note| {
        changed(|notes| notes.insert(place(notes, |other| is_got(other, device, number)), note))
    };
    assert_eq!(before(BEN, 6, waited(BEN)), [Promise::Lost]);
    assert_eq!(before(BEN, 6, waited(ANN)), CLEAN);
    assert_eq!(changed(|notes| notes.extend(ALL.map(waited))), CLEAN);
    // What nobody has answered yet is owed to nobody.
    assert_eq!(changed(|notes| notes.insert(0, waited(BEN))), CLEAN);
}

#[test]
fn lost_when_it_was_not_acknowledged_and_did_not_come_again() {
    let notes = |extra: Vec<Note>| changed(|notes| notes.extend(extra));
    let (kept, forgot) = (Note::Kept { by: EVA, seqs: vec![3] }, Note::Forgot { by: EVA, seqs: vec![3] });
    assert_eq!(notes(vec![forgot.clone()]), [Promise::Lost]);
    assert_eq!(notes(vec![kept, forgot.clone()]), CLEAN);
    assert_eq!(notes(vec![forgot, Note::Began { by: EVA }, got(EVA, 3, None)]), CLEAN);
}

#[test]
fn entries_of_the_server_are_in_the_log_and_are_not_judged() {
    let joined = |body| {
        let entry = Entry { seq: LAST + 1, message: id(700), from: None, body };
        let page = Note::Page { by: EVA, after: LAST, entries: vec![entry], anew: true };
        changed(|notes| notes.extend([Note::Got { by: BEN, entry, after: Some(LAST) }, page]))
    };
    assert_eq!(joined(Body::Absent), CLEAN);
    assert_eq!(joined(Body::Other), [Promise::Altered]);
}

#[test]
fn stored_twice_by_the_log() {
    let twice = changed(|notes| {
        notes.retain(|note| !matches!(note, Note::End { .. }));
        let again = Entry { seq: 7, ..entry(6, BEN) };
        notes.push(Note::Page { by: BEN, after: 6, entries: vec![again], anew: true });
        notes.push(end(BEN, 7, 7));
    });
    assert_eq!(twice, [Promise::StoredTwice]);
    // The same page twice is no second storing.
    assert_eq!(changed(|notes| notes.push(page(BEN, 4, 6, true))), CLEAN);
}

#[test]
fn stored_twice_by_its_answers() {
    let again = |seq, millis, duplicate| Note::Answered {
        message: id(2),
        place: None,
        seq,
        time: Timestamp::from_millis(millis),
        duplicate,
    };
    let behind = |note| changed(|notes| notes.insert(place(notes, |note| is_answer(note, 6)) + 1, note));
    assert_eq!(behind(again(2, 2, true)), CLEAN, "a repeat is answered alike");
    assert_eq!(behind(again(7, 2, true)), [Promise::StoredTwice]);
    assert_eq!(behind(again(2, 9, true)), [Promise::StoredTwice]);
    assert_eq!(behind(again(2, 2, false)), [Promise::StoredTwice]);
}

#[test]
fn delivered_twice_after_a_confirmed_ack() {
    let after = |notes: &[Note]| place(notes, |note| matches!(note, Note::Confirmed { by: BEN, up_to: 6 })) + 1;
    let twice = changed(|notes| {
        let place = after(notes);
        notes.splice(place..place, [Note::Began { by: BEN }, got(BEN, 6, None)]);
    });
    assert_eq!(twice, [Promise::DeliveredTwice]);
    // Twice on one connection.
    let twice = changed(|notes| {
        let place = place(notes, |note| is_got(note, BEN, 1));
        notes.insert(place + 1, got(BEN, 1, None));
    });
    assert_eq!(twice, [Promise::DeliveredTwice]);
    // What was sent and not confirmed comes again, and that is right.
    let again = changed(|notes| {
        let place = after(notes) - 1;
        notes.splice(place..place, [Note::Began { by: BEN }, got(BEN, 3, Some(2)), got(BEN, 5, Some(3))]);
        notes.splice(place + 3..place + 3, [got(BEN, 6, Some(5))]);
    });
    assert_eq!(again, CLEAN);
}

#[test]
fn reordered_frames_of_one_connection() {
    let frame = |seq, frame| {
        let time = Timestamp::from_millis(seq);
        Note::Answered { message: id(seq), place: Some((7, frame)), seq, time, duplicate: false }
    };
    let set = |notes: &mut Vec<Note>, seq, number| {
        let place = place(notes, |note| is_answer(note, seq));
        notes[place] = frame(seq, number);
    };
    let reordered = changed(|notes| {
        set(notes, 1, 2);
        set(notes, 2, 1);
    });
    assert_eq!(reordered, [Promise::Reordered]);
    // Answers that come in another order than the frames, with the right numbers.
    let swapped = changed(|notes| {
        let place = place(notes, |note| is_answer(note, 1));
        notes.swap(place, place + 1);
    });
    assert_eq!(swapped, CLEAN);
}

#[test]
fn reordered_against_what_was_acknowledged_before() {
    let late = |notes: &mut Vec<Note>, behind: Seq| {
        let from = place(notes, |note| matches!(note, Note::Composed { message, .. } if *message == id(2)));
        let note = notes.remove(from);
        let to = place(notes, |note| is_answer(note, behind));
        notes.insert(to + 1, note);
        let answer = place(notes, |note| is_answer(note, 2));
        let answer = notes.remove(answer);
        let to = place(notes, |note| matches!(note, Note::Composed { message, .. } if *message == id(2)));
        // By REST, so that no frame says the same.
        let Note::Answered { message, seq, time, duplicate, .. } = answer else { unreachable!() };
        notes.insert(to + 1, Note::Answered { message, place: None, seq, time, duplicate });
    };
    assert_eq!(changed(|notes| late(notes, 3)), [Promise::Reordered]);
    assert_eq!(changed(|notes| late(notes, 1)), CLEAN);
}

#[test]
fn reordered_on_a_socket() {
    let reordered = changed(|notes| {
        let first = place(notes, |note| is_got(note, BEN, 1));
        notes.splice(first..first + 2, [got(BEN, 2, None), got(BEN, 1, None)]);
    });
    assert!(reordered.contains(&Promise::Reordered), "{reordered:?}");
    // Two connections may go over the same numbers.
    let again = changed(|notes| {
        let first = place(notes, |note| is_got(note, BEN, 1));
        notes.splice(first + 1..first + 1, [Note::Began { by: BEN }, got(BEN, 1, Some(0))]);
    });
    assert_eq!(again, CLEAN);
}

#[test]
fn a_gap_in_the_log() {
    let gaps = changed(|notes| {
        let eighth = Entry { seq: 8, message: id(8), from: Some(ANN), body: Body::Shared };
        notes.retain(|note| !matches!(note, Note::End { .. }));
        notes.push(Note::Composed { message: id(8), by: ANN, shared: true, at: 0 });
        let time = Timestamp::from_millis(8);
        notes.push(Note::Answered { message: id(8), place: None, seq: 8, time, duplicate: false });
        notes.push(Note::Got { by: BEN, entry: eighth, after: Some(6) });
        notes.push(Note::Got { by: EVA, entry: eighth, after: None });
        for by in ALL {
            let body = if by == ANN { Body::Absent } else { Body::Shared };
            notes.push(Note::Page { by, after: 6, entries: vec![Entry { body, ..eighth }], anew: true });
            notes.push(end(by, 8, 8));
        }
    });
    assert_eq!(gaps, [Promise::Gap]);
    // The conversation says more than it has.
    let gaps = changed(|notes| {
        let place = place(notes, |note| matches!(note, Note::End { by: EVA, .. }));
        notes[place] = end(EVA, 7, 6);
    });
    assert_eq!(gaps, [Promise::Gap]);
    // It said less before: something came in between.
    let fewer = changed(|notes| {
        let place = place(notes, |note| matches!(note, Note::End { by: EVA, .. }));
        notes[place] = end(EVA, 5, 6);
    });
    assert_eq!(fewer, CLEAN);
}

#[test]
fn a_gap_on_a_connection() {
    // 2 comes only on the next connection.
    let gaps = changed(|notes| {
        let first = place(notes, |note| is_got(note, BEN, 1));
        let again = [got(BEN, 1, Some(0)), got(BEN, 3, Some(1)), Note::Began { by: BEN }, got(BEN, 2, Some(1))];
        notes.splice(first..first + 3, again);
    });
    assert_eq!(gaps, [Promise::Gap]);
    // Ben's own fourth message is passed over, and that is right: `clean` has it. For Eva it is a gap.
    let gaps = changed(|notes| {
        let fourth = place(notes, |note| is_got(note, EVA, 4));
        notes.remove(fourth);
        let end = at_end_of_looks(notes);
        notes.splice(end..end, [Note::Began { by: EVA }, got(EVA, 4, None)]);
    });
    assert_eq!(gaps, [Promise::Gap]);
}

#[test]
fn a_gap_in_the_chain() {
    let chain = |after| {
        changed(|notes| {
            let second = place(notes, |note| is_got(note, BEN, 2));
            notes[second] = got(BEN, 2, Some(after));
        })
    };
    assert_eq!(chain(0), [Promise::Gap]);
    assert_eq!(chain(1), CLEAN);
}

#[test]
fn another_message_at_one_number() {
    // For two devices.
    let other = Entry { message: id(5), ..entry(3, BEN) };
    let different = changed(|notes| {
        let place = place(notes, |note| is_got(note, BEN, 3));
        notes[place] = Note::Got { by: BEN, entry: other, after: Some(2) };
    });
    assert!(different.contains(&Promise::Different), "{different:?}");
    // For two reads, the first of them before a crash.
    let glance = |seq: Seq, message: Seq| {
        let entry = Entry { seq, ..entry(message, EVA) };
        changed(|notes| {
            let place = place(notes, |note| matches!(note, Note::Page { anew: false, .. }));
            notes[place] = Note::Page { by: EVA, after: seq - 1, entries: vec![entry], anew: false };
        })
    };
    assert!(glance(3, 5).contains(&Promise::Different));
    assert_eq!(glance(3, 3), CLEAN);
    // An answer names a number at which another stands.
    let different = changed(|notes| {
        let place = place(notes, |note| is_answer(note, 6));
        let time = Timestamp::from_millis(6);
        notes[place] = Note::Answered { message: id(6), place: None, seq: 5, time, duplicate: false };
    });
    assert!(different.contains(&Promise::Different), "{different:?}");
}

#[test]
fn a_mark_that_went_back() {
    assert_eq!(changed(|notes| notes.push(marked(5))), [Promise::MarkBack]);
    assert_eq!(changed(|notes| notes.extend([marked(6), marked(7)])), CLEAN);
    // What was set is there or higher; setting a lower one is nothing.
    let set = |up_to| Note::Raised { by: ANN, mark: MarkOf::MyRead, up_to };
    let seen = |up_to| Note::Marked { by: ANN, mark: MarkOf::MyRead, up_to };
    assert_eq!(changed(|notes| notes.extend([set(4), seen(3)])), [Promise::MarkBack]);
    assert_eq!(changed(|notes| notes.extend([set(4), set(3), seen(4)])), CLEAN);
    // What a user has received is the least of his devices; without the device it is another number.
    let user = UserId(Uuid::from_u128(1));
    let received = |up_to| Note::Marked { by: ANN, mark: MarkOf::Delivered(user), up_to };
    assert_eq!(changed(|notes| notes.extend([received(6), received(0)])), [Promise::MarkBack]);
    let left = Note::Left { by: BEN, user };
    assert_eq!(changed(|notes| notes.extend([received(6), left, received(0)])), CLEAN);
    // The chain of a new connection begins below what was confirmed.
    let back = changed(|notes| {
        let place = place(notes, |note| is_got(note, BEN, 5)) - 1;
        notes[place] = got(BEN, 3, Some(1));
    });
    assert_eq!(back, [Promise::Gap, Promise::MarkBack]);
}

#[test]
fn altered_content_sender_and_answers() {
    let first = |entry: Entry| {
        changed(|notes| {
            let place = place(notes, |note| is_got(note, BEN, 1));
            notes[place] = Note::Got { by: BEN, entry, after: Some(0) };
        })
    };
    assert_eq!(first(entry(1, BEN)), CLEAN);
    assert_eq!(first(Entry { body: Body::Other, ..entry(1, BEN) }), [Promise::Altered]);
    assert_eq!(first(Entry { body: Body::Own, ..entry(1, BEN) }), [Promise::Altered], "it was one for all");
    assert_eq!(first(Entry { body: Body::Absent, ..entry(1, BEN) }), [Promise::Altered]);
    assert_eq!(first(Entry { from: Some(EVA), ..entry(1, BEN) }), [Promise::Altered]);
    let history = changed(|notes| {
        let place = at_end_of_looks(notes);
        if let Note::Page { entries, .. } = &mut notes[place] {
            entries[0].body = Body::Other;
        }
    });
    assert_eq!(history, [Promise::Altered]);
    assert_eq!(changed(|notes| notes.push(Note::Strange("a 404".to_owned()))), [Promise::Altered]);
    // One's own message is not given to oneself, and nothing that nobody sent.
    assert_eq!(changed(|notes| notes.push(got(ANN, 5, None))), [Promise::Altered]);
    let foreign = Entry { seq: 7, message: id(77), from: Some(ANN), body: Body::Shared };
    let foreign = Note::Got { by: BEN, entry: foreign, after: Some(6) };
    assert_eq!(changed(|notes| notes.push(foreign)), [Promise::Altered]);
}

#[test]
fn a_number_beyond_all_bounds_is_a_finding_and_no_memory() {
    let far = Entry { seq: 1 << 60, ..entry(5, BEN) };
    let found = changed(|notes| notes.push(Note::Got { by: BEN, entry: far, after: None }));
    assert!(found.contains(&Promise::Gap), "{found:?}");
}
