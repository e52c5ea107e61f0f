//! Asking for a code: what it counts against, and how it is sent.

use std::net::IpAddr;
use std::time::Duration;

use sotto_protocol::auth::{Purpose, Verification, VerificationRequest};
use sotto_protocol::challenge::ChallengeResponse;
use sotto_protocol::problem::Problem;
use sotto_protocol::{Timestamp, VerificationId};
use sotto_schema::asking::Budgets;
use sotto_schema::rows::sign_in::Allowance;
use sotto_schema::rows::verifications::{NewVerification, VerificationStarted};

use super::code::Code;
use super::phone::Phone;
use super::session::Caller;
use super::sign_in::no_random;
use super::sms::{SmsError, Text};
use super::spending::Spender;
use super::{Identity, challenge, network, refresh_token, spending};
use crate::error::ApiError;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

impl Identity {
    /// Sends a code. The answer is the same, takes the same work and counts alike, whether or not the number has an account.
    ///
    /// # Errors
    /// 422 for what is no number, 429 when a limit is reached, 401 `challenge_required` when a budget is more than half used, 503 when
    /// too many messages wait for the gateway.
    pub async fn start_verification(
        &self,
        request: VerificationRequest,
        caller: Option<Caller>,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Verification, ApiError> {
        let phone = Phone::parse(&request.phone).ok_or_else(|| Problem::field("/phone", "not_e164"))?;
        let response = request.challenge_response.as_ref();
        response.map_or(Ok(()), |response| response.check("/challenge_response"))?;
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
        let networks = self.networks(address);
        let new = NewVerification {
            id,
            phone: phone.as_str().to_owned(),
            purpose: request.purpose,
            code_hash: code.hash(&self.keys, id),
            no_code: refresh_token::row_secret(&self.random).map_err(|_| no_random())?.to_vec(),
            expires_at: now.plus(self.auth.code_ttl.duration()),
            caller: caller.map(|caller| caller.user_id),
            budgets: self.budgets(&phone, request.purpose, caller, address, &networks),
            networks,
            demands: self.challenges.demands(),
            answer: response.and_then(|response| self.challenges.worked(&self.keys, &phone, response, now)),
        };
        let expires_at = new.expires_at;
        match self.start(new, response, address, now).await? {
            VerificationStarted::Limited(reached) => {
                metrics::counter!("sotto_codes_refused_total", "limit" => reached.kind).increment(1);
                return Err(ApiError::limited(&reached));
            }
            VerificationStarted::Challenged { share } => {
                metrics::counter!("sotto_challenges_demanded_total").increment(1);
                let problem = self.challenges.demand((&self.keys, &self.random), &phone, share, now);
                return Err(problem.map_err(|_| no_random())?.into());
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

    /// Stores the request. The captcha service is called only where a challenge is due: requests that need none must not cause calls.
    async fn start(
        &self,
        new: NewVerification,
        response: Option<&ChallengeResponse>,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<VerificationStarted, ApiError> {
        let (Some(captcha), Some(response)) = (self.challenges.captcha(), response) else {
            return Ok(self.store.start_verification(new, now).await?);
        };
        let started = self.store.start_verification(new.clone(), now).await?;
        if !matches!(started, VerificationStarted::Challenged { .. })
            || !captcha.confirms(&response.solution, address).await?
        {
            return Ok(started);
        }
        let new = NewVerification { answer: Some(challenge::confirmed(response)), ..new };
        Ok(self.store.start_verification(new, now).await?)
    }

    /// Keyed hashes of an address's networks, for `known_networks`. They differ from those that limits count by, so that tables cannot
    /// be joined by them.
    pub(super) fn networks(&self, address: IpAddr) -> Vec<Vec<u8>> {
        network::remembered(address).iter().map(|network| self.keys.pseudonym(&format!("known {network}"))).collect()
    }

    /// The budgets of a request, for each payer that the database may find.
    fn budgets(
        &self,
        phone: &Phone,
        purpose: Purpose,
        caller: Option<Caller>,
        address: IpAddr,
        networks: &[Vec<u8>],
    ) -> Budgets {
        if !self.limits.enabled {
            return Budgets::default();
        }
        let owner = self.sending(phone, purpose, Spender::Owner);
        let number = self.keys.pseudonym(phone.as_str());
        let limits = &self.limits;
        let (mut account, mut change) = (Vec::new(), Vec::new());
        if let Some(caller) = caller {
            let user = caller.user_id.as_bytes();
            account.push(
                Allowance::new("code_account", user.as_slice(), limits.codes_per_account_per_hour, HOUR)
                    .and(limits.codes_per_account_per_day, DAY),
            );
            account.extend(self.resend("code_resend_account", phone, purpose, user));
            change.clone_from(&account);
            // Bounds the messages that many accounts together can have sent to one number.
            change.push(Allowance::new("code_change", number.clone(), limits.codes_per_number_per_day, DAY));
            change.extend(self.sending(phone, purpose, Spender::Change));
            account.extend_from_slice(&owner);
        }
        let from_network = |known: &Vec<u8>| {
            let subject = [number.as_slice(), known].concat();
            let mut all = vec![
                self.per_number("code_number_known", subject),
                Allowance::new("code_address_known", known.clone(), limits.codes_per_address_per_hour, HOUR),
            ];
            all.extend(self.resend("code_resend_known", phone, purpose, known));
            all.extend_from_slice(&owner);
            all
        };
        Budgets {
            account,
            change,
            networks: networks.iter().map(from_network).collect(),
            stranger: self.stranger(phone, purpose, address),
        }
    }

    fn stranger(&self, phone: &Phone, purpose: Purpose, address: IpAddr) -> Vec<Allowance> {
        let limits = &self.limits;
        let hourly =
            |kind, subject: &str, most| Allowance::new(kind, self.keys.pseudonym(subject), most, HOUR).guarded();
        let mut all = vec![
            self.per_number("code_number", self.keys.pseudonym(phone.as_str())),
            hourly("code_block", spending::block(phone), limits.codes_per_block_per_hour),
            hourly("code_host", &network::place(address).to_string(), limits.codes_per_host_per_hour),
            hourly("code_address", &network::network(address).to_string(), limits.codes_per_address_per_hour),
            hourly("code_region", &network::region(address).to_string(), limits.codes_per_region_per_hour),
        ];
        all.extend(self.resend("code_resend", phone, purpose, &[]));
        all.extend(self.sending(phone, purpose, Spender::Stranger));
        all
    }

    fn per_number(&self, kind: &'static str, subject: Vec<u8>) -> Allowance {
        Allowance::new(kind, subject, self.limits.codes_per_number_per_hour, HOUR)
            .and(self.limits.codes_per_number_per_day, DAY)
    }

    /// The wait between two codes for one number and purpose, counted per payer.
    fn resend(&self, kind: &'static str, phone: &Phone, purpose: Purpose, payer: &[u8]) -> Option<Allowance> {
        let delay = self.auth.resend_delay.duration();
        let subject = self.keys.pseudonym(&format!("{} {}", purpose.as_str(), phone.as_str()));
        (delay > Duration::ZERO).then(|| Allowance::new(kind, [subject.as_slice(), payer].concat(), 1, delay))
    }

    fn sending(&self, phone: &Phone, purpose: Purpose, spender: Spender) -> Vec<Allowance> {
        let node = (self.node.as_str(), self.limits.codes_per_node_per_hour);
        self.spending.allowances(phone, purpose, spender, self.keys.pseudonym(spending::range(phone)), node)
    }
}
