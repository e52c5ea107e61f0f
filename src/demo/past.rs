//! What Alice's devices know of her account's past: a trail that they verify, and that shows when it was changed.

use std::sync::Arc;

use sotto_client::TrailVerifier;
use sotto_client::protocol::trail::{TrailEntry, TrailEvent};

use super::error::expect;
use super::story::Story;
use super::world::World;
use super::{DemoError, within};

/// Characters of a hash that are shown.
const SHOWN: usize = 16;

/// Reads the trail on two devices, and shows a changed copy to the verifier.
pub(super) async fn verify(story: &mut Story, world: &World) -> Result<(), DemoError> {
    story.scene("What happened to Alice's account: a trail of hashes that her devices verify");
    let (phone, laptop) = (Arc::clone(&world.phone), Arc::clone(&world.laptop));
    let trail = within("Alice's phone reads its trail", phone.client.whole_trail()).await?;
    let trail = trail.map_err(DemoError::call("Alice's phone reads its trail"))?;
    let other = within("Alice's laptop reads its trail", laptop.client.whole_trail()).await?;
    let other = other.map_err(DemoError::call("Alice's laptop reads its trail"))?;
    for entry in &trail.entries {
        story.plain(&format!("{:>3}  {}  {}", entry.seq, entry.at, says(world, entry)));
    }
    let linked = TrailEvent::DeviceLinked { device_id: laptop.client.device_id() };
    expect(trail.entries.iter().any(|entry| entry.event == linked), || "the trail has not seen the laptop".to_owned())?;
    expect(trail.head == other.head, || "phone and laptop are shown two trails".to_owned())?;
    let end: String = trail.head.hash.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let end = end.get(..SHOWN).unwrap_or_default();
    story.holds(&format!("phone and laptop have verified the same trail, which ends with {end}…"));

    let rest = phone.client.rest().await.map_err(DemoError::call("the trail once more"))?;
    let page = within("the trail once more", rest.trail(0, 200)).await?;
    let mut page = page.map_err(DemoError::call("the trail once more"))?;
    for item in &mut page.items {
        // As somebody would who hides the laptop from whoever looks.
        item.entry = item.entry.replace("device_linked", "device_renewed");
    }
    let mut verifier = TrailVerifier::new(phone.client.user_id(), None);
    let fault = page.items.iter().find_map(|item| verifier.follow(item).err());
    let fault = fault.ok_or_else(|| DemoError::Broken("a changed trail was believed".to_owned()))?;
    story.holds(&format!("a copy in which one word was changed is not believed: {fault}"));
    story.flush();
    Ok(())
}

fn says(world: &World, entry: &TrailEntry) -> String {
    let from = entry.address.as_ref().map_or_else(String::new, |address| format!(" from {address}"));
    match &entry.event {
        TrailEvent::Registered { device_id } => format!("registered with {}{from}", world.name_of(*device_id)),
        TrailEvent::DeviceLinked { device_id } => format!("{} was linked{from}", world.name_of(*device_id)),
        event => format!("{event:?}{from}"),
    }
}
