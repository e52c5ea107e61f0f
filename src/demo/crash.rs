//! The crash: SIGKILL in the middle of sends, and a comparison of what was promised with what is there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto_client::protocol::{ConversationId, DeviceId, MessageId, Seq};
use sotto_schema::rows::MessageRow;
use tokio::sync::mpsc;

use super::device::Device;
use super::error::expect;
use super::story::Story;
use super::talk::rooms;
use super::world::{Room, Spoken, World, send};
use super::{DemoError, within};

/// Messages of each stream of the storm.
const EACH: usize = 20;
/// The server is killed when so many of a hundred have been answered.
const KILLED_AT_PERCENT: usize = 45;
/// How long it stays dead, at least.
const DEAD: Duration = Duration::from_millis(250);
/// More rows than the demo ever makes.
const ALL: i64 = 10_000;

/// When the server was not there.
pub(super) struct Outage {
    /// From the kill until the last device was connected again.
    pub(super) healed_after: Duration,
}

/// Everybody writes as fast as possible; the server is killed in between and started again.
pub(super) async fn kill_and_recover(story: &mut Story, world: &mut World) -> Result<Outage, DemoError> {
    story.scene("Everybody writes at once, and the server is killed");
    let devices = world.devices();
    let before: Vec<usize> = devices.iter().map(|device| device.seen().messages.len()).collect();
    let [direct, group] = rooms(world)?;
    let streams = [
        (Arc::clone(&world.phone), direct),
        (Arc::clone(&world.phone), group),
        (Arc::clone(&world.laptop), direct),
        (Arc::clone(&world.bob), direct),
        (Arc::clone(&world.bob), group),
        (Arc::clone(&world.carol), group),
    ];
    let total = streams.len() * EACH;
    let (told, mut answered) = mpsc::unbounded_channel();
    let writers: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(number, (device, room))| tokio::spawn(write(device, room, number, told.clone())))
        .collect();
    drop(told);
    story.tell("all devices", format!("begin to send {total} messages in {} streams", writers.len()));

    let mut storm: Vec<Spoken> = Vec::with_capacity(total);
    while storm.len() * 100 < total * KILLED_AT_PERCENT {
        let next = within("the first half of the storm is answered", answered.recv()).await?;
        storm.push(next.ok_or_else(|| DemoError::Broken("the storm broke off".to_owned()))?);
    }
    let pid = world.server.pid();
    world.server.kill();
    let killed = Instant::now();
    // Answers that were on their way count as given.
    while let Ok(spoken) = answered.try_recv() {
        storm.push(spoken);
    }
    story.tell_at(killed, "server", format!("SIGKILL to process {pid}, with {} of {total} answered `ok`", storm.len()));
    for device in &devices {
        device.sees("notices that the server is gone", |seen| (!seen.is_up()).then_some(())).await?;
    }
    story.tell("all devices", "have lost their connection; what was not answered waits in their outboxes");
    let promised: Vec<Spoken> =
        world.spoken.iter().chain(&storm).filter(|spoken| spoken.answered <= killed).cloned().collect();
    let kept = compare_with_database(world, &promised).await?;
    let unanswered = match kept - promised.len() {
        0 => String::new(),
        count => format!("; {count} more just stored, the answer on its way"),
    };
    story.server(format!("is dead. All {} answered messages are in its database{unanswered}", promised.len()));
    tokio::time::sleep(DEAD.saturating_sub(killed.elapsed())).await;
    let restarted = Instant::now();
    world.server.restart().await?;
    story.server(format!(
        "runs again as process {} at the same address, ready after {} ms; no repair, no question",
        world.server.pid(),
        restarted.elapsed().as_millis()
    ));
    let mut healed = killed;
    for device in &devices {
        let up = device.sees("connects again by itself", |seen| seen.links.last().filter(|_| seen.is_up()).copied());
        let (at, _) = up.await?;
        healed = healed.max(at);
        story.tell_at(at, device.name, "is connected again, by itself");
    }
    for writer in writers {
        let ended = within("the storm ends", writer).await?;
        ended.map_err(|error| DemoError::Broken(format!("a writer broke off: {error}")))??;
    }
    while let Some(spoken) = answered.recv().await {
        storm.push(spoken);
    }
    expect(storm.len() == total, || format!("{} of {total} messages were answered", storm.len()))?;
    world.spoken.append(&mut storm);
    let repeats = world.spoken.iter().filter(|spoken| spoken.repeated).count();
    let known = match repeats {
        0 => String::new(),
        count => format!("; in {count} repeats the server knew the id and stored nothing twice"),
    };
    story.tell("all devices", format!("have `ok` for all {total}, without anybody's doing{known}"));
    story.flush();
    nothing_lost_or_doubled(story, world, &before).await?;
    Ok(Outage { healed_after: healed - killed })
}

async fn write(
    device: Arc<Device>,
    room: ConversationId,
    stream: usize,
    answered: mpsc::UnboundedSender<Spoken>,
) -> Result<(), DemoError> {
    for number in 1..=EACH {
        let text = format!("{} writes line {number} of {EACH} in stream {stream}", device.name);
        // Whoever counts may have given up; the sends are made nevertheless.
        drop(answered.send(send(&device, room, &text).await?));
    }
    Ok(())
}

/// What the server has answered must be there, under its number; the count of all texts there.
async fn compare_with_database(world: &World, promised: &[Spoken]) -> Result<usize, DemoError> {
    let mut texts = 0;
    for room in &world.rooms {
        let rows = rows(world, room).await?;
        let numbers: HashMap<MessageId, Seq> = rows.iter().map(|row| (row.message_id, row.seq)).collect();
        expect(numbers.len() == rows.len(), || format!("a message is in {} twice", room.name))?;
        for (row, expected) in rows.iter().zip(1..) {
            expect(row.seq == expected, || format!("no. {expected} is missing in {}", room.name))?;
        }
        for spoken in promised.iter().filter(|spoken| spoken.conversation_id == room.id) {
            let found = numbers.get(&spoken.message_id).copied();
            expect(found == Some(spoken.seq), || {
                format!("“{}” was answered as no. {} and is {found:?} in the database", spoken.text, spoken.seq)
            })?;
        }
        texts += rows.iter().filter(|row| row.kind.as_str() == "text").count();
    }
    Ok(texts)
}

/// The log of a conversation as it stands in the server's database.
pub(super) async fn rows(world: &World, room: &Room) -> Result<Vec<MessageRow>, DemoError> {
    let store = world.server.store().await?;
    let Some(member) = room.devices.first() else { return Ok(Vec::new()) };
    Ok(store.history(room.id, member.client.user_id(), None, None, ALL).await?)
}

async fn nothing_lost_or_doubled(story: &mut Story, world: &World, before: &[usize]) -> Result<(), DemoError> {
    let stored = compare_with_database(world, &world.spoken).await?;
    let answered = world.spoken.len();
    expect(stored == answered, || format!("{answered} messages were answered, and {stored} are stored"))?;
    story.holds(&format!("database: {stored} messages, the same that were answered, numbered without gaps"));
    for (device, before) in world.devices().iter().zip(before) {
        let wanted = wanted(world, device);
        let what = format!("has all {} messages that are for it", wanted.len());
        device.sees(&what, |seen| (seen.messages.len() >= wanted.len()).then_some(())).await?;
        let seen = device.seen();
        let mut known = HashSet::new();
        let mut last: HashMap<ConversationId, Seq> = HashMap::new();
        for (index, (_, message)) in seen.messages.iter().enumerate() {
            let text = message.text().unwrap_or_default();
            expect(known.insert(message.message_id), || format!("{} was told “{text}” twice", device.name))?;
            let fits = wanted.get(&message.message_id).is_some_and(|(seq, said)| (*seq, *said) == (message.seq, text));
            expect(fits, || format!("{} was told “{text}”, which nobody said there", device.name))?;
            let earlier = last.insert(message.conversation_id, message.seq);
            let in_order = index < *before || earlier.is_none_or(|earlier| earlier < message.seq);
            expect(in_order, || format!("{} was told no. {} after no. {earlier:?}", device.name, message.seq))?;
        }
        expect(seen.messages.len() == wanted.len(), || format!("{} lacks messages", device.name))?;
        expect(seen.faults.is_empty(), || format!("{} reports {}", device.name, seen.faults.join(", ")))?;
        let verdict = format!("{}: all {} messages for it, each once, in order, readable", device.name, wanted.len());
        drop(seen);
        story.holds(&verdict);
    }
    story.holds("verdict: nothing lost, nothing doubled");
    story.flush();
    Ok(())
}

/// What a device has to have: everything in its conversations but its own.
fn wanted<'a>(world: &'a World, device: &Device) -> HashMap<MessageId, (Seq, &'a str)> {
    let me: DeviceId = device.client.device_id();
    let mine = |spoken: &&Spoken| {
        let room = world.rooms.iter().find(|room| room.id == spoken.conversation_id);
        let is_there = room.is_some_and(|room| room.devices.iter().any(|there| there.client.device_id() == me));
        is_there && spoken.by != me
    };
    let said = world.spoken.iter().filter(mine);
    said.map(|spoken| (spoken.message_id, (spoken.seq, spoken.text.as_str()))).collect()
}
