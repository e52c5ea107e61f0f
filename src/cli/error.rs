//! Why a command failed, in words for the person at the terminal.

use std::{fmt::Display, process::ExitCode};

use crate::config::{ConfigError, Problem};

/// One or more lines `error: …`, each with a hint where there is one, and an exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// What went wrong.
    pub problems: Vec<Problem>,
    code: u8,
}

impl CliError {
    /// The command could not do its work: exit code 1.
    #[must_use]
    pub fn failed(text: impl Display) -> Self {
        Self { problems: vec![Problem::new(text.to_string())], code: 1 }
    }

    /// The command was asked wrongly: exit code 2.
    #[must_use]
    pub fn usage(text: impl Display) -> Self {
        Self { code: 2, ..Self::failed(text) }
    }

    /// The command could not look at what it was asked about: exit code 2, for 1 says that something is wrong there.
    #[must_use]
    pub fn blind(text: impl Display) -> Self {
        Self { code: 2, ..Self::failed(text) }
    }

    /// Adds how to go on.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(last) = self.problems.pop() {
            self.problems.push(last.hint(hint));
        }
        self
    }

    /// The code that the program ends with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self { problems: error.problems, code: 2 }
    }
}
