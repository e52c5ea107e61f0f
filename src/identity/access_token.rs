//! Access tokens: JWT (RFC 7519) signed with HS256 and nothing else, by ring.

use std::sync::{LazyLock, Once};

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::hmac;
use serde::{Deserialize, Serialize};
use sotto_protocol::{DeviceId, Timestamp, UserId};
use uuid::Uuid;

use super::secret_key::SecretKeys;

/// Issuer and audience of our tokens.
const SOTTO: &str = "sotto";
/// Longest token that is looked at, in bytes; ours have about 450.
const MAX_TOKEN: usize = 2048;
/// Clocks of two nodes may differ by this many seconds.
const LEEWAY: i64 = 1;

/// What a token says. Times are whole seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer, always `sotto`.
    iss: String,
    /// Audience, always `sotto`.
    aud: String,
    /// The user.
    pub sub: UserId,
    /// The device.
    pub did: DeviceId,
    /// The session's token family.
    pub sid: Uuid,
    /// Which refresh of the family made it, from 1.
    #[serde(rename = "gen")]
    pub generation: i64,
    /// When it was made.
    pub iat: i64,
    /// From when it is not valid any more.
    pub exp: i64,
    /// The token's own name, so that no two are the same text.
    pub jti: Uuid,
}

impl Claims {
    /// For a device and family, made at `now` and valid until `expires_at` (cut to whole seconds).
    #[must_use]
    pub fn new(
        user_id: UserId,
        device_id: DeviceId,
        family: Uuid,
        generation: i64,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            iss: SOTTO.to_owned(),
            aud: SOTTO.to_owned(),
            sub: user_id,
            did: device_id,
            sid: family,
            generation,
            iat: now.as_seconds(),
            exp: expires_at.as_seconds(),
            jti: Uuid::new_v4(),
        }
    }

    /// From when the token is not valid any more.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        Timestamp::from_millis(self.exp.saturating_mul(1000))
    }
}

/// Why a token is not taken. The client hears one answer for all; the reason is for tests and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours by its form, algorithm, key, issuer or audience.
    #[error("the token is not one of this server")]
    Foreign,
    /// The signature is not the key's.
    #[error("the token is forged")]
    Forged,
    /// It was ours.
    #[error("the token has expired")]
    Expired,
}

/// Signs claims with the active key.
///
/// # Errors
/// Never in practice: when the claims cannot be written as JSON.
pub fn sign(keys: &SecretKeys, claims: &Claims) -> Result<String, TokenError> {
    install();
    let active = keys.active();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(active.kid().to_owned());
    let key = EncodingKey::from_secret(active.access_token().expose());
    jsonwebtoken::encode(&header, claims, &key).map_err(|_| TokenError::Foreign)
}

/// Checks a token at the moment `now` and gives what it says.
///
/// # Errors
/// When it is not ours, forged, or expired. Keys or addresses of keys in the header (`jwk`, `jku`, `x5u`, `x5c`) and
/// critical extensions (RFC 7515 section 4.1.11) are refused, since none of ours has them.
pub fn verify(keys: &SecretKeys, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
    install();
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Foreign);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Foreign)?;
    let brings_keys = header.jwk.is_some() || header.jku.is_some() || header.x5u.is_some() || header.x5c.is_some();
    if header.alg != Algorithm::HS256 || brings_keys || header.crit.is_some() {
        return Err(TokenError::Foreign);
    }
    let key = header.kid.as_deref().and_then(|kid| keys.by_kid(kid)).ok_or(TokenError::Foreign)?;
    let key = DecodingKey::from_secret(key.access_token().expose());

    let claims = jsonwebtoken::decode::<Claims>(token, &key, &RULES)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Forged,
            _ => TokenError::Foreign,
        })?
        .claims;
    let seconds = now.as_seconds();
    // `iat` is not compared: the signature says that a node of ours has made it, and one whose clock is behind would
    // refuse what another has just given out.
    if seconds >= claims.exp.saturating_add(LEEWAY) {
        return Err(TokenError::Expired);
    }
    Ok(claims)
}

/// What every token must say.
static RULES: LazyLock<Validation> = LazyLock::new(|| {
    let mut rules = Validation::new(Algorithm::HS256);
    rules.set_audience(&[SOTTO]);
    rules.set_issuer(&[SOTTO]);
    rules.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    // The moment comes in from outside; the crate would look at the system's clock.
    rules.validate_exp = false;
    rules
});

/// HS256 on ring, for the crate that knows JWT.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Hs256::new(*algorithm, key.as_bytes())?)),
    verifier_factory: |algorithm, key| Ok(Box::new(Hs256::new(*algorithm, key.try_get_as_bytes()?)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Refused only when somebody else in this process was first; then his HS256 serves as well.
        let _ = PROVIDER.install_default();
    });
}

struct Hs256(hmac::Key);

impl Hs256 {
    fn new(algorithm: Algorithm, key: &[u8]) -> JwtResult<Self> {
        match algorithm {
            Algorithm::HS256 => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key))),
            _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
        }
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        hmac::verify(&self.0, message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use sotto_protocol::Binary;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_millis(1_795_253_400_000);

    fn claims() -> Claims {
        let until = NOW.plus(Duration::from_secs(60));
        Claims::new(UserId::random(), DeviceId::random(), Uuid::new_v4(), 1, NOW, until)
    }

    /// A token of any content, signed with the key of the set.
    fn forge(keys: &SecretKeys, header: &Value, claims: &Value) -> String {
        let body = format!("{}.{}", encode(header), encode(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, keys.active().access_token().expose());
        format!("{body}.{}", Binary::encode(hmac::sign(&key, body.as_bytes()).as_ref()))
    }

    fn encode(value: &Value) -> String {
        Binary::encode(value.to_string().as_bytes())
    }

    /// RFC 7515, appendix A.1: the example of a JWS with HS256.
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
            eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = Binary::decode("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        let hs256 = Hs256::new(Algorithm::HS256, &Binary::decode(key).unwrap()).unwrap();
        assert_eq!(hs256.try_sign(signed.as_bytes()).unwrap(), signature);
        hs256.verify(signed.as_bytes(), &signature).unwrap();
        assert!(hs256.verify(signed.to_lowercase().as_bytes(), &signature).is_err());
        for other in [Algorithm::HS384, Algorithm::HS512, Algorithm::RS256, Algorithm::EdDSA] {
            assert!(Hs256::new(other, b"key").is_err(), "{other:?}");
        }
    }

    #[test]
    fn what_was_signed_is_read() {
        let keys = SecretKeys::random().unwrap();
        let claims = claims();
        let token = sign(&keys, &claims).unwrap();
        assert_eq!(verify(&keys, &token, NOW).unwrap(), claims);
        assert_eq!(claims.expires_at(), NOW.plus(Duration::from_secs(60)));
        assert_ne!(token, sign(&keys, &Claims { jti: Uuid::new_v4(), ..claims }).unwrap());
    }

    #[test]
    fn it_ends_to_the_second() {
        let keys = SecretKeys::random().unwrap();
        let token = sign(&keys, &claims()).unwrap();
        let at = |seconds| verify(&keys, &token, NOW.plus(Duration::from_secs(seconds)));
        assert!(at(59).is_ok() && at(60).is_ok());
        assert_eq!(at(61), Err(TokenError::Expired));
        // A clock that is an hour behind is no reason to refuse it.
        assert!(verify(&keys, &token, NOW.minus(Duration::from_secs(3600))).is_ok());
    }

    #[test]
    fn forged_and_foreign_tokens_are_refused() {
        let (keys, others) = (SecretKeys::random().unwrap(), SecretKeys::random().unwrap());
        let body = serde_json::to_value(claims()).unwrap();
        let active = keys.active();
        let kid = active.kid();
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": kid});
        assert!(verify(&keys, &forge(&keys, &header, &body), NOW).is_ok());
        assert_eq!(verify(&keys, &forge(&others, &header, &body), NOW), Err(TokenError::Forged));

        let foreign = |header: Value, body: &Value| {
            assert_eq!(verify(&keys, &forge(&keys, &header, body), NOW), Err(TokenError::Foreign), "{header} {body}");
        };
        for alg in ["none", "None", "HS384", "HS512", "RS256", "EdDSA", ""] {
            foreign(json!({"alg": alg, "kid": kid}), &body);
        }
        foreign(json!({"alg": "HS256"}), &body);
        foreign(json!({"alg": "HS256", "kid": "other"}), &body);
        foreign(json!({"alg": "HS256", "kid": kid, "jku": "https://evil.example/keys"}), &body);
        foreign(json!({"alg": "HS256", "kid": kid, "jwk": {"kty": "oct", "k": "AAAA", "alg": "HS256"}}), &body);
        foreign(json!({"alg": "HS256", "kid": kid, "crit": ["x"], "x": 1}), &body);
        for (name, value) in [("aud", "else"), ("iss", "else"), ("sub", "nobody"), ("exp", "tomorrow")] {
            let mut changed = body.clone();
            changed[name] = json!(value);
            foreign(header.clone(), &changed);
            changed.as_object_mut().unwrap().remove(name);
            foreign(header.clone(), &changed);
        }
        let token = sign(&keys, &claims()).unwrap();
        let unsigned = token.rsplit_once('.').unwrap().0;
        for text in ["", "a.b.c", unsigned, &format!("{unsigned}."), &"a".repeat(5000)] {
            assert!(verify(&keys, text, NOW).is_err());
        }
        let none = format!("{}.{}.", encode(&json!({"alg": "none", "kid": kid})), encode(&body));
        assert_eq!(verify(&keys, &none, NOW), Err(TokenError::Foreign));
    }
}
