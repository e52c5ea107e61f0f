//! Where the commands meet the server: one function for each thing that lives elsewhere.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, out, user::Seed};
use crate::config::Config;
use crate::seed::{self, Shape};

/// Runs the server to its end.
pub async fn serve(config: Config) -> Result<(), CliError> {
    crate::boot::serve(config).await.map_err(|error| match error {
        crate::boot::BootError::Redis(_) => CliError::usage(error),
        _ => CliError::failed(error),
    })
}

/// Shows the server at work.
pub async fn demo(keep: bool) -> Result<(), CliError> {
    crate::demo::run(keep).await.map_err(|error| CliError::failed(error.to_string()))
}

/// Makes users, with a bar on a terminal and a line at the end.
pub async fn seed(config: Config, seed: Seed) -> Result<(), CliError> {
    let started = Instant::now();
    let bar = ProgressBar::new(seed.count.into());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} users, {eta} left") {
        bar.set_style(style);
    }
    let shape = seed.group.map_or(Shape::Pairs, Shape::Groups);
    let made = seed::seed(&config, seed.count, shape, &seed.out, |made| bar.set_position(made.into())).await;
    bar.finish_and_clear();
    made.map_err(|error| {
        CliError::failed(error).hint(format!("the database is {}, from store.url", config.store_url()))
    })?;
    let (count, file) = (seed.count, seed.out.display());
    let seconds = started.elapsed().as_secs_f64();
    out::line(format!("made {count} users in {seconds:.1} s; their tokens are in {file}, valid for 24 hours"))
}

/// The OpenAPI document.
pub fn openapi() -> Result<String, CliError> {
    Ok(crate::http::openapi::document())
}
