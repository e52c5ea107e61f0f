//! Twilio's HTTP API: one POST per message, repeated while the fault may be Twilio's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode, header, redirect};
use ring::rand::{SecureRandom, SystemRandom};

use super::breaker::{Admission, Breaker};
use super::{SmsError, Text};
use crate::config::Secret;
use crate::config::sms::Twilio as Settings;

/// How often a message is tried.
const TRIES: u32 = 5;
/// The wait before the second try; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait, whatever the gateway asks for: after that a code is of little use.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// An account at Twilio.
#[derive(Debug)]
pub struct Twilio {
    client: Client,
    url: String,
    account_sid: String,
    auth_token: Secret,
    /// Name and value of the form's field that says who sends.
    from: (&'static str, String),
    first_wait: Duration,
    gate: Gate,
}

/// The breaker before a gateway, shared by all that call it.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<Breaker>>);

impl Gate {
    fn with<T>(&self, work: impl FnOnce(&mut Breaker) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long the gateway is not called yet.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.with(|breaker| breaker.pause(Instant::now()))
    }

    /// Waits until a call may be made; `false`: that would be after `until`.
    async fn pass(&self, until: Instant) -> bool {
        loop {
            match self.with(|breaker| breaker.admit(Instant::now())) {
                Admission::Go => return true,
                Admission::Wait(wait) if Instant::now() + wait >= until => return false,
                Admission::Wait(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    fn heard(&self, well: bool) {
        let changed = self.with(|breaker| if well { breaker.succeeded() } else { breaker.failed(Instant::now()) });
        match (changed, well) {
            (false, _) => return,
            (true, true) => tracing::info!("the gateway for text messages works again"),
            (true, false) => tracing::error!("the gateway for text messages fails; no code is sent until it works"),
        }
        metrics::gauge!("sotto_sms_gateway_down").set(if well { 0.0 } else { 1.0 });
    }
}

/// How one try failed.
enum Failure {
    /// Another try will not change it.
    Final(String),
    /// Nor for any other message: it is about the account.
    Refused(String),
    /// It may go better later, perhaps not before a time that the gateway named.
    Passing(String, Option<Duration>),
}

impl Twilio {
    /// From the settings.
    ///
    /// # Errors
    /// When one is missing, or TLS cannot be set up.
    pub fn new(settings: &Settings) -> Result<Self, SmsError> {
        let missing = |name: &str| SmsError::Setting(format!("sms.twilio.{name} is not set"));
        let account_sid = settings.account_sid.clone().ok_or_else(|| missing("account_sid"))?;
        let auth_token = settings.auth_token.clone().ok_or_else(|| missing("auth_token"))?;
        let from = settings.from.clone().ok_or_else(|| missing("from"))?;
        if !account_sid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(SmsError::Setting("sms.twilio.account_sid takes letters and digits only".into()));
        }
        // Refused when the program has chosen one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(settings.timeout.duration())
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| SmsError::Setting(error.to_string()))?;
        let base = settings.base_url.expose().trim_end_matches('/');
        let sender = if from.starts_with("MG") { "MessagingServiceSid" } else { "From" };
        Ok(Self {
            client,
            url: format!("{base}/2010-04-01/Accounts/{account_sid}/Messages.json"),
            account_sid,
            auth_token,
            from: (sender, from),
            first_wait: FIRST_WAIT,
            gate: Gate::default(),
        })
    }

    /// The breaker before this gateway.
    pub(super) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Sends a message, while the breaker lets calls through; tried again after 5xx, 429 and when the connection failed, never after another 4xx.
    ///
    /// # Errors
    /// What the last try ended with. Neither number nor code stands in it.
    pub async fn send(&self, text: &Text) -> Result<(), SmsError> {
        let mut wait = self.first_wait;
        let mut tries = 1;
        loop {
            if !self.gate.pass(text.until).await {
                return Err(SmsError::Gateway("it is down, and the code would come too late".to_owned()));
            }
            let outcome = self.attempt(text).await;
            // A message that is refused for itself shows that the gateway works.
            self.gate.heard(matches!(outcome, Ok(()) | Err(Failure::Final(_))));
            let (reason, asked) = match outcome {
                Ok(()) => return Ok(()),
                Err(Failure::Final(reason) | Failure::Refused(reason)) => return Err(SmsError::Gateway(reason)),
                Err(Failure::Passing(reason, asked)) => (reason, asked),
            };
            if tries == TRIES {
                return Err(SmsError::Gateway(format!("{reason}, after {tries} tries")));
            }
            tries += 1;
            let pause = jittered(wait).max(asked.unwrap_or_default());
            tokio::time::sleep(pause.min(LONGEST_WAIT)).await;
            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
        }
    }

    async fn attempt(&self, text: &Text) -> Result<(), Failure> {
        let (sender, from) = &self.from;
        let form = [("To", text.to.as_str()), (*sender, from.as_str()), ("Body", text.body.as_str())];
        let request = self.client.post(&self.url).basic_auth(&self.account_sid, Some(self.auth_token.expose()));
        let answer = request.form(&form).send().await.map_err(|error| {
            let reason = if error.is_timeout() { "no answer in time" } else { "no connection" };
            Failure::Passing(reason.to_owned(), None)
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        // The body may repeat the number, so only the status is told.
        let reason = format!("status {}", status.as_u16());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) {
            return Err(Failure::Refused(reason));
        }
        if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
            return Err(Failure::Final(reason));
        }
        let asked = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(Failure::Passing(reason, asked.map(Duration::from_secs)))
    }
}

/// Between half and all of the wait, so that many waiting messages do not come back together.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness there is no jitter, which does no harm.
    let _ = SystemRandom::new().fill(&mut byte);
    let [byte] = byte;
    wait / 2 + (wait / 2 / 255) * u32::from(byte)
}

#[cfg(test)]
mod tests {
    use super::super::{Sms, tests::text};
    use super::*;
    use crate::config::{Url, value::Seconds};
    use wiremock::matchers::{basic_auth, body_string_contains, method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    async fn gateway(answers: &[ResponseTemplate]) -> (MockServer, Twilio) {
        let server = MockServer::start().await;
        for (index, answer) in answers.iter().enumerate() {
            let last = index + 1 == answers.len();
            let mock = Mock::given(method("POST"))
                .and(path("/2010-04-01/Accounts/AC1/Messages.json"))
                .and(basic_auth("AC1", "token"))
                .and(body_string_contains("To=%2B15550000001"))
                .and(body_string_contains("From=%2B15550000000"))
                .respond_with(answer.clone());
            let mock = if last { mock } else { mock.up_to_n_times(1) };
            mock.mount(&server).await;
        }
        let settings = Settings {
            account_sid: Some("AC1".into()),
            auth_token: Some(Secret::new("token")),
            from: Some("+15550000000".into()),
            base_url: Url::new(server.uri() + "/"),
            timeout: Seconds(1),
        };
        let twilio = Twilio::new(&settings).unwrap();
        (server, Twilio { first_wait: Duration::from_millis(10), ..twilio })
    }

    async fn calls(server: &MockServer) -> usize {
        server.received_requests().await.unwrap().len()
    }

    #[tokio::test]
    async fn success() {
        let (server, twilio) = gateway(&[ResponseTemplate::new(201)]).await;
        twilio.send(&text()).await.unwrap();
        assert_eq!(calls(&server).await, 1);
    }

    #[tokio::test]
    async fn tried_again_after_500_and_429() {
        let limited = ResponseTemplate::new(429).insert_header("retry-after", "0");
        let (server, twilio) = gateway(&[ResponseTemplate::new(500), limited, ResponseTemplate::new(201)]).await;
        twilio.send(&text()).await.unwrap();
        assert_eq!(calls(&server).await, 3);
    }

    #[tokio::test]
    async fn never_tried_again_after_400() {
        let (server, twilio) = gateway(&[ResponseTemplate::new(400).set_body_string("+15550000001")]).await;
        let error = twilio.send(&text()).await.unwrap_err().to_string();
        assert!(error.contains("400") && !error.contains("1555"), "{error}");
        assert_eq!(calls(&server).await, 1);
    }

    #[tokio::test]
    async fn given_up_after_five_tries() {
        let (server, twilio) = gateway(&[ResponseTemplate::new(503)]).await;
        let error = twilio.send(&text()).await.unwrap_err().to_string();
        assert!(error.contains("5 tries"), "{error}");
        assert_eq!(calls(&server).await, 5);
    }

    #[tokio::test]
    async fn a_gateway_that_is_silent_is_tried_again() {
        let slow = ResponseTemplate::new(201).set_delay(Duration::from_secs(3));
        let (server, twilio) = gateway(&[slow, ResponseTemplate::new(201)]).await;
        twilio.send(&text()).await.unwrap();
        assert_eq!(calls(&server).await, 2);
    }

    #[tokio::test]
    async fn the_queue_delivers_behind_the_answer() {
        let slow = ResponseTemplate::new(201).set_delay(Duration::from_millis(300));
        let (server, twilio) = gateway(&[slow]).await;
        let sms = Sms::twilio(twilio, 10);
        let start = Instant::now();
        sms.reserve().unwrap().send(text()).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(200));
        assert_eq!(sms.drain(Duration::from_secs(5)).await, 0);
        assert_eq!(calls(&server).await, 1);
    }

    #[test]
    fn settings_that_are_missing_are_named() {
        let error = Twilio::new(&Settings::default()).unwrap_err().to_string();
        assert!(error.contains("sms.twilio.account_sid"), "{error}");
    }
}
