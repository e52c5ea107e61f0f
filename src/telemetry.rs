//! Logging: where it goes, what passes and how it looks.
//!
//! Logs go to standard error, because standard output belongs to the line that tells the address.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, ParseError, filter_fn};
use tracing_subscriber::{EnvFilter, fmt, util::TryInitError};
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
    let named = Named::of(&log.level);
    let carriers = named.carriers();
    let libraries = filter_fn(move |metadata| named.lets_pass(metadata.target(), *metadata.level()));
    let registry = tracing_subscriber::registry().with(filter(&log.level)?).with(libraries);
    match log.format {
        Format::Pretty => {
            let colours = io::stderr().is_terminal();
            registry.with(fmt::layer().with_writer(io::stderr).with_ansi(colours)).try_init()?;
        }
        Format::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init()?;
        }
    }
    for (library, shows) in carriers {
        tracing::warn!(library, shows, "log.level names a library that logs secrets: protect this log as the database");
    }
    Ok(())
}

/// Reads a level or a filter directive such as `info,sotto_actors=debug`.
///
/// # Errors
/// When it is neither.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::builder().parse(level)?;
    if Named::of(level).carriers().is_empty() {
        return Ok(filter);
    }
    // The warning about secrets is shown at every level.
    Ok(filter.add_directive(format!("{}=warn", module_path!()).parse()?))
}

/// It writes an ERROR for every request head that it cannot read: strangers could fill the log with them.
const STRANGERS: &str = "actix_http::h1::dispatcher";

/// Libraries that log secrets at `debug` or `trace`, and what their lines show.
const CARRIERS: [(&str, &str); 2] = [
    ("tokio_postgres", "parameters of queries: telephone numbers, names of devices, push tokens, hashes, ciphertexts"),
    ("rustls", "messages of TLS handshakes, with tickets that resume a session"),
];

/// The targets that a filter names. Every other library logs nothing below `info`, because libraries log what passes
/// through them, and do not know which of it is secret.
#[derive(Debug)]
struct Named(Vec<String>);

impl Named {
    /// A directive is `target[span{field=value}]=level`, with each part optional. A word that is no level is a target.
    fn of(filter: &str) -> Self {
        let targets = filter.split(',').filter_map(|directive| {
            let target = directive.split(['[', '=']).next()?.trim();
            (!target.is_empty() && target.parse::<LevelFilter>().is_err()).then(|| target.to_owned())
        });
        Self(targets.collect())
    }

    fn lets_pass(&self, target: &str, level: Level) -> bool {
        if is_within(target, STRANGERS) {
            return self.0.iter().any(|named| is_within(named, STRANGERS));
        }
        level <= Level::INFO || is_own(target) || self.0.iter().any(|named| is_within(target, named))
    }

    /// The named libraries that log secrets.
    fn carriers(&self) -> Vec<(&'static str, &'static str)> {
        CARRIERS.into_iter().filter(|(library, _)| self.0.iter().any(|named| is_within(named, library))).collect()
    }
}

/// Whether a module is another one or inside of it. `EnvFilter` compares the beginnings of names, for which
/// `tokio_postgres` would be a part of `tokio`.
fn is_within(module: &str, outer: &str) -> bool {
    module.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether a target is one of this server's packages.
fn is_own(target: &str) -> bool {
    let package = target.split("::").next().unwrap_or(target);
    package == "sotto" || package.starts_with("sotto_")
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

    fn passes(filter: &str, target: &str, level: Level) -> bool {
        Named::of(filter).lets_pass(target, level)
    }

    #[test]
    fn strangers_write_no_errors_unless_somebody_wants_to_see_them() {
        for filter in ["trace", "info", "info,actix_http=debug"] {
            assert!(!passes(filter, STRANGERS, Level::ERROR), "{filter}");
        }
        assert!(passes(&format!("info,{STRANGERS}=debug"), STRANGERS, Level::ERROR));
    }

    #[test]
    fn libraries_are_silent_below_info_unless_they_are_named() {
        for filter in ["debug", "trace", "5", "info,sotto=trace", "tokio=trace", "[request]=trace", "trace,t=trace"] {
            for library in ["tokio_postgres::query", "redis::aio", "hyper_util::client", "diesel", "log", "sottoish"] {
                assert!(!passes(filter, library, Level::DEBUG), "{filter} {library}");
                assert!(passes(filter, library, Level::INFO), "{filter} {library}");
            }
            for own in ["sotto", "sotto::access", "sotto_schema::store", "sotto_actors"] {
                assert!(passes(filter, own, Level::TRACE), "{filter} {own}");
            }
        }
        for filter in ["tokio_postgres=debug", "info, tokio_postgres", "info,tokio_postgres::query[span{x=1}]=debug"] {
            assert!(passes(filter, "tokio_postgres::query", Level::DEBUG), "{filter}");
            assert!(!passes(filter, "redis::aio", Level::DEBUG), "{filter}");
        }
    }

    #[test]
    fn whoever_names_a_library_that_logs_secrets_is_warned() {
        let warned = |filter| Named::of(filter).carriers().into_iter().map(|(library, _)| library).collect::<Vec<_>>();
        assert_eq!(warned("tokio_postgres::query=debug,rustls"), ["tokio_postgres", "rustls"]);
        assert!(warned("trace,sotto=debug,hyper=trace,tokio=trace").is_empty());
        assert!(filter("tokio_postgres=debug").unwrap().to_string().contains("sotto::telemetry=warn"));
    }
}
