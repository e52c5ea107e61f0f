//! Asking for a code: what it counts against, and how it is sent.

use std::net::IpAddr;
use std::time::Duration;

use sotto_protocol::auth::{Purpose, Verification, VerificationRequest};
use sotto_protocol::problem::Problem;
use sotto_protocol::{Timestamp, VerificationId};
use sotto_schema::rows::sign_in::Allowance;
use sotto_schema::rows::verifications::{NewVerification, VerificationStarted};

use super::code::Code;
use super::phone::Phone;
use super::sign_in::no_random;
use super::sms::{SmsError, Text};
use super::{Identity, network, refresh_token, spending};
use crate::error::ApiError;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

impl Identity {
    /// Sends a code. The answer is the same, and takes the same work, whether or not the number has an account.
    ///
    /// # Errors
    /// 422 for what is no number, 429 when a limit is reached, 503 when too many messages wait for the gateway.
    pub async fn start_verification(
        &self,
        request: VerificationRequest,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Verification, ApiError> {
        let phone = Phone::parse(&request.phone).ok_or_else(|| Problem::field("/phone", "not_e164"))?;
        if !self.spending.serves(&phone) {
            return Err(Problem::field("/phone", "country_not_served").into());
        }
        let slot = self.sms.reserve().map_err(|error| match error {
            SmsError::Down(wait) => {
                let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                Problem::unavailable("text messages cannot be sent at present").retry_after(wait)
            }
            _ => Problem::unavailable("too many text messages wait to be sent").retry_after(30_000),
        })?;
        let id = VerificationId::random();
        let code = Code::random(&self.random).map_err(|_| no_random())?;
        let new = NewVerification {
            id,
            phone: phone.as_str().to_owned(),
            purpose: request.purpose,
            code_hash: code.hash(&self.keys, id),
            no_code: refresh_token::row_secret(&self.random).map_err(|_| no_random())?.to_vec(),
            expires_at: now.plus(self.auth.code_ttl.duration()),
            asking: self.code_allowances(&phone, request.purpose, address),
            sending: self.sending_allowances(&phone, request.purpose),
        };
        let expires_at = new.expires_at;
        match self.store.start_verification(new, now).await? {
            VerificationStarted::Limited(reached) => {
                metrics::counter!("sotto_codes_refused_total", "limit" => reached.kind).increment(1);
                return Err(ApiError::limited(&reached));
            }
            VerificationStarted::Started { send: true } => {
                let text = Text::with_code(phone, code, self.auth.code_ttl.duration());
                slot.send(text).await.map_err(|error| {
                    tracing::error!(%error, "a code was not sent");
                    Problem::unavailable("the code could not be sent")
                })?;
            }
            VerificationStarted::Started { send: false } => {}
        }
        let wait = if self.limits.enabled { self.auth.resend_delay.duration() } else { Duration::ZERO };
        Ok(Verification { verification_id: id, expires_at, resend_at: now.plus(wait) })
    }

    fn code_allowances(&self, phone: &Phone, purpose: Purpose, address: IpAddr) -> Vec<Allowance> {
        let limits = &self.limits;
        if !limits.enabled {
            return Vec::new();
        }
        let number = self.keys.pseudonym(phone.as_str());
        let block = self.keys.pseudonym(spending::block(phone));
        let network = self.keys.pseudonym(&network::network(address).to_string());
        let purpose = self.keys.pseudonym(&format!("{} {}", purpose.as_str(), phone.as_str()));
        let mut allowances = vec![
            Allowance::new("code_number", number, limits.codes_per_number_per_hour, HOUR)
                .and(limits.codes_per_number_per_day, DAY),
            Allowance::new("code_block", block, limits.codes_per_block_per_hour, HOUR),
            Allowance::new("code_address", network, limits.codes_per_address_per_hour, HOUR),
        ];
        let delay = self.auth.resend_delay.duration();
        if delay > Duration::ZERO {
            allowances.push(Allowance::new("code_resend", purpose, 1, delay));
        }
        allowances
    }

    fn sending_allowances(&self, phone: &Phone, purpose: Purpose) -> Vec<Allowance> {
        if !self.limits.enabled {
            return Vec::new();
        }
        let node = (self.node.as_str(), self.limits.codes_per_node_per_hour);
        self.spending.allowances(phone, purpose, self.keys.pseudonym(spending::range(phone)), node)
    }
}
