//! Bytes that travel in JSON as base64url without padding.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);

/// A byte string. On output base64url without padding (RFC 4648 section 5); on input padding and
/// the `+/` alphabet of section 4 are taken too. `Debug` shows only the length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, utoipa::ToSchema)]
#[schema(value_type = String, format = Byte)]
pub struct Binary(pub Vec<u8>);

impl Binary {
    /// Encodes bytes as base64url without padding.
    #[must_use]
    pub fn encode(bytes: &[u8]) -> String {
        URL_SAFE.encode(bytes)
    }

    /// The same, appended to a text.
    pub fn encode_to(bytes: &[u8], text: &mut String) {
        URL_SAFE.encode_string(bytes, text);
    }

    /// Decodes base64url or base64 with or without padding; `None` when it is neither.
    #[must_use]
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let engine = if text.contains(['+', '/']) { &STANDARD } else { &URL_SAFE };
        engine.decode(text).ok()
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Binary {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Binary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Binary({} bytes)", self.0.len())
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Self::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = Binary;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("base64url text")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Binary, E> {
                Binary::decode(text).map(Binary).ok_or_else(|| E::custom("not base64url"))
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_both_alphabets_with_and_without_padding() {
        for text in ["-_8", "-_8=", "+/8", "+/8="] {
            assert_eq!(Binary::decode(text).as_deref(), Some(&[0xfb, 0xff][..]), "{text}");
        }
        assert_eq!(Binary::encode(&[0xfb, 0xff]), "-_8");
        assert_eq!(Binary::decode("a b"), None);
        assert_eq!(Binary::decode("-/8"), None);
    }
}
