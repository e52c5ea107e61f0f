//! PostgreSQL: connections, and the queries compiled for it.

use crate::journal::Room;
use crate::{Statement, StoreError, StoreSettings};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use thread_local::ThreadLocal;

/// A connection to PostgreSQL.
pub type Connection = diesel_async::AsyncPgConnection;
type Manager = AsyncDieselConnectionManager<Connection>;

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
/// The same for what runs beside the Journal.
const POOL_IDLE: &str = "5s";

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

/// The connections, parted among threads. Each is driven by the thread that opened it: whoever waits on another for its
/// answers wakes two threads for every few KiB of them. What one thread does not use is there for the others.
#[derive(Debug)]
struct Pools {
    pools: Vec<Pool>,
    /// In the order in which threads came.
    places: ThreadLocal<usize>,
    next: AtomicUsize,
}

impl Pools {
    fn new(url: &str, settings: &StoreSettings) -> Self {
        Self {
            pools: parts(settings).map(|size| Pool { pool: pool(url, size), size }).collect(),
            places: ThreadLocal::new(),
            next: AtomicUsize::new(0),
        }
    }

    /// The calling thread's pool, or, while all of its connections are taken, one that has another. None to spare: its own.
    fn nearest(&self) -> Option<&bb8::Pool<Manager>> {
        let place = *self.places.get_or(|| self.next.fetch_add(1, Ordering::Relaxed));
        let (before, after) = self.pools.split_at(place.checked_rem(self.pools.len())?);
        let mut nearby = after.iter().chain(before);
        nearby.clone().find(|pool| pool.has_room()).or_else(|| nearby.next()).map(|pool| &pool.pool)
    }
}

#[derive(Debug)]
struct Pool {
    pool: bb8::Pool<Manager>,
    size: u32,
}

impl Pool {
    fn has_room(&self) -> bool {
        let state = self.pool.state();
        state.idle_connections > 0 || state.connections < self.size
    }
}

/// The connections of each pool: as many pools as there are threads, unless that leaves less than two for each.
fn parts(settings: &StoreSettings) -> impl Iterator<Item = u32> {
    let connections = settings.read_connections.max(1);
    let count = settings.threads.clamp(1, (connections / 2).max(1));
    (0..count).map(move |place| connections / count + u32::from(place < connections % count))
}

fn pool(url: &str, size: u32) -> bb8::Pool<Manager> {
    let mut config = ManagerConfig::default();
    config.recycling_method = RecyclingMethod::Fast;
    config.custom_setup = Box::new(|url| {
        let url = url.to_owned();
        Box::pin(async move {
            let mut connection = Connection::establish(&url).await?;
            let set = format!("SET idle_in_transaction_session_timeout = '{POOL_IDLE}'; {BY_KEY}");
            connection.batch_execute(&set).await.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
            Ok(connection)
        })
    });
    bb8::Pool::builder()
        .max_size(size)
        .connection_timeout(Duration::from_secs(4))
        .test_on_check_out(false)
        .build_unchecked(Manager::new_with_config(url, config))
}

impl Database {
    pub(crate) async fn open(url: &str, settings: &StoreSettings) -> Result<Self, StoreError> {
        let url = with_patience(url);
        let pools = Arc::new(Pools::new(&url, settings));
        let database = Self { url, pools, room: Room::default() };
        drop(database.read().await?);
        Ok(database)
    }

    pub(crate) async fn read(&self) -> Result<bb8::PooledConnection<'static, Manager>, StoreError> {
        let pool = self.pools.nearest().ok_or_else(|| StoreError::Unavailable("there is no pool".to_owned()))?;
        pool.get_owned().await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    pub(crate) async fn write(&self) -> Result<bb8::PooledConnection<'static, Manager>, StoreError> {
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
    fn connections_are_parted_and_none_is_added() {
        for (read_connections, threads, expected) in
            [(8, 3, vec![3, 3, 2]), (8, 1, vec![8]), (8, 17, vec![2, 2, 2, 2]), (3, 2, vec![3]), (1, 3, vec![1])]
        {
            assert_eq!(parts(&StoreSettings { read_connections, threads }).collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test]
    async fn a_thread_keeps_its_pool_and_others_have_others() {
        let settings = StoreSettings { read_connections: 6, threads: 3 };
        let pools = Pools::new("postgres://nobody@127.0.0.1:1/none", &settings);
        let place = || std::ptr::from_ref(pools.nearest().unwrap()).addr();
        let all = std::sync::Barrier::new(2);
        // A thread that has ended leaves its place to the next: both live.
        let other = || {
            let place = place();
            all.wait();
            place
        };
        let mut seen = vec![place()];
        assert_eq!(place(), seen[0]);
        std::thread::scope(|scope| {
            let others = [scope.spawn(other), scope.spawn(other)];
            seen.extend(others.map(|thread| thread.join().unwrap()));
        });
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3);
    }

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
