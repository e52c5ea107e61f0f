//! `sotto store`: what is done to a database by hand, while no node runs on it.

use clap::{Args, Subcommand};
use sotto_protocol::Timestamp;
use sotto_schema::{Store as Database, StoreError, StoreSettings};

use super::{CliError, Settings, out, runtime};
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  sotto store new-epoch --config /etc/sotto/sotto.toml   after a backup was restored, before the first node starts

Clients see the new epoch when they come back. They send again what they sent within a day; what is stored already is
known by its id. One-time keys and codes that wait are dropped, since a backup would give them out a second time.
Stop every node first: one that runs goes on with the old epoch.";

/// Prepare a database that was restored.
#[derive(Debug, Args)]
pub struct Store {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Tell clients that history went back: for a restored backup, or a standby that was promoted.
    #[command(after_help = EXAMPLES)]
    NewEpoch(NewEpoch),
}

#[derive(Debug, Args)]
struct NewEpoch {
    #[command(flatten)]
    settings: Settings,
}

impl Store {
    /// Does it.
    ///
    /// # Errors
    /// When the configuration is wrong, the database holds nothing of Sotto's, or it refuses.
    pub fn run(self) -> Result<(), CliError> {
        let Action::NewEpoch(action) = self.action;
        let config = action.settings.load()?;
        let hint = || format!("the database is {}, from store.url", config.store_url());
        match runtime::block_on(new_epoch(&config)).map_err(|error| CliError::failed(error).hint(hint()))? {
            Some(epoch) => out::line(format!("the new epoch is {epoch}")),
            None => Err(CliError::failed("this database holds nothing of Sotto's: was the backup restored into it?")
                .hint(hint())),
        }
    }
}

/// The new epoch; none where there are no tables.
async fn new_epoch(config: &Config) -> Result<Option<uuid::Uuid>, StoreError> {
    let store = Database::open(config.store_url().expose(), &StoreSettings::from(&config.store)).await?;
    if !sotto_schema::status(&store).await?.iter().any(|row| row.applied) {
        return Ok(None);
    }
    // A backup of an older version: its tables must be there that are about to be changed.
    sotto_schema::migrate(&store).await?;
    store.new_epoch(Timestamp::now()).await.map(Some)
}
