//! Challenges for strangers who ask for codes while a budget fills up.
//!
//! A proof of work is stateless: the challenge carries version, difficulty, expiry and a nonce, signed together with the telephone
//! number. The database stores that a challenge was used, until it expires.

use std::time::Duration;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use sotto_protocol::challenge::{self, Challenge, ChallengeResponse};
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::{Binary, Timestamp};
use sotto_schema::asking::GUARDED_FROM;
use sotto_schema::rows::sign_in::Allowance;

use super::captcha::Captcha;
use super::phone::Phone;
use super::secret_key::SecretKeys;
use crate::config::challenge::{Challenge as Settings, Kind};

const VERSION: u8 = 1;
const NONCE: usize = 16;
/// Version, difficulty, end in microseconds, random number.
const SIGNED: usize = 1 + 1 + 8 + NONCE;
/// Thousandths of a budget above half that add one bit of difficulty …
const STEP: u32 = 125;
/// … and the most bits that are added.
const MOST_STEPS: u32 = 4;
/// Time for which a used captcha answer is stored. The services themselves take none twice.
const CAPTCHA_KEPT: Duration = Duration::from_secs(3600);

/// The challenges that are demanded from strangers.
pub(super) struct Challenges {
    kind: Kind,
    difficulty: u32,
    valid_for: Duration,
    site_key: String,
    captcha: Option<Captcha>,
}

impl Challenges {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            kind: settings.kind,
            difficulty: settings.difficulty,
            valid_for: settings.valid_for.duration(),
            site_key: settings.captcha_site_key.clone().unwrap_or_default(),
            captcha: Captcha::new(settings),
        }
    }

    /// Whether any are demanded.
    pub(super) fn demands(&self) -> bool {
        self.kind != Kind::None
    }

    /// Leading zero bits when so much of a budget is taken, in thousandths.
    fn difficulty(&self, share: u32) -> u32 {
        self.difficulty + (share.saturating_sub(GUARDED_FROM) / STEP).min(MOST_STEPS)
    }

    /// Makes the problem with a challenge for a code to this number.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn demand(
        &self,
        (keys, random): (&SecretKeys, &SystemRandom),
        phone: &Phone,
        share: u32,
        now: Timestamp,
    ) -> Result<Problem, ring::error::Unspecified> {
        let challenge = if self.kind == Kind::Captcha {
            Challenge::Captcha { site_key: self.site_key.clone() }
        } else {
            let mut nonce = [0; NONCE];
            random.fill(&mut nonce)?;
            let (difficulty, expires_at) = (self.difficulty(share), now.plus(self.valid_for));
            Challenge::ProofOfWork {
                challenge: make(keys, phone, difficulty, expires_at, nonce),
                difficulty,
                expires_at,
            }
        };
        let problem = Problem::new(ErrorCode::ChallengeRequired, "answer the challenge, and ask again with the answer");
        Ok(problem.with("challenge", serde_json::to_value(challenge).unwrap_or_default()))
    }

    /// Checks a proof of work for this number. Gives its allowance of one use; `None`: it is wrong, expired, or for another number.
    pub(super) fn worked(
        &self,
        keys: &SecretKeys,
        phone: &Phone,
        response: &ChallengeResponse,
        now: Timestamp,
    ) -> Option<Allowance> {
        if self.kind != Kind::ProofOfWork {
            return None;
        }
        let text = response.challenge.as_deref()?;
        let opened = open(keys, phone, text)?;
        let is_done = challenge::zero_bits(text, &response.solution) >= opened.difficulty;
        let holds = is_done && opened.expires_at > now;
        holds.then(|| Allowance::new("challenge", opened.nonce, 1, self.valid_for))
    }

    /// The captcha service, where it is what is asked.
    pub(super) fn captcha(&self) -> Option<&Captcha> {
        self.captcha.as_ref().filter(|_| self.kind == Kind::Captcha)
    }
}

/// The allowance of one use of an answer that the captcha service has confirmed.
pub(super) fn confirmed(response: &ChallengeResponse) -> Allowance {
    let subject = digest::digest(&digest::SHA256, response.solution.as_bytes());
    Allowance::new("challenge", subject.as_ref(), 1, CAPTCHA_KEPT)
}

struct Opened {
    difficulty: u32,
    expires_at: Timestamp,
    nonce: Vec<u8>,
}

fn make(keys: &SecretKeys, phone: &Phone, difficulty: u32, expires_at: Timestamp, nonce: [u8; NONCE]) -> String {
    let mut bytes = vec![VERSION, u8::try_from(difficulty).unwrap_or(u8::MAX)];
    bytes.extend(expires_at.as_micros().to_be_bytes());
    bytes.extend(nonce);
    let tag = keys.sign_challenge(&[&bytes, phone.as_str().as_bytes()].concat());
    bytes.extend(tag.as_ref());
    Binary::encode(&bytes)
}

/// Reads a challenge; `None`: it was not made here, or for another number.
fn open(keys: &SecretKeys, phone: &Phone, text: &str) -> Option<Opened> {
    let bytes = Binary::decode(text)?;
    let (signed, tag) = bytes.split_at_checked(SIGNED)?;
    if !keys.verify_challenge(&[signed, phone.as_str().as_bytes()].concat(), tag) {
        return None;
    }
    let ([VERSION, difficulty], rest) = signed.split_first_chunk()? else { return None };
    let (micros, nonce) = rest.split_first_chunk()?;
    let expires_at = Timestamp::from_micros(i64::from_be_bytes(*micros));
    Some(Opened { difficulty: u32::from(*difficulty), expires_at, nonce: nonce.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenges() -> Challenges {
        Challenges::new(&Settings { difficulty: 4, ..Settings::default() })
    }

    fn answer(challenge: &Challenge) -> ChallengeResponse {
        let Challenge::ProofOfWork { challenge, difficulty, .. } = challenge else { panic!("a proof of work") };
        let solution = challenge::solve(challenge, *difficulty).unwrap();
        ChallengeResponse { challenge: Some(challenge.clone()), solution }
    }

    #[test]
    fn a_proof_serves_its_number_until_it_ends() {
        let (keys, others) = (SecretKeys::random().unwrap(), SecretKeys::random().unwrap());
        let (challenges, random) = (challenges(), SystemRandom::new());
        let [phone, other] = ["+41791234567", "+41791234568"].map(|text| Phone::parse(text).unwrap());
        let now = Timestamp::now();
        let problem = challenges.demand((&keys, &random), &phone, 501, now).unwrap();
        assert_eq!((problem.status, problem.retryable), (401, false));
        let demanded: Challenge = serde_json::from_value(problem.more["challenge"].clone()).unwrap();
        let response = answer(&demanded);
        let worked = |keys, phone, response: &ChallengeResponse, now| challenges.worked(keys, phone, response, now);
        assert!(worked(&keys, &phone, &response, now).is_some());
        assert_eq!(worked(&keys, &phone, &response, now), worked(&keys, &phone, &response, now), "one subject");
        assert!(worked(&keys, &other, &response, now).is_none());
        assert!(worked(&others, &phone, &response, now).is_none());
        assert!(worked(&keys, &phone, &response, now.plus(Duration::from_secs(299))).is_some());
        assert!(worked(&keys, &phone, &response, now.plus(Duration::from_secs(301))).is_none());
        let text = response.challenge.clone().unwrap();
        let wrong = (0..).map(|n| format!("x{n}")).find(|solution| challenge::zero_bits(&text, solution) < 4).unwrap();
        assert!(worked(&keys, &phone, &ChallengeResponse { solution: wrong, ..response.clone() }, now).is_none());
        for broken in [None, Some(String::new()), Some("AQ".to_owned()), Some(format!("{text}AAAA"))] {
            assert!(worked(&keys, &phone, &ChallengeResponse { challenge: broken, ..response.clone() }, now).is_none());
        }
    }

    #[test]
    fn the_fuller_a_budget_the_more_work() {
        let bits: Vec<u32> = [501, 624, 625, 750, 875, 1000].map(|share| challenges().difficulty(share)).into();
        assert_eq!(bits, [4, 4, 5, 6, 7, 8]);
    }
}
