//! Bodies of the registration lock: the PIN that protects a number.

use crate::problem::FieldError;
use crate::reauthentication::Reauthentication;
use crate::{Timestamp, VerificationId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Fewest digits of a PIN.
pub const MIN_PIN: usize = 4;
/// Most digits of a PIN.
pub const MAX_PIN: usize = 20;

/// `GET /v1/auth/registration_lock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistrationLockState {
    /// Whether the number is protected by a PIN.
    pub enabled: bool,
    /// Since when by this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled_at: Option<Timestamp>,
}

/// `PUT /v1/auth/registration_lock`: a PIN, with the proofs of [`Reauthentication`].
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct SetRegistrationLock {
    /// The new PIN: four to twenty digits, not all the same and not one after the other.
    pub pin: String,
    /// The PIN that this one replaces, where the account has one and no second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_pin: Option<String>,
    /// From a verification of the account's own number with the purpose `registration_lock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_id: Option<VerificationId>,
    /// Six digits from the text message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The six digits that the app shows now, where the account has a second factor. They are what counts when both are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// Or a backup code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_code: Option<String>,
}

impl SetRegistrationLock {
    /// A PIN with what is shown again for it.
    #[must_use]
    pub fn new(pin: impl Into<String>, proof: Reauthentication) -> Self {
        let Reauthentication { verification_id, code, totp, backup_code, pin: current_pin } = proof;
        Self { pin: pin.into(), current_pin, verification_id, code, totp, backup_code }
    }

    /// What is shown again, apart from the new PIN.
    #[must_use]
    pub fn parts(self) -> (String, Reauthentication) {
        let Self { pin, current_pin, verification_id, code, totp, backup_code } = self;
        (pin, Reauthentication { verification_id, code, totp, backup_code, pin: current_pin })
    }
}

/// Whether a text can be a PIN, and one that is not the first to be guessed.
///
/// # Errors
/// `not_a_pin`: not four to twenty digits. `too_simple`: all digits the same, or each the one after (or before) the last.
pub fn check_pin(pointer: &str, pin: &str) -> Result<(), FieldError> {
    let digits = pin.as_bytes();
    if !(MIN_PIN..=MAX_PIN).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(FieldError::at(pointer, "not_a_pin"));
    }
    let steps = |step: u8| {
        digits.iter().zip(digits.iter().skip(1)).all(|(digit, next)| (digit - b'0' + step) % 10 == next - b'0')
    };
    if steps(0) || steps(1) || steps(9) { Err(FieldError::at(pointer, "too_simple")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_digits_and_not_the_first_to_be_guessed() {
        let code = |pin| check_pin("/pin", pin).map_err(|error| error.code);
        for pin in ["2580", "1235", "13579", "00000000000000000001", "9081726354"] {
            assert_eq!(code(pin), Ok(()), "{pin}");
        }
        for pin in ["", "123", "000000000000000000000", "12a4", " 2580", "2580\n", "٢٥٨٠", "-258"] {
            assert_eq!(code(pin).unwrap_err(), "not_a_pin", "{pin}");
        }
        for pin in ["0000", "777777", "1234", "4321", "7890", "8901", "0987", "2109"] {
            assert_eq!(code(pin).unwrap_err(), "too_simple", "{pin}");
        }
    }
}
