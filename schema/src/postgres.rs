//! PostgreSQL: connections, and the queries compiled for it.

mod pools;

use self::pools::{Lent, Pools};
use crate::journal::Room;
use crate::{Statement, StoreError, StoreSettings};
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use std::sync::Arc;

/// A connection to PostgreSQL.
pub type Connection = diesel_async::AsyncPgConnection;

/// A connection that takes several questions at once, and answers them in their order.
pub type Shared<'a> = &'a Connection;

/// SQL text for this database.
#[must_use]
pub fn sql(text: &'static str) -> Statement {
    Statement::new(text)
}

macro_rules! transaction {
    ($connection:expr, |$inner:ident| $body:block) => {
        diesel_async::AsyncConnection::transaction($connection, async |$inner| $body).await
    };
}

// Two questions at once on one connection: one way there and back, and one wake-up for it.
macro_rules! both {
    ($connection:ident, $first:ident, $second:ident, $given:expr) => {
        futures::try_join!($first(&*$connection, $given), $second(&*$connection, $given))?
    };
}

// The rows of a JSON array that is bound as `$1`, and what one of them says. An array per column would need a type that
// only this database has.
macro_rules! given_rows {
    () => {
        "FROM jsonb_array_elements($1) AS given"
    };
}
macro_rules! given_uuid {
    ($name:literal) => {
        concat!("(given.value->>'", $name, "')::uuid")
    };
}
macro_rules! given_number {
    ($name:literal) => {
        concat!("(given.value->>'", $name, "')::bigint")
    };
}
macro_rules! given_bytes {
    ($name:literal) => {
        concat!("decode(given.value->>'", $name, "', 'hex')")
    };
}

// Locks the rows of a query; several in the order that the query says.
macro_rules! lock {
    () => {
        " FOR NO KEY UPDATE"
    };
}

// Locks the rows of a query as far as nobody else holds them.
macro_rules! skip_locked {
    () => {
        " FOR NO KEY UPDATE SKIP LOCKED"
    };
}

// The database's own clock: those of nodes may differ and jump.
macro_rules! now {
    () => {
        "clock_timestamp()"
    };
}
macro_rules! seconds_ago {
    ($seconds:literal) => {
        concat!("clock_timestamp() - interval '", $seconds, " seconds'")
    };
}
macro_rules! ms_since {
    ($column:literal) => {
        concat!("(EXTRACT(EPOCH FROM clock_timestamp() - ", $column, ") * 1000)::bigint")
    };
}

/// A wake carries its transaction's number: serial ids are given before the commit and can be
/// committed out of order (rule D1).
const WRITE_WAKE: &str = "INSERT INTO wakes (xid, body, created_at, updated_at) \
    VALUES (pg_current_xact_id()::text::bigint, $1, clock_timestamp(), clock_timestamp())";

/// The wakes since a transaction number, and, as a row without a body, the oldest transaction that
/// this statement's snapshot still saw running: where the next sweep begins.
const READ_WAKES: &str = "SELECT 0::bigint AS position, body FROM wakes WHERE xid >= $1 \
    UNION ALL SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, NULL";

const WAKES_POSITION: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint \
    AS position, NULL::bytea AS body";

/// Users with the other side of their direct conversations in which both have written. User by user, by OFFSET: joined,
/// PostgreSQL reads all memberships of all users where its statistics say that hardly anybody has written.
const PRESENCE_PEERS: &str = "SELECT DISTINCT asked.id AS user_id, found.peer \
    FROM (SELECT (given.value->>'id')::uuid AS id FROM jsonb_array_elements($1) AS given) AS asked \
    CROSS JOIN LATERAL (SELECT other.user_id AS peer FROM memberships mine \
     JOIN conversations c ON c.id = mine.conversation_id AND c.kind = 'direct' \
     JOIN memberships other ON other.conversation_id = mine.conversation_id \
      AND other.user_id <> mine.user_id AND other.first_sent_seq IS NOT NULL \
     WHERE mine.user_id = asked.id AND mine.first_sent_seq IS NOT NULL OFFSET 0) AS found";

/// The history of sign-ins has a partition for each month.
const LOGINS_BY_MONTH: bool = true;

/// Locks a conversation's head; what is read afterwards is newer than the lock.
const LOCK_HEAD: &str = "SELECT last_seq FROM heads WHERE conversation_id = $1 FOR NO KEY UPDATE";

/// A node that is frozen or cut off in the middle of a transaction keeps what it has locked; after so long PostgreSQL
/// ends the session, or nobody could write to those conversations until TCP gives up.
const JOURNAL_IDLE: &str = "2s";

/// Rows are always found by their keys. Plans are kept, and one that was made while a table was small must not read it from
/// end to end when it has grown; nor are a thousand places of a device worth reading a table of millions for.
const BY_KEY: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; \
    SET enable_mergejoin = off; SET jit = off";

#[path = "queries/mod.rs"]
pub mod queries;

/// What a connection waits for where the operator's URL says nothing: seconds until one that cannot be made, or whose peer
/// acknowledges nothing, is given up. Without them a network that comes back is felt only at TCP's next attempt, whose
/// pauses double.
const PATIENCE: [(&str, &str); 4] =
    [("connect_timeout", "3"), ("tcp_user_timeout", "4"), ("keepalives_idle", "5"), ("keepalives_interval", "2")];

fn with_patience(url: &str) -> String {
    let mut url = url.to_owned();
    for (name, seconds) in PATIENCE {
        if !url.contains(&format!("{name}=")) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.extend([name, "=", seconds]);
        }
    }
    url
}

/// Pools for what may run beside other work; the Journal has connections of its own.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    url: String,
    pools: Arc<Pools>,
    pub(crate) room: Room,
}

impl Database {
    pub(crate) async fn open(url: &str, settings: &StoreSettings) -> Result<Self, StoreError> {
        let url = with_patience(url);
        let pools = Arc::new(Pools::new(&url, settings));
        let database = Self { url, pools, room: Room::default() };
        drop(database.read().await?);
        Ok(database)
    }

    pub(crate) async fn read(&self) -> Result<Lent, StoreError> {
        self.pools.get().await
    }

    pub(crate) async fn write(&self) -> Result<Lent, StoreError> {
        self.read().await
    }

    /// A connection outside the pool, with the Journal's time limits (rule D11).
    pub(crate) async fn dedicated(&self) -> Result<Connection, StoreError> {
        let mut connection = Connection::establish(&self.url).await?;
        let set = format!(
            "SET lock_timeout = '500ms'; SET statement_timeout = '3s'; \
             SET idle_in_transaction_session_timeout = '{JOURNAL_IDLE}'; \
             SET plan_cache_mode = force_generic_plan; {BY_KEY}"
        );
        connection.batch_execute(&set).await?;
        Ok(connection)
    }

    pub(crate) async fn plain(&self) -> Result<Connection, StoreError> {
        Ok(Connection::establish(&self.url).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_added_where_the_url_says_nothing() {
        let url = with_patience("postgres://user:pass@db/sotto?tcp_user_timeout=30");
        assert_eq!(
            url,
            "postgres://user:pass@db/sotto?tcp_user_timeout=30&connect_timeout=3&keepalives_idle=5&keepalives_interval=2"
        );
        assert!(with_patience("postgres://db/sotto").starts_with("postgres://db/sotto?connect_timeout=3&"));
    }
}
