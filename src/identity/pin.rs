//! PINs of registration locks, hashed with Argon2id (RFC 9106).
//!
//! A PIN has few digits. Its hash is slow to compute and sealed, which protects the PIN from somebody who obtains the database.
//! [`super::hashing`] bounds how many are computed at a time.

use std::fmt;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use ring::rand::{SecureRandom, SystemRandom};
use sotto_protocol::registration_lock::check_pin;
use zeroize::Zeroizing;

/// Bytes of a salt (RFC 9106, section 3.1).
const SALT_LEN: usize = 16;

/// Why there is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The memory for it is missing.
    #[error("a PIN could not be hashed")]
    Hashing,
}

/// A PIN on its way. `Debug` hides it; wiped when dropped.
#[derive(Clone)]
pub struct Pin(Zeroizing<String>);

impl Pin {
    /// Reads a PIN that somebody shows. `None`: it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        check_pin("", text).is_ok().then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The hash that is stored, with salt and parameters, as a PHC string: 19 MiB, two passes, one lane, which is what OWASP
    /// asks for.
    ///
    /// # Errors
    /// When the system gives no random bytes or no memory.
    pub fn hash(&self, random: &SystemRandom) -> Result<Zeroizing<String>, PinError> {
        let mut salt = [0; SALT_LEN];
        random.fill(&mut salt).map_err(|_| PinError::Random)?;
        let hash: PasswordHash =
            Argon2::default().hash_password_with_salt(self.0.as_bytes(), &salt).map_err(|_| PinError::Hashing)?;
        Ok(Zeroizing::new(hash.to_string()))
    }

    /// Whether the hash is this PIN's, by the parameters that stand in it. One that cannot be read is nobody's.
    #[must_use]
    pub fn matches(&self, hash: &[u8]) -> bool {
        let hash = std::str::from_utf8(hash).ok().and_then(|text| PasswordHash::new(text).ok());
        hash.is_some_and(|hash| Argon2::default().verify_password(self.0.as_bytes(), &hash).is_ok())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pin(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_one_pin() {
        let (random, pin) = (SystemRandom::new(), Pin::parse("2580").unwrap());
        let hash = pin.hash(&random).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", *hash);
        assert_ne!(*hash, *pin.hash(&random).unwrap(), "the salt is drawn for each");
        assert!(pin.matches(hash.as_bytes()));
        assert!(!Pin::parse("2581").unwrap().matches(hash.as_bytes()));
        for broken in ["", "2580", "$argon2id$v=19$m=19456,t=2,p=1$", "$argon2id$v=19$m=4294967295,t=2,p=1$AAAA$AAAA"] {
            assert!(!pin.matches(broken.as_bytes()), "{broken}");
        }
        assert!(!pin.matches(&[0xff]));
        assert_eq!(format!("{pin:?}"), "Pin(***)");
    }

    /// RFC 9106, section 5.3.
    #[test]
    fn the_algorithm_is_the_one_of_the_rfc() {
        use argon2::{Algorithm, AssociatedData, ParamsBuilder, Version};
        let mut params = ParamsBuilder::new();
        params.m_cost(32).t_cost(3).p_cost(4).output_len(32).data(AssociatedData::new(&[4; 12]).unwrap());
        let argon2 =
            Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params.build().unwrap()).unwrap();
        let mut tag = [0; 32];
        argon2.hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
    }
}
