//! The database and its connections.

use sotto_schema::StoreSettings;

use super::{section::section, url::Url};

section! {
    /// The database: SQLite for one node, PostgreSQL otherwise.
    pub struct Store in "store" {
        /// `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME`. Unset: `sotto.db` in `data.dir`. Migrations run at start; a newer schema than the program's is refused.
        /// `SOTTO_STORE__URL`
        pub url: Option<Url> = None, unset means "sqlite:data/sotto.db";
        /// Connections for everything but the journal. Those to PostgreSQL are parted among the worker threads and the main one, at least two for each: with many workers, twice as many as these serve best.
        /// `SOTTO_STORE__READ_CONNECTIONS`
        pub read_connections: u32 = 8, within 1..=100;
        /// Connections that append messages, each with its own batch: more than the machine can serve only make the batches smaller. SQLite has one writer and uses one, whatever stands here.
        /// `SOTTO_STORE__JOURNAL_CONNECTIONS`
        pub journal_connections: Option<u32> = None, unset means "half the number of cores, 1 to 8", within 1..=64;
    }
}

impl From<&Store> for StoreSettings {
    fn from(store: &Store) -> Self {
        Self { read_connections: store.read_connections, ..Self::default() }
    }
}
