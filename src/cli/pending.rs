//! Where the commands meet the server: one function for each thing that lives elsewhere.

use super::{CliError, user::Seed};
use crate::config::Config;

/// Runs the server to its end. To be `crate::boot::serve(config)`.
pub async fn serve(config: Config) -> Result<(), CliError> {
    crate::boot::serve(config).await.map_err(|error| CliError::failed(error.to_string()))
}

/// Shows the server at work. To be `crate::demo::run(keep)`.
pub async fn demo(_keep: bool) -> Result<(), CliError> {
    Err(missing("demo"))
}

/// Makes users. To be written on `sotto_schema`; `seed.group` is none for pairs.
pub async fn seed(_config: Config, _seed: Seed) -> Result<(), CliError> {
    Err(missing("user seed"))
}

/// The OpenAPI document. To be `crate::http::openapi::document()`.
pub fn openapi() -> Result<String, CliError> {
    Ok(crate::http::openapi::document())
}

fn missing(command: &str) -> CliError {
    CliError::failed(format!("`sotto {command}` is not in this version yet"))
}
