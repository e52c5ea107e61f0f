//! Logging: where it goes, what passes and how it looks.
//!
//! Logs go to standard error, because standard output belongs to the line that tells the address.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, util::TryInitError};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::log::{Format, Log};

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` is not a filter.
    #[error("log.level is not a level or filter: {0}")]
    Filter(#[from] ParseError),
    /// Somebody else has begun already.
    #[error("logging has begun already: {0}")]
    Twice(#[from] TryInitError),
}

/// Begins to log as the configuration says; once per process.
///
/// # Errors
/// When the level cannot be read, or when logging has begun already.
pub fn install(log: &Log) -> Result<(), TelemetryError> {
    let registry = tracing_subscriber::registry().with(filter(&log.level)?);
    match log.format {
        Format::Pretty => {
            let colours = io::stderr().is_terminal();
            registry.with(fmt::layer().with_writer(io::stderr).with_ansi(colours)).try_init()?;
        }
        Format::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init()?;
        }
    }
    Ok(())
}

/// It writes an ERROR for every request head that it cannot read: strangers could fill the log with them.
const STRANGERS: &str = "actix_http::h1::dispatcher";

/// Reads a level or a filter directive such as `info,sotto_actors=debug`. What strangers can cause at will is left out
/// unless the directive names it.
///
/// # Errors
/// When it is neither.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::builder().parse(level)?;
    if level.contains(STRANGERS) {
        return Ok(filter);
    }
    Ok(filter.add_directive(format!("{STRANGERS}=off").parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read_and_nonsense_is_not() {
        for level in ["info", "warn", "info,sotto_actors=debug", "sotto::http=trace"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["info,sotto=loudly", "=,="] {
            assert!(filter(level).is_err(), "{level}");
        }
    }

    #[test]
    fn strangers_write_no_errors_unless_somebody_wants_to_see_them() {
        let off = format!("{STRANGERS}=off");
        assert!(filter("trace").unwrap().to_string().contains(&off));
        assert!(!filter(&format!("info,{STRANGERS}=debug")).unwrap().to_string().contains(&off));
    }
}
