//! `sotto migrate`: the schema forward, back, or only looked at.

use clap::Args;

use sotto_schema::{Store, StoreError, StoreSettings};

use super::{CliError, Settings, out, runtime};
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  sotto migrate --config /etc/sotto.toml            apply what is missing (`sotto serve` does it by itself)
  sotto migrate --config /etc/sotto.toml --status   list migrations and whether they are applied
  sotto migrate --config /etc/sotto.toml --down 1   take the newest one back, with what is stored in it";

/// Bring the database's schema up to date, back, or tell where it stands.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Migrate {
    /// Take the newest N migrations back. What is stored in what they made is lost.
    #[arg(long, value_name = "N", conflicts_with = "status")]
    down: Option<usize>,
    /// Only tell which migrations are applied.
    #[arg(long)]
    status: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Migrate {
    /// Does it.
    ///
    /// # Errors
    /// When the configuration is wrong or the database refuses.
    pub fn run(self) -> Result<(), CliError> {
        let config = self.settings.load()?;
        let lines = runtime::block_on(self.work(&config)).map_err(|error| {
            CliError::failed(error).hint(format!("the database is {}, from store.url", config.store_url()))
        })?;
        lines.iter().try_for_each(out::line)
    }

    /// Does it and tells each thing that was done, or how things stand, in a line.
    async fn work(&self, config: &Config) -> Result<Vec<String>, StoreError> {
        let store = Store::open(config.store_url().expose(), &StoreSettings::from(&config.store)).await?;
        if self.status {
            let word = |is_applied| if is_applied { "applied" } else { "missing" };
            let rows = sotto_schema::status(&store).await?;
            return Ok(rows.iter().map(|row| format!("{} {}", word(row.applied), row.name)).collect());
        }
        let (verb, names) = match self.down {
            Some(count) => ("took back", sotto_schema::downgrade(&store, count).await?),
            None => ("applied", sotto_schema::migrate(&store).await?),
        };
        if names.is_empty() {
            return Ok(vec![String::from("nothing to do")]);
        }
        Ok(names.iter().map(|name| format!("{verb} {name}")).collect())
    }
}
