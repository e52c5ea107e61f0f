//! Text messages with sign-in codes: a contract, then one file per carrier.
//!
//! *When the gateway fails:* a [`breaker`] stops calls to it for a while, and requests for codes with them.
//! *When full:* a place in the carrier's queue is reserved before anything is stored; when there is none, the request
//! for a code is answered `unavailable` and nothing has happened. `log` and `outbox` have no queue: they are done
//! before the answer. What `twilio` does with the message after that, nobody waits for.
//! *On death:* what still waits in the queue is lost with the process; the user asks for another code.

pub mod breaker;
mod log;
mod outbox;
mod twilio;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;

use super::code::Code;
use super::phone::Phone;
use crate::config::Config;
use crate::config::sms::Sender;

use self::twilio::Gate;

pub use self::outbox::Outbox;
pub use self::twilio::Twilio;

/// Messages that may wait for the gateway.
pub const QUEUE: usize = 1000;
/// Messages that are on their way to the gateway at the same time.
const AT_ONCE: usize = 16;
/// The longest that a message waits so that its sending does not fall together with an answer.
const DETACHED_BY: Duration = Duration::from_millis(500);

/// Why no message can be sent.
#[derive(Debug, thiserror::Error)]
pub enum SmsError {
    /// The configuration lacks something, or something in it cannot be used.
    #[error("sms: {0}")]
    Setting(String),
    /// The outbox cannot be written.
    #[error("the outbox cannot be written: {0}")]
    Outbox(#[from] std::io::Error),
    /// Too many messages wait for the gateway.
    #[error("the queue of text messages is full")]
    Full,
    /// The gateway has failed often; it is not called for so long.
    #[error("the gateway is down")]
    Down(Duration),
    /// The gateway refused the message, or could not be reached after every try.
    #[error("the gateway: {0}")]
    Gateway(String),
}

/// A message for one number. `Debug` shows neither number nor code.
#[derive(Clone)]
pub struct Text {
    to: Phone,
    body: String,
    code: Code,
    /// From when it is of no use any more.
    until: Instant,
}

impl Text {
    /// The message with a code that is valid for `ttl`.
    #[must_use]
    pub fn with_code(to: Phone, code: Code, ttl: Duration) -> Self {
        let minutes = ttl.as_secs().div_ceil(60);
        let body = format!(
            "Your Sotto code is {}. It is valid for {minutes} minutes. Never tell it to anybody.",
            code.expose()
        );
        Self { to, body, code, until: Instant::now() + ttl }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Text(***)")
    }
}

/// Sends text messages by the configured carrier. Clones share it.
#[derive(Clone, Debug)]
pub struct Sms(Carrier);

#[derive(Clone, Debug)]
enum Carrier {
    Log,
    Outbox(Arc<Outbox>),
    Queue(Queue),
}

#[derive(Clone, Debug)]
struct Queue {
    sender: mpsc::Sender<Text>,
    breaker: Gate,
    /// Messages that wait or are on their way.
    pending: Arc<AtomicUsize>,
}

/// A place in the queue. Dropped unused, it is free again.
#[derive(Debug)]
pub struct Slot(Place);

#[derive(Debug)]
enum Place {
    Log,
    Outbox(Arc<Outbox>),
    Queue(mpsc::OwnedPermit<Text>, Arc<AtomicUsize>),
}

impl Sms {
    /// The carrier that the configuration names. For `twilio` this must be called within the runtime that stays.
    ///
    /// # Errors
    /// When a setting is missing, or the outbox cannot be opened.
    pub fn start(config: &Config) -> Result<Self, SmsError> {
        Ok(match config.sms.sender {
            Sender::Log => Self(Carrier::Log),
            Sender::Outbox => Self::outbox(Outbox::open(&config.outbox())?),
            Sender::Twilio => Self::twilio(Twilio::new(&config.sms.twilio)?, QUEUE),
        })
    }

    /// Writes codes to the server's log.
    #[must_use]
    pub fn log() -> Self {
        Self(Carrier::Log)
    }

    /// Appends to a file.
    #[must_use]
    pub fn outbox(outbox: Outbox) -> Self {
        Self(Carrier::Outbox(Arc::new(outbox)))
    }

    /// Sends by Twilio from a task that is started here; at most `queue` messages wait.
    #[must_use]
    pub fn twilio(twilio: Twilio, queue: usize) -> Self {
        let (sender, receiver) = mpsc::channel::<Text>(queue.max(1));
        let (pending, breaker) = (Arc::new(AtomicUsize::new(0)), twilio.gate());
        tokio::spawn(deliver(twilio, receiver, Arc::clone(&pending)));
        Self(Carrier::Queue(Queue { sender, breaker, pending }))
    }

    /// Reserves the place of one message.
    ///
    /// # Errors
    /// [`SmsError::Full`] when too many wait, [`SmsError::Down`] while the gateway is not called.
    pub fn reserve(&self) -> Result<Slot, SmsError> {
        Ok(Slot(match &self.0 {
            Carrier::Log => Place::Log,
            Carrier::Outbox(outbox) => Place::Outbox(Arc::clone(outbox)),
            Carrier::Queue(queue) => {
                if let Some(wait) = queue.breaker.pause() {
                    metrics::counter!("sotto_sms_total", "outcome" => "down").increment(1);
                    return Err(SmsError::Down(wait));
                }
                let permit = queue.sender.clone().try_reserve_owned().map_err(|_| {
                    metrics::counter!("sotto_sms_total", "outcome" => "full").increment(1);
                    SmsError::Full
                })?;
                Place::Queue(permit, Arc::clone(&queue.pending))
            }
        }))
    }

    /// Messages that wait or are on their way.
    #[must_use]
    pub fn pending(&self) -> usize {
        match &self.0 {
            Carrier::Queue(queue) => queue.pending.load(Ordering::Relaxed),
            Carrier::Log | Carrier::Outbox(_) => 0,
        }
    }

    /// Waits until nothing is pending, at most `within`; for a server that stops. Tells how many were left.
    pub async fn drain(&self, within: Duration) -> usize {
        let emptied = async {
            while self.pending() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Too late or not, the number tells.
        let _ = tokio::time::timeout(within, emptied).await;
        self.pending()
    }
}

impl Slot {
    /// Sends the message: at once by `log` and `outbox`, into the queue by `twilio`.
    ///
    /// # Errors
    /// When the outbox cannot be written.
    pub async fn send(self, text: Text) -> Result<(), SmsError> {
        match self.0 {
            Place::Log => {
                log::send(&text);
                Ok(())
            }
            Place::Outbox(outbox) => outbox.send(&text).await,
            Place::Queue(permit, pending) => {
                pending.fetch_add(1, Ordering::Relaxed);
                permit.send(text);
                Ok(())
            }
        }
    }
}

/// A random wait before a message leaves. Without it the work of sending falls together with the answer to whoever asked,
/// and the time of it tells whether there was a message, and so an account.
fn detached() -> Duration {
    let mut bytes = [0; 2];
    // Without randomness it leaves at once, and no code can be drawn either.
    let _ = SystemRandom::new().fill(&mut bytes);
    DETACHED_BY.mul_f64(f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX))
}

async fn deliver(twilio: Twilio, receiver: mpsc::Receiver<Text>, pending: Arc<AtomicUsize>) {
    let (twilio, pending) = (&twilio, &pending);
    let texts =
        futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|text| (text, receiver)) });
    texts
        .for_each_concurrent(AT_ONCE, |text| async move {
            tokio::time::sleep(detached()).await;
            let outcome = match twilio.send(&text).await {
                Ok(()) => "sent",
                Err(error) => {
                    tracing::warn!(%error, "a text message was not sent");
                    "failed"
                }
            };
            metrics::counter!("sotto_sms_total", "outcome" => outcome).increment(1);
            pending.fetch_sub(1, Ordering::Relaxed);
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn text() -> Text {
        let code = Code::random(&SystemRandom::new()).unwrap();
        Text::with_code(Phone::parse("+15550000001").unwrap(), code, Duration::from_secs(600))
    }

    #[test]
    fn a_message_says_the_code_and_debug_does_not() {
        let text = text();
        assert!(text.body.contains(text.code.expose()) && text.body.contains("10 minutes"));
        assert_eq!(format!("{text:?}"), "Text(***)");
    }

    #[tokio::test]
    async fn a_full_queue_says_so_before_anything_happens() {
        // A gateway that never answers holds what is on its way; the rest fills the queue.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = crate::config::sms::Twilio {
            account_sid: Some("AC1".into()),
            auth_token: Some(crate::config::Secret::new("token")),
            from: Some("+15550000000".into()),
            base_url: crate::config::Url::new(format!("http://{}", listener.local_addr().unwrap())),
            ..Default::default()
        };
        let sms = Sms::twilio(Twilio::new(&settings).unwrap(), 2);
        let mut sent = 0;
        while let Ok(slot) = sms.reserve() {
            slot.send(text()).await.unwrap();
            tokio::task::yield_now().await;
            sent += 1;
            assert!(sent < 100);
        }
        assert!(matches!(sms.reserve(), Err(SmsError::Full)));
        assert_eq!(sms.pending(), sent);
        assert_eq!(sms.drain(Duration::from_millis(30)).await, sent);
    }
}
