//! Text that must not be seen: neither in logs nor in `config check`.

use std::fmt;

use zeroize::Zeroize;

use super::value::{Value, quoted};

/// A password or token. It is shown by [`Secret::expose`] alone, and wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Value for Secret {
    const KIND: &'static str = "a secret";

    fn from_text(text: &str) -> Result<Self, String> {
        String::from_text(text).map(Self)
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted("***"))
    }
}
