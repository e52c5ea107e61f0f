//! The only place that writes to the terminal.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use super::CliError;

/// Prints one line, or a text that ends with one, on standard output.
///
/// # Errors
/// When it cannot be written. A reader that has left (`sotto config default | head`) is no error.
pub fn line(text: impl Display) -> Result<(), CliError> {
    let text = text.to_string();
    match writeln!(io::stdout(), "{}", text.trim_end_matches('\n')) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Whether a person looks at standard output.
#[must_use]
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints what went wrong on standard error, problem by problem, each with its hint.
pub fn complain(error: &CliError) {
    let mut stderr = io::stderr().lock();
    for problem in &error.problems {
        let _nobody_listens = writeln!(stderr, "error: {}", problem.text);
        if let Some(hint) = &problem.hint {
            let _nobody_listens = writeln!(stderr, " hint: {hint}");
        }
    }
}
