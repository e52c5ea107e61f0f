//! A private database per test.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// The server that `scripts/test` has started.
#[allow(clippy::disallowed_methods, reason = "where scripts/test has put PostgreSQL")]
pub fn postgres_server() -> String {
    std::env::var("SOTTO_TEST_POSTGRES")
        .expect("SOTTO_TEST_POSTGRES is not set: run ./scripts/test, which starts a private PostgreSQL")
}

/// A URL of a database that nobody else uses; SQLite's is a file in `folder`.
pub async fn fresh(kind: Kind, folder: &Path) -> String {
    match kind {
        Kind::Sqlite => format!("sqlite:{}", folder.join("sotto.db").display()),
        Kind::Postgres => {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let server = postgres_server();
            let client = connect(&server).await;
            client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database of one's own");
            let (base, _) = server.rsplit_once('/').expect("postgres://…/postgres");
            format!("{base}/{name}")
        }
    }
}

/// A connection of the test's own, beside the server's: to look, to lock, to break.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}
