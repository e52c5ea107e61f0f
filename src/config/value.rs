//! What a setting's value can be, and how it is read from text and from TOML.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// A value as a source has it: text from the environment and flags, TOML from the file.
#[derive(Debug, Clone, Copy)]
pub enum Raw<'a> {
    /// From an environment variable, a file it names, or a flag.
    Text(&'a str),
    /// From the configuration file.
    Toml(&'a toml::Value),
}

/// A type that a setting can have.
///
/// No message repeats the value: a password typed into the wrong place must not reach the log.
pub trait Value: Sized {
    /// What the documentation calls it.
    const KIND: &'static str;

    /// Reads it from the environment or a flag.
    ///
    /// # Errors
    /// Says what was expected.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads it from the file. Types that TOML knows itself do not take them as strings.
    ///
    /// # Errors
    /// Says what was expected.
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::from_text(text),
            other => Err(format!("takes {} as a string, not {}", Self::KIND, article(other.type_str()))),
        }
    }

    /// The value as TOML; none when unset.
    fn to_toml(&self) -> Option<String>;

    /// The number it stands for, to be held against its bounds.
    fn number(&self) -> Option<u64> {
        None
    }

    /// Reads it from either.
    ///
    /// # Errors
    /// Says what was expected.
    fn read(raw: &Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::from_text(text.trim()),
            Raw::Toml(value) => Self::from_toml(value),
        }
    }
}

/// A string as a TOML literal.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn article(noun: &str) -> String {
    match noun.chars().next() {
        Some('a' | 'e' | 'i' | 'o') => format!("an {noun}"),
        _ => format!("a {noun}"),
    }
}

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Value for $type {
            const KIND: &'static str = "a whole number";

            fn from_text(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("takes {}", Self::KIND))
            }

            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                let number = value
                    .as_integer()
                    .ok_or_else(|| format!("takes {}, not {}", Self::KIND, article(value.type_str())))?;
                Self::try_from(number).map_err(|_| format!("takes {} that is not negative or huge", Self::KIND))
            }

            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )+};
}

numbers!(u32, u64, usize);

macro_rules! spans {
    ($($(#[doc = $doc:literal])+ $name:ident = $kind:literal, $from:ident;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The span as the standard library has it.
            #[must_use]
            pub fn duration(self) -> Duration {
                Duration::$from(u64::from(self.0))
            }
        }

        impl From<$name> for Duration {
            fn from(span: $name) -> Self {
                span.duration()
            }
        }

        impl Value for $name {
            const KIND: &'static str = $kind;

            fn from_text(text: &str) -> Result<Self, String> {
                u32::from_text(text).map(Self).map_err(|_| format!("takes {} as a whole number", Self::KIND))
            }

            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                u32::from_toml(value).map(Self).map_err(|_| format!("takes {} as a whole number", Self::KIND))
            }

            fn to_toml(&self) -> Option<String> {
                self.0.to_toml()
            }

            fn number(&self) -> Option<u64> {
                self.0.number()
            }
        }
    )+};
}

spans! {
    /// A span of time in whole seconds.
    Seconds = "seconds", from_secs;
    /// A span of time in whole milliseconds.
    Millis = "milliseconds", from_millis;
}

impl Value for bool {
    const KIND: &'static str = "`true` or `false`";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("takes {}", Self::KIND))
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("takes {} without quotes", Self::KIND))
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for String {
    const KIND: &'static str = "text";

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err(String::from("must not be empty")) } else { Ok(text.to_owned()) }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "a path";

    fn from_text(text: &str) -> Result<Self, String> {
        String::from_text(text).map(Self::from)
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Value for SocketAddr {
    const KIND: &'static str = "an address with a port, such as 127.0.0.1:8080 or [::1]:8080";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("takes {}", Self::KIND))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// Unset is written as nothing: an empty variable (as compose files make them) or `""`.
impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        if value.as_str() == Some("") { Ok(None) } else { T::from_toml(value).map(Some) }
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(Value::to_toml)
    }

    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(Value::number)
    }
}

/// A list: an array in the file, separated by commas in the environment.
impl<T: Value> Value for Vec<T> {
    const KIND: &'static str = T::KIND;

    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(T::from_text).collect()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value
            .as_array()
            .ok_or_else(|| format!("takes a list in brackets, not {}", article(value.type_str())))?
            .iter()
            .map(T::from_toml)
            .collect()
    }

    fn to_toml(&self) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(Value::to_toml).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// Declares an enum whose variants are words of the configuration.
macro_rules! words {
    (
        $(#[doc = $about:literal])+
        pub enum $name:ident as $kind:literal {
            $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// The word that stands for it in the configuration.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl $crate::config::value::Value for $name {
            const KIND: &'static str = $kind;

            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("takes {}", Self::KIND)),
                }
            }

            fn to_toml(&self) -> Option<String> {
                Some($crate::config::value::quoted(self.word()))
            }
        }
    };
}

pub(super) use words;
