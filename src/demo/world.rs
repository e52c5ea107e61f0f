//! Everything that the story is about: the server, the devices, the conversations and what was said in them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sotto_client::protocol::auth::{Platform, Purpose};
use sotto_client::protocol::{ConversationId, DeviceId, MessageId, Seq};

use super::device::{Device, NewDevice};
use super::error::expect;
use super::server::Server;
use super::story::Story;
use super::{DemoError, link, within};

/// The name of the devices' folder in the temporary one.
pub(super) const DEVICES: &str = "devices";

/// A message that the server has answered with `ok`.
#[derive(Clone)]
pub(super) struct Spoken {
    /// Where.
    pub(super) conversation_id: ConversationId,
    /// Under which name.
    pub(super) message_id: MessageId,
    /// Which number it got.
    pub(super) seq: Seq,
    /// By which device.
    pub(super) by: DeviceId,
    /// What was said.
    pub(super) text: String,
    /// Whether the server had it already: the answer to an earlier attempt was lost.
    pub(super) repeated: bool,
    /// When the application asked to send it.
    pub(super) began: Instant,
    /// When the library said that it is stored.
    pub(super) answered: Instant,
}

/// A conversation and the devices in it.
pub(super) struct Room {
    /// Which one.
    pub(super) id: ConversationId,
    /// As the story calls it.
    pub(super) name: &'static str,
    /// Every device of every member.
    pub(super) devices: Vec<Arc<Device>>,
}

/// Server, devices, conversations.
pub(super) struct World {
    /// The server.
    pub(super) server: Server,
    /// Alice's first device.
    pub(super) phone: Arc<Device>,
    /// Alice's second device.
    pub(super) laptop: Arc<Device>,
    /// Bob's device.
    pub(super) bob: Arc<Device>,
    /// Carol's device.
    pub(super) carol: Arc<Device>,
    /// The conversations, in the order in which they began.
    pub(super) rooms: Vec<Room>,
    /// Everything that was said and answered.
    pub(super) spoken: Vec<Spoken>,
}

impl World {
    /// Signs everybody in and connects all devices.
    pub(super) async fn begin(story: &mut Story, server: Server, folder: &Path) -> Result<Self, DemoError> {
        story.scene("Three people sign in, one of them on two devices (the second by a QR code)");
        let folder = folder.join(DEVICES);
        std::fs::create_dir(&folder).map_err(|error| DemoError::files("cannot make the devices' folder", error))?;
        let new = |name, owner, phone, platform| NewDevice { name, owner, phone, platform };
        let phone = new("Alice's phone", "Alice", "+15550000001", Platform::Ios);
        let phone = phone.sign_in(story, &server, &folder, Purpose::Registration).await?;
        let laptop = new("Alice's laptop", "Alice", "+15550000001", Platform::Desktop);
        let laptop = link::link(laptop, &phone, story, &server, &folder).await?;
        let bob = new("Bob's phone", "Bob", "+15550000002", Platform::Android);
        let bob = bob.sign_in(story, &server, &folder, Purpose::Registration).await?;
        let carol = new("Carol's phone", "Carol", "+15550000003", Platform::Ios);
        let carol = carol.sign_in(story, &server, &folder, Purpose::Registration).await?;
        let same = phone.client.user_id() == laptop.client.user_id();
        expect(same, || "Alice's two devices belong to two accounts".to_owned())?;
        let world = Self { server, phone, laptop, bob, carol, rooms: Vec::new(), spoken: Vec::new() };
        let mut keys = 0;
        for device in world.devices() {
            device.connect().await?;
            let rest = device.client.rest().await.map_err(DemoError::call("a token"))?;
            let count = rest.key_count().await.map_err(DemoError::call("the stock of keys"))?;
            keys += count.one_time_prekeys;
        }
        story.server(format!(
            "4 sockets open; the key directory holds 4 public identities and {keys} public one-time keys; the private \
             halves never left the devices"
        ));
        story.flush();
        Ok(world)
    }

    /// Every device.
    pub(super) fn devices(&self) -> [Arc<Device>; 4] {
        [&self.phone, &self.laptop, &self.bob, &self.carol].map(Arc::clone)
    }

    /// As the story calls a device.
    pub(super) fn name_of(&self, id: DeviceId) -> &'static str {
        self.devices().iter().find(|device| device.client.device_id() == id).map_or("nobody", |device| device.name)
    }

    /// Sends a text, and keeps what the server has answered.
    pub(super) async fn say(
        &mut self,
        story: &mut Story,
        from: &Device,
        to: &str,
        conversation: ConversationId,
        text: &str,
    ) -> Result<Spoken, DemoError> {
        let spoken = send(from, conversation, text).await?;
        let took = spoken.answered - spoken.began;
        story.tell_at(
            spoken.began,
            from.name,
            format!("→ {to}: “{text}” (stored as no. {}, {:.0} ms)", spoken.seq, took.as_secs_f64() * 1000.0),
        );
        self.spoken.push(spoken.clone());
        Ok(spoken)
    }

    /// Waits until devices have a message and can read it.
    pub(super) async fn hear(
        &self,
        story: &mut Story,
        spoken: &Spoken,
        devices: &[&Arc<Device>],
    ) -> Result<(), DemoError> {
        for device in devices {
            let what = format!("“{}” arrives", spoken.text);
            let (at, message) = device
                .sees(&what, |seen| {
                    let mut messages = seen.messages.iter();
                    messages.find(|(_, message)| message.message_id == spoken.message_id).cloned()
                })
                .await?;
            let text = message.text().unwrap_or("something else");
            expect(text == spoken.text, || format!("{} reads “{text}” instead of “{}”", device.name, spoken.text))?;
            let sender = self.devices().into_iter().find(|device| device.client.device_id() == spoken.by);
            let from = sender.map_or("nobody", |by| if by.owner == device.owner { by.name } else { by.owner });
            let took = at.saturating_duration_since(spoken.began).as_secs_f64() * 1000.0;
            story.tell_at(at, device.name, format!("← {from}: “{text}” ({took:.0} ms)"));
        }
        Ok(())
    }

    /// Disconnects everybody and stops the server in order.
    pub(super) async fn end(mut self, story: &mut Story) -> Result<(), DemoError> {
        for device in self.devices() {
            within(format!("{} disconnects", device.name), device.client.disconnect()).await?;
        }
        let began = Instant::now();
        self.server.stop().await?;
        tracing::debug!(took = ?began.elapsed(), "the server has stopped");
        story.flush();
        Ok(())
    }
}

/// Sends a text.
pub(super) async fn send(from: &Device, conversation: ConversationId, text: &str) -> Result<Spoken, DemoError> {
    let began = Instant::now();
    let sent = within(format!("{} sends “{text}”", from.name), from.client.send_text(conversation, text)).await?;
    let sent = sent.map_err(DemoError::call(format!("{} sends “{text}”", from.name)))?;
    Ok(Spoken {
        conversation_id: conversation,
        message_id: sent.message_id,
        seq: sent.seq,
        by: from.client.device_id(),
        text: text.to_owned(),
        repeated: sent.duplicate,
        began,
        answered: Instant::now(),
    })
}
