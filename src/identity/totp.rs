//! Time-based one-time passwords (RFC 6238 over RFC 4226): HMAC-SHA-1, six digits, steps of 30 seconds.
//!
//! SHA-1 is what every authenticator app speaks; as an HMAC over a counter it is not weakened by its collisions.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use ring::error::Unspecified;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use sotto_protocol::Timestamp;
use sotto_protocol::text::percent_encode;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Length of a secret in bytes: that of the hash, as RFC 4226 recommends.
pub const SECRET_LEN: usize = 20;
/// Seconds of a step.
const STEP: i64 = 30;
/// How many codes there are.
const CODES: u32 = 1_000_000;
/// Steps before the present one whose codes are taken, for clocks that are behind and people who type slowly. None
/// forward: a code that is not due yet has been made by somebody who can choose the time.
const BACK: i64 = 1;

/// The secret that an authenticator app and the server share. `Debug` hides it; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LEN]);

impl Secret {
    /// Draws a secret.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random(random: &SystemRandom) -> Result<Self, Unspecified> {
        let mut secret = Self([0; SECRET_LEN]);
        random.fill(&mut secret.0)?;
        Ok(secret)
    }

    /// What [`Secret::expose`] gave; `None` for anything of another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, to be sealed.
    #[must_use]
    pub fn expose(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    /// The secret as people type it: base32 without padding (RFC 4648).
    #[must_use]
    pub fn base32(&self) -> String {
        BASE32_NOPAD.encode(&self.0)
    }

    /// What an authenticator app reads from a QR code.
    #[must_use]
    pub fn uri(&self, issuer: &str, account: &str) -> String {
        let (issuer, account) = (percent_encode(issuer), percent_encode(account));
        let secret = Zeroizing::new(self.base32());
        format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits=6&period={STEP}",
            *secret
        )
    }

    /// The code of a step.
    #[must_use]
    pub fn code(&self, step: i64) -> String {
        // There is no time before 1970 here.
        let counter = u64::try_from(step).unwrap_or(0);
        format!("{:06}", hotp(&self.0, counter) % CODES)
    }

    /// The step whose code a text is, if that step may be shown now. Compared in constant time, and with every step.
    #[must_use]
    pub fn step_of(&self, text: &str, now: Timestamp) -> Option<i64> {
        let present = step_at(now);
        let mut found = None;
        for step in present - BACK..=present {
            let code = Zeroizing::new(self.code(step));
            // Of two steps with the same code the later one: it uses both up.
            if bool::from(code.as_bytes().ct_eq(text.as_bytes())) {
                found = Some(step);
            }
        }
        found
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The number of a moment's step (RFC 6238, section 4.2).
#[must_use]
pub const fn step_at(now: Timestamp) -> i64 {
    now.as_seconds().div_euclid(STEP)
}

/// The truncated HMAC of RFC 4226, section 5.3, before digits are cut from it.
fn hotp(secret: &[u8], counter: u64) -> u32 {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret), &counter.to_be_bytes());
    let bytes = tag.as_ref();
    let offset = usize::from(bytes.last().copied().unwrap_or(0) & 0x0f);
    // The tag has 20 bytes and the offset is at most 15.
    let cut = bytes.get(offset..offset + 4).and_then(|cut| <[u8; 4]>::try_from(cut).ok()).unwrap_or_default();
    u32::from_be_bytes(cut) & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const RFC: &[u8; SECRET_LEN] = b"12345678901234567890";

    #[test]
    fn rfc_4226_appendix_d() {
        let truncated = [
            1_284_755_224,
            1_094_287_082,
            137_359_152,
            1_726_969_429,
            1_640_338_314,
            868_254_676,
            1_918_287_922,
            82_162_583,
            673_399_871,
            645_520_489,
        ];
        let codes =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        let secret = Secret(*RFC);
        for (counter, (number, code)) in (0_u64..).zip(truncated.into_iter().zip(codes)) {
            assert_eq!(hotp(RFC, counter), number);
            assert_eq!(secret.code(i64::try_from(counter).unwrap()), code);
        }
    }

    #[test]
    fn rfc_6238_appendix_b() {
        for (seconds, eight_digits) in [
            (59, 94_287_082),
            (1_111_111_109, 7_081_804),
            (1_111_111_111, 14_050_471),
            (1_234_567_890, 89_005_924),
            (2_000_000_000, 69_279_037),
            (20_000_000_000, 65_353_130),
        ] {
            let now = Timestamp::from_millis(seconds * 1000);
            assert_eq!(hotp(RFC, u64::try_from(step_at(now)).unwrap()) % 100_000_000, eight_digits);
            let code = format!("{:06}", eight_digits % 1_000_000);
            assert_eq!(Secret(*RFC).step_of(&code, now), Some(step_at(now)));
        }
        assert_eq!(step_at(Timestamp::from_millis(59_000)), 1);
        assert_eq!(step_at(Timestamp::from_millis(1_111_111_111_000)), 0x0235_23ED);
    }

    #[test]
    fn one_step_back_and_none_forward() {
        let secret = Secret(*RFC);
        let now = Timestamp::from_millis(1_111_111_111_000);
        let present = step_at(now);
        for (steps, taken) in [(-2, false), (-1, true), (0, true), (1, false), (2, false)] {
            let found = secret.step_of(&secret.code(present + steps), now);
            assert_eq!(found, taken.then_some(present + steps), "{steps}");
        }
        // To the second.
        let code = secret.code(present);
        let begins = Timestamp::from_millis(present * STEP * 1000);
        assert!(secret.step_of(&code, begins.minus(Duration::from_millis(1))).is_none());
        assert!(secret.step_of(&code, begins).is_some());
        assert!(secret.step_of(&code, begins.plus(Duration::from_millis(59_999))).is_some());
        assert!(secret.step_of(&code, begins.plus(Duration::from_secs(60))).is_none());
        for text in ["", "1", &code[..5], &format!("{code}0"), &format!(" {code}"), "abcdef"] {
            assert!(secret.step_of(text, begins).is_none(), "{text}");
        }
    }

    #[test]
    fn what_an_app_is_given() {
        let secret = Secret(*RFC);
        assert_eq!(secret.base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(
            secret.uri("Our Chat", "+41791234567"),
            "otpauth://totp/Our%20Chat:%2B41791234567?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Our%20Chat\
             &algorithm=SHA1&digits=6&period=30"
        );
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        let random = SystemRandom::new();
        assert!(Secret::random(&random).unwrap() != Secret::random(&random).unwrap());
        assert!(Secret::from_bytes(&[0; 19]).is_none());
        assert!(Secret::from_bytes(RFC).unwrap() == secret);
    }
}
