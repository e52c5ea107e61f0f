//! Everything that Sotto stores: tables, queries, pools, migrations, on SQLite and on PostgreSQL.
//!
//! # How it holds two databases with one text
//! [`types`] has SQL types of our own with a mapping to each database's native type; [`tables`]
//! has one `table!` for both. The modules under `queries/` are compiled twice, once below
//! [`postgres`] and once below [`sqlite`], where `Connection`, `sql` and `transaction!` mean that
//! database's own. [`Store`] is the one thing that callers see: its methods, declared by `facade!`
//! in `store/`, run the query of the database that is behind it.
//!
//! # How to add a table family
//! 1. `migrations/sqlite/NAME/{up,down}.sql` and `migrations/postgres/NAME/{up,down}.sql`, same
//!    NAME, every table with `created_at` and `updated_at`. Types: `UUID`/`BLOB`,
//!    `TIMESTAMPTZ`/`INTEGER` (microseconds), `BYTEA`/`BLOB`, `JSONB`/`TEXT`, `TEXT`, `BIGINT`,
//!    `BOOLEAN`.
//! 2. The `table!` in `tables.rs` with the types of [`types`] (`Uuid`, `Moment`, `Json`, `Word`)
//!    and diesel's `Binary`, `Text`, `BigInt`, `Bool`, `Nullable<…>`.
//! 3. `queries/FAMILY.rs` and its line in `queries/mod.rs`: functions
//!    `pub async fn name(connection: &mut Connection, …) -> Result<T, StoreError>` with
//!    `use super::*;`. Either diesel's DSL with `diesel_async::RunQueryDsl`, or `sql("… $1 …")`
//!    with `.bind::<Type, _>(value)`, which is cached like the DSL's statements. Several writes
//!    stand in `transaction!(connection, |connection| { … })`.
//!    SQLite has no batch insert in the async DSL: insert row by row inside the transaction.
//! 4. `store/FAMILY.rs` and its line in `store.rs`: `facade! { read fn …; write fn … }`. `read`
//!    takes a pooled connection; `write` the writing one, in a task of its own, so that a caller
//!    that goes away cannot leave a transaction open. Arguments are owned.
//!
//! The contract's id types, [`sotto_protocol::Timestamp`] and JSON values bind directly in `sql(…)`
//! (`.bind::<Uuid, _>(user_id)`, `.bind::<Moment, _>(now)`, `.bind::<Nullable<Uuid>, _>(option)`)
//! and are read by `QueryableByName` structs with `#[diesel(sql_type = Uuid)]`; in the DSL they
//! need [`types::bound`].
//!
//! Row structs live once, in `rows.rs` or beside the family in `rows/`, and derive
//! `QueryableByName` (for `sql`) or `Queryable`.

pub mod account_change;
pub mod append;
pub mod asking;
mod bucket;
pub mod device_link;
mod error;
mod gather;
pub mod inspect;
mod journal;
mod migrate;
mod month;
mod packed;
pub mod planted;
pub mod postgres;
pub mod registration_lock;
pub mod rows;
pub mod second_factor;
pub mod sqlite;
mod statement;
mod store;
pub mod tables;
pub mod types;

pub use error::StoreError;
pub use journal::JournalConnection;
pub use migrate::{MigrationStatus, downgrade, migrate, status};
pub use packed::PackedEnvelopes;
pub use statement::Statement;
pub use store::{Store, StoreSettings};
