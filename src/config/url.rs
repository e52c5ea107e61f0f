//! URLs, which may carry a password and are therefore never printed whole.

use std::fmt;

use super::value::{Value, quoted};

/// A URL of a database or a service. [`fmt::Display`] and [`fmt::Debug`] hide its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Takes the text as it is; whether its scheme fits is judged by the validation.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole URL with its password, for the one who connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What stands before the first colon.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        self.0.split_once(':').map(|(scheme, _)| scheme)
    }

    fn redacted(&self) -> String {
        // The last `@` counts, so that a password with a forgotten `/` or `@` in it is hidden as well:
        // better to hide too much than too little.
        let shown = match self.0.split_once("://") {
            Some((scheme, rest)) => match rest.rsplit_once('@') {
                Some((user, host)) => match user.split_once(':') {
                    Some((name, _)) => format!("{scheme}://{name}:***@{host}"),
                    None => self.0.clone(),
                },
                None => self.0.clone(),
            },
            None => self.0.clone(),
        };
        match shown.split_once("password=") {
            Some((before, _)) => format!("{before}password=***"),
            None => shown,
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Value for Url {
    const KIND: &'static str = "a URL";

    fn from_text(text: &str) -> Result<Self, String> {
        String::from_text(text).map(Self)
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.redacted()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_wherever_they_stand() {
        for url in [
            "postgres://sotto:hunter2@db/sotto",
            "postgres://sotto:hunter2/@x@db/sotto",
            "redis://:hunter2@cache:6379",
            "postgres://db/sotto?user=sotto&password=hunter2",
        ] {
            let shown = format!("{0} {0:?}", Url::new(url));
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("***"), "{shown}");
        }
        assert_eq!(Url::new("sqlite:data/sotto.db").to_string(), "sqlite:data/sotto.db");
    }
}
