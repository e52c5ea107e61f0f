//! The talking: a direct conversation, a group, and somebody who was away.

use std::sync::Arc;

use sotto_client::protocol::{ConversationId, Seq, UserId};

use super::device::Device;
use super::error::expect;
use super::story::Story;
use super::world::{Room, World};
use super::{DemoError, within};

/// Alice and Bob; her laptop follows.
pub(super) async fn direct(story: &mut Story, world: &mut World) -> Result<(), DemoError> {
    story.scene("Alice and Bob talk (Olm: one ciphertext for each device, the linked laptop among them)");
    let (phone, laptop, bob) = (Arc::clone(&world.phone), Arc::clone(&world.laptop), Arc::clone(&world.bob));
    let room = phone.client.direct(bob.client.user_id()).await.map_err(DemoError::call("Alice finds Bob"))?;
    let devices = vec![Arc::clone(&phone), Arc::clone(&laptop), Arc::clone(&bob)];
    world.rooms.push(Room { id: room, name: "Alice–Bob", devices });

    let hello = world.say(story, &phone, "Bob", room, "Hi Bob, is this line really private?").await?;
    world.hear(story, &hello, &[&bob, &laptop]).await?;
    delivered(story, &phone, &bob, room, hello.seq).await?;
    read(story, &bob, &[&phone, &laptop], room, hello.seq).await?;
    story.flush();

    let answer = world.say(story, &bob, "Alice", room, "Only you and I can read it. See the end of this.").await?;
    world.hear(story, &answer, &[&phone, &laptop]).await?;
    let from_laptop = world.say(story, &laptop, "Bob", room, "Then I go on typing on my laptop.").await?;
    world.hear(story, &from_laptop, &[&bob, &phone]).await?;
    let mine = phone.client.identity_key().await.map_err(DemoError::call("Alice's identity key"))?;
    let known = bob.client.identities(phone.client.user_id()).await.map_err(DemoError::call("what Bob knows"))?;
    let same = known.iter().any(|(id, key)| *id == phone.client.device_id() && *key == mine);
    expect(same, || "Bob encrypts for another identity key than the one of Alice's phone".to_owned())?;
    story.holds("Bob's phone holds the identity key that Alice's phone shows: nobody stands in between");
    story.flush();
    Ok(())
}

/// All three, with one ciphertext for everybody.
pub(super) async fn group(story: &mut Story, world: &mut World) -> Result<(), DemoError> {
    story.scene("A group of three (Megolm: one ciphertext for all devices)");
    let (phone, bob, carol) = (Arc::clone(&world.phone), Arc::clone(&world.bob), Arc::clone(&world.carol));
    let laptop = Arc::clone(&world.laptop);
    let members: [UserId; 2] = [bob.client.user_id(), carol.client.user_id()];
    let made = phone.client.group(Some("Saturday hike"), &members).await;
    let room = made.map_err(DemoError::call("Alice makes a group"))?;
    world.rooms.push(Room { id: room, name: "Saturday hike", devices: world.devices().to_vec() });
    story.tell(phone.name, "makes the group “Saturday hike” of Alice, Bob and Carol");

    let said = world.say(story, &phone, "Saturday hike", room, "The hut by the lake, Saturday at nine?").await?;
    world.hear(story, &said, &[&laptop, &bob, &carol]).await?;
    let said = world.say(story, &carol, "Saturday hike", room, "I bring the map and the bread.").await?;
    world.hear(story, &said, &[&phone, &laptop, &bob]).await?;
    let said = world.say(story, &bob, "Saturday hike", room, "Nine is early. I bring coffee.").await?;
    world.hear(story, &said, &[&phone, &laptop, &carol]).await?;
    for (reader, others) in [(&bob, [&phone, &carol]), (&carol, [&phone, &bob])] {
        read(story, reader, &others, room, said.seq).await?;
    }
    story.flush();
    Ok(())
}

/// Bob's phone is switched off, and catches up by REST alone.
pub(super) async fn away(story: &mut Story, world: &mut World) -> Result<(), DemoError> {
    story.scene("Bob is away and catches up over REST, without a socket");
    let (phone, bob, carol) = (Arc::clone(&world.phone), Arc::clone(&world.bob), Arc::clone(&world.carol));
    let laptop = Arc::clone(&world.laptop);
    let [direct, group] = rooms(world)?;
    within("Bob's phone disconnects", bob.client.disconnect()).await?;
    bob.sees("disconnected", |seen| (!seen.is_up()).then_some(())).await?;
    story.tell(bob.name, "goes into a tunnel: disconnected");

    let missed = [
        world.say(story, &phone, "Bob", direct, "Bob? Your train leaves at 7:42, platform 5.").await?,
        world.say(story, &carol, "Saturday hike", group, "The forecast says rain until ten.").await?,
        world.say(story, &laptop, "Saturday hike", group, "Then ten it is.").await?,
    ];
    world.hear(story, &missed[1], &[&phone, &laptop]).await?;
    world.hear(story, &missed[2], &[&phone, &carol]).await?;
    let before = bob.seen().messages.len();
    expect(bob.client.link_state() == sotto_client::LinkState::Off, || "Bob's phone is connected".to_owned())?;
    story.tell(bob.name, "has a moment of reception and asks GET /v1/sync what it has missed");
    let count = within("Bob's phone syncs", bob.client.sync()).await?;
    let count = count.map_err(DemoError::call("Bob's phone syncs"))?;
    for spoken in &missed {
        world.hear(story, spoken, &[&bob]).await?;
    }
    let came = bob.seen().messages.len() - before;
    expect(came == missed.len(), || format!("Bob missed {} messages and got {came}", missed.len()))?;
    story.tell(
        bob.name,
        format!("has stored {count} events, {came} of them messages, and says so by POST /v1/sync/ack"),
    );
    delivered(story, &phone, &bob, direct, missed[0].seq).await?;
    read(story, &bob, &[&phone], direct, missed[0].seq).await?;
    let again = within("Bob's phone syncs again", bob.client.sync()).await?;
    let again = again.map_err(DemoError::call("Bob's phone syncs again"))?;
    story.flush();
    let none_again = bob.seen().messages.len() == before + came;
    expect(none_again, || format!("a second sync brought {again} events, and messages among them"))?;
    bob.connect().await?;
    story.tell(bob.name, "is out of the tunnel: connected; nothing comes a second time");
    story.flush();
    Ok(())
}

/// The direct conversation and the group.
pub(super) fn rooms(world: &World) -> Result<[ConversationId; 2], DemoError> {
    match world.rooms.as_slice() {
        [direct, group] => Ok([direct.id, group.id]),
        _ => Err(DemoError::Broken("there are not two conversations".to_owned())),
    }
}

/// Waits until a device is told that another one has stored its message.
async fn delivered(
    story: &mut Story,
    teller: &Device,
    by: &Device,
    room: ConversationId,
    seq: Seq,
) -> Result<(), DemoError> {
    let what = format!("the mark that {} has stored no. {seq}", by.name);
    let device = by.client.device_id();
    let (at, mark) = teller
        .sees(&what, |seen| {
            let fits = |mark: &sotto_client::protocol::event::Delivered| {
                mark.conversation_id == room && mark.device_id == device && mark.up_to >= seq
            };
            seen.delivered.iter().find(|(_, mark)| fits(mark)).cloned()
        })
        .await?;
    story.tell_at(at, teller.name, format!("✓✓ delivered: {} has everything up to no. {}", by.name, mark.up_to));
    Ok(())
}

/// Somebody reads; the others are told.
async fn read(
    story: &mut Story,
    reader: &Device,
    others: &[&Arc<Device>],
    room: ConversationId,
    seq: Seq,
) -> Result<(), DemoError> {
    let marked = within(format!("{} marks as read", reader.name), reader.client.mark_read(room, seq)).await?;
    marked.map_err(DemoError::call(format!("{} marks as read", reader.name)))?;
    let user = reader.client.user_id();
    for device in others {
        let what = format!("the mark that {} has read no. {seq}", reader.owner);
        let (at, mark) = device
            .sees(&what, |seen| {
                let mut reads = seen.reads.iter();
                reads
                    .find(|(_, mark)| mark.conversation_id == room && mark.user_id == user && mark.up_to >= seq)
                    .cloned()
            })
            .await?;
        story.tell_at(at, device.name, format!("✓✓ read: {} has read up to no. {}", reader.owner, mark.up_to));
    }
    Ok(())
}
