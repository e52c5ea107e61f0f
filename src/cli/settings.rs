//! The flags by which every command takes its configuration.

use std::path::PathBuf;

use clap::Args;

use crate::config::{self, Config, ConfigError, Sources};

/// Where settings come from, beside defaults and environment.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Read settings from this TOML file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen here; the same as `--set http.listen=ADDR:PORT`.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Keep files here; the same as `--set data.dir=DIR`.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Give one setting a value; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

impl Settings {
    /// Reads the configuration from all sources.
    ///
    /// # Errors
    /// Names everything that is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let named = [("http.listen", &self.listen), ("data.dir", &self.data_dir)];
        let flags = named
            .into_iter()
            .filter_map(|(key, value)| Some((String::from(key), value.clone()?)))
            .chain(self.set.iter().cloned())
            .collect();
        Config::load(&Sources { file: self.config.clone(), environment: config::environment(), flags })
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((String::from(key.trim()), String::from(value))),
        None => Err(String::from("write KEY=VALUE, as log.level=debug")),
    }
}
