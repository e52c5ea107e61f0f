//! Attacks that were possible once. Each file holds one kind, and fails on the code from before its cure.

mod asking;
mod bounds;
mod exports;
mod fan_out;
mod flood;
mod guesses;
mod history;
mod identity_keys;
mod owners;
mod proxies;
mod remains;
mod signals;
mod strangers;
mod unread;

use sotto_schema::{Store, inspect};
use uuid::Uuid;

/// Tries that a verification has lost, as they stand in the database.
async fn verification_tries(store: &Store, id: Uuid) -> i64 {
    let id = match store.kind() {
        "postgres" => format!("'{id}'"),
        _ => format!("x'{}'", id.simple()),
    };
    let query = format!("SELECT CAST(tries AS TEXT) AS text FROM verifications WHERE id = {id}");
    inspect::texts(store, &query).await.unwrap()[0].parse().unwrap()
}
