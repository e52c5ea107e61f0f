//! A device of the demo: the client library with somebody who writes down what it tells.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto_client::event::{Message, Reason};
use sotto_client::protocol::auth::{DeviceInfo, Platform, Purpose};
use sotto_client::protocol::event::{Delivered, Read};
use sotto_client::{Client, Event, Events, Options, SignIn, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::server::Server;
use super::story::Story;
use super::{DemoError, within};

/// A message must be stored by then; a server that was killed is back long before.
const SEND_TIMEOUT: Duration = Duration::from_secs(8);

/// What a device was told.
#[derive(Default)]
pub(super) struct Seen {
    /// Messages of others, as they became readable.
    pub(super) messages: Vec<(Instant, Message)>,
    /// Marks of devices that have stored something.
    pub(super) delivered: Vec<(Instant, Delivered)>,
    /// Marks of people who have read something.
    pub(super) reads: Vec<(Instant, Read)>,
    /// When it was connected, and until when.
    pub(super) links: Vec<(Instant, Option<Instant>)>,
    /// What must never happen.
    pub(super) faults: Vec<String>,
}

impl Seen {
    fn note(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Message(message) => self.messages.push((now, message)),
            Event::Delivered(delivered) => self.delivered.push((now, delivered)),
            Event::Read(read) => self.reads.push((now, read)),
            Event::Connected { .. } => self.links.push((now, None)),
            Event::Disconnected { .. } => {
                if let Some((_, end @ None)) = self.links.last_mut() {
                    *end = Some(now);
                }
            }
            // The key comes through another conversation, sometimes a little later; then the message follows.
            Event::Undecryptable(message) if message.reason == Reason::KeyMissing => {}
            fault @ (Event::Undecryptable(_) | Event::Gap { .. } | Event::Lagged { .. } | Event::SignedOut) => {
                self.faults.push(format!("{fault:?}"));
            }
            _ => {}
        }
    }

    /// Whether the device was connected from one moment to another.
    pub(super) fn was_up(&self, from: Instant, until: Instant) -> bool {
        self.links.iter().any(|(up, down)| *up <= from && down.is_none_or(|down| until <= down))
    }

    /// Whether the device is connected.
    pub(super) fn is_up(&self) -> bool {
        self.links.last().is_some_and(|(_, down)| down.is_none())
    }
}

/// A signed-in device.
pub(super) struct Device {
    /// As the story calls it.
    pub(super) name: &'static str,
    /// Whose it is.
    pub(super) owner: &'static str,
    /// The library.
    pub(super) client: Client,
    seen: watch::Receiver<Seen>,
    listener: JoinHandle<()>,
}

/// A device that is to be signed in.
pub(super) struct NewDevice {
    /// As the story calls it.
    pub(super) name: &'static str,
    /// Whose it is.
    pub(super) owner: &'static str,
    /// The number to which the code goes.
    pub(super) phone: &'static str,
    /// What it runs on.
    pub(super) platform: Platform,
}

impl NewDevice {
    /// Signs the device in: a code for the number, the code from the text message, keys for the directory.
    pub(super) async fn sign_in(
        self,
        story: &mut Story,
        server: &Server,
        folder: &Path,
        purpose: Purpose,
    ) -> Result<Arc<Device>, DemoError> {
        let Self { name, phone, .. } = self;
        let began = Instant::now();
        let failed = || DemoError::call(format!("{name} signs in"));
        let store = self.store(folder).await?;
        let verification = within(format!("a code for {name}"), Client::verify(&server.url, phone, purpose)).await?;
        let verification = verification.map_err(failed())?;
        let code = server.last_code(phone)?;
        let sign_in = SignIn::new(verification.verification_id, code.clone(), self.info());
        let options = self.options(server);
        let what = format!("{name} is signed in");
        let client = match purpose {
            Purpose::Registration => within(what, Client::register(options, store, sign_in)).await?,
            _ => within(what, Client::login(options, store, sign_in)).await?,
        };
        let client = client.map_err(failed())?;
        let device = self.device(client);
        let how = if purpose == Purpose::Registration { "a new account" } else { "another device of the same account" };
        story.tell(name, format!("code {code} by text message to {phone}: {how}, {} ms", began.elapsed().as_millis()));
        Ok(device)
    }

    /// A store of its own.
    pub(super) async fn store(&self, folder: &Path) -> Result<Store, DemoError> {
        let path = folder.join(format!("{}.db", self.name.to_lowercase().replace("'s ", "-")));
        Store::open_with_key_beside(path).await.map_err(DemoError::call(format!("{} opens its store", self.name)))
    }

    /// What it says of itself.
    pub(super) fn info(&self) -> DeviceInfo {
        DeviceInfo {
            name: self.name.to_owned(),
            platform: self.platform,
            fingerprint: None,
            model: None,
            os_version: None,
            app_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            push: None,
        }
    }

    /// How its application is set up.
    pub(super) fn options(&self, server: &Server) -> Options {
        Options { send_timeout: SEND_TIMEOUT, ..Options::new(&server.url) }
    }

    /// The signed-in device, with somebody who writes down what it is told.
    pub(super) fn device(&self, client: Client) -> Arc<Device> {
        let (told, seen) = watch::channel(Seen::default());
        let listener = tokio::spawn(write_down(client.events(), told));
        Arc::new(Device { name: self.name, owner: self.owner, client, seen, listener })
    }
}

async fn write_down(mut events: Events, told: watch::Sender<Seen>) {
    loop {
        match events.next().await {
            Ok(event) => told.send_modify(|seen| seen.note(event)),
            Err(error) => {
                told.send_modify(|seen| seen.faults.push(error.to_string()));
                return;
            }
        }
    }
}

impl Device {
    /// What the device was told until now.
    pub(super) fn seen(&self) -> watch::Ref<'_, Seen> {
        self.seen.borrow()
    }

    /// Waits until the device has been told something.
    pub(super) async fn sees<T>(&self, what: &str, mut find: impl FnMut(&Seen) -> Option<T>) -> Result<T, DemoError> {
        let mut seen = self.seen.clone();
        let mut found = None;
        let look = seen.wait_for(|seen| {
            found = find(seen);
            found.is_some()
        });
        drop(within(format!("{}: {what}", self.name), look).await?);
        found.ok_or_else(|| DemoError::Broken(format!("{} hears nothing any more", self.name)))
    }

    /// Connects and waits for the server's welcome.
    pub(super) async fn connect(&self) -> Result<(), DemoError> {
        self.client.connect();
        self.sees("connected", |seen| seen.is_up().then_some(())).await
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
