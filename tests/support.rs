//! What the tests stand on: real nodes as processes of their own, private databases, people with devices.

#![allow(dead_code, reason = "two programs stand on it, each on a part")]

pub mod cluster;
pub mod database;
pub mod disk;
pub mod fault;
pub mod lock;
pub mod node;
pub mod people;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod wire;

/// Writes each test once and runs it on both databases. PostgreSQL comes from `scripts/test`, by the variable
/// `SOTTO_TEST_POSTGRES`; without it those tests fail and say so.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($database:ident) $body:block)+) => {
        $(async fn $name($database: crate::support::database::Kind) $body)+
        mod sqlite {
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::support::database::Kind::Sqlite).await; })+
        }
        mod postgres {
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::support::database::Kind::Postgres).await; })+
        }
    };
}
pub(crate) use on_both;
