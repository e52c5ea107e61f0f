//! PINs of registration locks, hashed with Argon2id (RFC 9106).
//!
//! A PIN has few digits: a hash that is slow, and sealed beside that, keeps it from whoever gets hold of the database. At
//! most two are computed at a time on a node ([`Hashing`]), for each takes 19 MiB and some 20 ms of a core. *When full:*
//! who has waited for five seconds is refused with 503. *On death:* nothing is lost, the request fails.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use ring::rand::{SecureRandom, SystemRandom};
use sotto_protocol::problem::Problem;
use sotto_protocol::registration_lock::check_pin;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::error::ApiError;

/// Hashes that a node computes at a time.
const AT_ONCE: usize = 2;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
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

/// Lets so many hashes be computed at a time on this node.
#[derive(Clone, Debug)]
pub struct Hashing {
    turns: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), patience: PATIENCE }
    }
}

impl Hashing {
    /// Does the work on a thread for such work, when it is its turn. It is done to its end, and its place kept, even if nobody
    /// waits for it any more.
    ///
    /// # Errors
    /// 503 when its turn did not come.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let busy = || ApiError::from(Problem::unavailable("too many PINs are being compared").retry_after(1000));
        let permit = tokio::time::timeout(self.patience, Arc::clone(&self.turns).acquire_owned()).await;
        let permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(|_| busy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    #[tokio::test]
    async fn two_at_a_time() {
        let hashing = Hashing::default();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let runs = (0..8).map(|_| {
            let (now, most) = (now.clone(), most.clone());
            hashing.run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                Pin::parse("2580").unwrap().hash(&SystemRandom::new()).unwrap();
                now.fetch_sub(1, Ordering::SeqCst);
            })
        });
        assert!(futures::future::join_all(runs).await.iter().all(Result::is_ok));
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    }

    #[tokio::test]
    async fn whose_turn_does_not_come_is_refused() {
        let hashing = Hashing { patience: Duration::from_millis(10), ..Hashing::default() };
        let _held = Arc::clone(&hashing.turns).acquire_many_owned(2).await.unwrap();
        let ApiError(problem) = hashing.run(|| ()).await.unwrap_err();
        assert_eq!(problem.status, 503);
    }
}
