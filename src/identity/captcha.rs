//! The captcha service that confirms answers, as reCAPTCHA, hCaptcha and Turnstile do it: one POST per answer.
//!
//! A circuit breaker stops calls while the service fails; requests that need a confirmed answer get 503 meanwhile (fails closed).

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use reqwest::{Client, redirect};
use serde::Deserialize;
use sotto_protocol::problem::Problem;

use super::sms::breaker::{Admission, Breaker};
use crate::config::Secret;
use crate::config::challenge::Challenge as Settings;

/// Largest answer of the service, in bytes.
const MOST_BYTES: usize = 64 * 1024;

/// An account at a captcha service.
pub(super) struct Captcha {
    client: Client,
    url: String,
    secret: Secret,
    breaker: Mutex<Breaker>,
}

#[derive(Deserialize)]
struct Answer {
    success: bool,
}

impl Captcha {
    /// From the settings; `None` where they name no service.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let (url, secret) = (settings.captcha_url.as_ref()?, settings.captcha_secret.clone()?);
        // Refused when the program has chosen one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(settings.captcha_timeout.duration())
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .inspect_err(|error| tracing::error!(%error, "the captcha service cannot be called"))
            .ok()?;
        Some(Self { client, url: url.expose().to_owned(), secret, breaker: Mutex::default() })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Breaker) -> T) -> T {
        work(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the service whether an answer from this address is right.
    ///
    /// # Errors
    /// 503 while the service does not answer.
    pub(super) async fn confirms(&self, response: &str, address: IpAddr) -> Result<bool, Problem> {
        let away = |wait| Problem::unavailable("the captcha service does not answer").retry_after(wait);
        if let Admission::Wait(wait) = self.with(|breaker| breaker.admit(Instant::now())) {
            return Err(away(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
        }
        let answer = self.ask(response, address).await;
        let changed = self.with(|breaker| match answer {
            Some(_) => breaker.succeeded(),
            None => breaker.failed(Instant::now()),
        });
        match (changed, answer) {
            (true, Some(_)) => tracing::info!("the captcha service works again"),
            (true, None) => tracing::error!("the captcha service fails; codes that need an answer are refused"),
            (false, _) => {}
        }
        answer.ok_or_else(|| away(1_000))
    }

    /// `None`: there was no answer, or none that can be read.
    async fn ask(&self, response: &str, address: IpAddr) -> Option<bool> {
        let address = address.to_canonical().to_string();
        let form = [("secret", self.secret.expose()), ("response", response), ("remoteip", &address)];
        let mut answer = self.client.post(&self.url).form(&form).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.ok()? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_BYTES {
                return None;
            }
        }
        serde_json::from_slice(&body).ok().map(|Answer { success }| success)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sms::breaker::FAILURES;
    use super::*;
    use crate::config::{Url, value::Seconds};
    use serde_json::json;
    use std::net::Ipv4Addr;
    use std::time::Duration;
    use wiremock::matchers::{body_string, method};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    async fn service(answer: ResponseTemplate) -> (MockServer, Captcha) {
        let server = MockServer::start().await;
        let sent = "secret=hidden&response=an+answer&remoteip=192.0.2.7";
        Mock::given(method("POST")).and(body_string(sent)).respond_with(answer).mount(&server).await;
        let settings = Settings {
            captcha_url: Some(Url::new(server.uri())),
            captcha_secret: Some(Secret::new("hidden")),
            captcha_timeout: Seconds(1),
            ..Settings::default()
        };
        (server, Captcha::new(&settings).unwrap())
    }

    #[tokio::test]
    async fn the_service_says_whether_an_answer_is_right() {
        for success in [true, false] {
            let answer = ResponseTemplate::new(200).set_body_json(json!({"success": success, "hostname": "x"}));
            let (_server, captcha) = service(answer).await;
            assert_eq!(captcha.confirms("an answer", ADDRESS).await.unwrap(), success);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_confirms_nothing_and_is_not_asked_for_ever() {
        for answer in [
            ResponseTemplate::new(500),
            ResponseTemplate::new(200).set_body_string("yes"),
            ResponseTemplate::new(302).insert_header("location", "http://127.0.0.1/"),
            ResponseTemplate::new(200).set_body_string(format!("{{\"success\":true{}}}", " ".repeat(MOST_BYTES))),
        ] {
            let (server, captcha) = service(answer).await;
            for _ in 0..FAILURES + 3 {
                assert_eq!(captcha.confirms("an answer", ADDRESS).await.unwrap_err().status, 503);
            }
            let calls = server.received_requests().await.unwrap().len();
            assert_eq!(u32::try_from(calls).unwrap(), FAILURES);
        }
    }

    #[tokio::test]
    async fn a_silent_service_confirms_nothing() {
        let slow =
            ResponseTemplate::new(200).set_body_json(json!({"success": true})).set_delay(Duration::from_secs(30));
        let (_server, captcha) = service(slow).await;
        assert_eq!(captcha.confirms("an answer", ADDRESS).await.unwrap_err().status, 503);
    }
}
