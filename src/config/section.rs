//! How a section of the configuration is written: one row per setting, from which the struct, its
//! defaults, the parser and the documentation all come.

use super::value::Raw;

/// A part of the configuration with a name of its own, such as `http` or `sms.twilio`.
pub trait Section {
    /// The name that stands before each of its keys.
    fn name(&self) -> &'static str;

    /// What the section is about, for the documentation.
    fn about(&self) -> String;

    /// Every setting of the section with its present value.
    fn settings(&self) -> Vec<Setting>;

    /// Gives one setting a new value.
    ///
    /// # Errors
    /// Says what is wrong with the value, without repeating it: it may be a secret.
    fn set(&mut self, name: &str, raw: &Raw<'_>) -> Result<(), String>;
}

/// One setting as the documentation and the sources see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The section's name.
    pub section: &'static str,
    /// The setting's name within its section.
    pub name: &'static str,
    /// What it means, from the field's doc comment.
    pub about: String,
    /// The environment variable that the doc comment names; a test compares it with [`Self::variable`].
    pub documented_variable: Option<String>,
    /// What kind of value it takes.
    pub kind: &'static str,
    /// The least and the greatest number it takes.
    pub bounds: Option<(u64, u64)>,
    /// The present value as TOML; none when unset. Secrets are hidden.
    pub value: Option<String>,
    /// What an unset value amounts to, in words or as a value.
    pub unset_means: Option<&'static str>,
    /// [`Self::unset_means`] as TOML, where it is a value and not only words.
    pub unset_value: Option<String>,
}

impl Setting {
    /// The full key, as it is written in messages and in `--set`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        variable_of(&self.key())
    }
}

/// The environment variable for a key: `http.listen` is `SOTTO_HTTP__LISTEN`.
#[must_use]
pub fn variable_of(key: &str) -> String {
    format!("SOTTO_{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Splits a field's doc comment into its meaning and the environment variable of its last line.
pub(super) fn split_doc(lines: &[&str]) -> (String, Option<String>) {
    let mut meaning = Vec::new();
    let mut variable = None;
    for line in lines.iter().map(|line| line.trim()) {
        match line.strip_prefix("`SOTTO_").and_then(|rest| rest.strip_suffix('`')) {
            Some(rest) => variable = Some(format!("SOTTO_{rest}")),
            None if line.is_empty() => {}
            None => meaning.push(line),
        }
    }
    (meaning.join(" "), variable)
}

/// Refuses a number outside of its bounds.
pub(super) fn within(number: Option<u64>, low: u64, high: u64) -> Result<(), String> {
    match number {
        Some(number) if number < low || number > high => Err(format!("must be between {low} and {high}, not {number}")),
        _ => Ok(()),
    }
}

/// Declares a section: each row is a field with its doc comment (the last line names its variable), its
/// type, its default, what leaving it unset means, and its bounds.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])+
                pub $field:ident: $type:ty = $default:expr
                    $(, unset means $unset:literal)?
                    $(, within $low:literal..=$high:literal)?;
            )*
        }
        $(with {
            $(
                $(#[doc = $sub_doc:literal])+
                pub $sub:ident: $sub_type:ty;
            )+
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nKey `", $section, ".", stringify!($field), "`, default `", stringify!($default), "`"
                    $(, " (", $unset, ")")? $(, ", from ", stringify!($low), " to ", stringify!($high))?, ".")]
                pub $field: $type,
            )*
            $($(
                $(#[doc = $sub_doc])+
                pub $sub: $sub_type,
            )+)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($sub: Default::default(),)+)?
                }
            }
        }

        impl $crate::config::section::Section for $name {
            fn name(&self) -> &'static str {
                $section
            }

            fn about(&self) -> String {
                $crate::config::section::split_doc(&[$($about),+]).0
            }

            fn settings(&self) -> Vec<$crate::config::section::Setting> {
                use $crate::config::value::Value;
                vec![$({
                    let (about, documented_variable) = $crate::config::section::split_doc(&[$($doc),+]);
                    let (mut bounds, mut unset_means, mut unset_value) = (None, None, None);
                    $(bounds = bounds.or(Some(($low, $high)));)?
                    $(
                        unset_means = unset_means.or(Some($unset));
                        let is_value = !$unset.contains(' ');
                        unset_value = unset_value.or_else(|| {
                            <$type as Value>::from_text($unset).ok().filter(|_| is_value)?.to_toml()
                        });
                    )?
                    $crate::config::section::Setting {
                        section: $section,
                        name: stringify!($field),
                        about,
                        documented_variable,
                        kind: <$type as Value>::KIND,
                        bounds: bounds.take(),
                        value: self.$field.to_toml(),
                        unset_means: unset_means.take(),
                        unset_value: unset_value.take(),
                    }
                }),*]
            }

            fn set(&mut self, name: &str, raw: &$crate::config::value::Raw<'_>) -> Result<(), String> {
                use $crate::config::value::Value;
                match name {
                    $(
                        stringify!($field) => {
                            let value = <$type as Value>::read(raw)?;
                            $($crate::config::section::within(value.number(), $low, $high)?;)?
                            self.$field = value;
                            Ok(())
                        }
                    )*
                    _ => Err(String::from("is not a setting of this section")),
                }
            }
        }
    };
}

pub(super) use section;
