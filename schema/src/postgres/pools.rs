//! The connections for what may run beside other work, parted among threads and lent to one caller after another.

use super::{BY_KEY, Connection};
use crate::{StoreError, StoreSettings};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use thread_local::ThreadLocal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type Manager = AsyncDieselConnectionManager<Connection>;

/// How long a caller waits for a connection.
const WAIT: Duration = Duration::from_secs(4);
/// A node that is frozen or cut off in the middle of a transaction keeps what it has locked; after so long PostgreSQL ends
/// the session.
const IDLE: &str = "5s";

/// Connections, parted among threads. Each is driven by the thread that opened it: whoever waits on another for its
/// answers wakes two threads for every few KiB of them. What one thread does not use is there for the others, and who has
/// to wait gets whichever comes free first, in the order in which they asked.
#[derive(Debug)]
pub(super) struct Pools {
    parts: Vec<Arc<Part>>,
    /// In the order in which threads came.
    places: ThreadLocal<usize>,
    next: AtomicUsize,
    /// One permit for each connection of all parts.
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Part {
    pool: bb8::Pool<Manager>,
    /// Connections that nobody has; some are not open yet.
    free: AtomicU32,
}

impl Pools {
    pub(super) fn new(url: &str, settings: &StoreSettings) -> Self {
        let part = |size| Arc::new(Part { pool: pool(url, size), free: AtomicU32::new(size) });
        let permits = sizes(settings).map(|size| usize::try_from(size).unwrap_or(usize::MAX)).sum();
        Self {
            parts: sizes(settings).map(part).collect(),
            places: ThreadLocal::new(),
            next: AtomicUsize::new(0),
            permits: Arc::new(Semaphore::new(permits)),
        }
    }

    /// Lends a connection: of the calling thread's part while it has one, else of another's.
    ///
    /// # Errors
    ///
    /// None came free in four seconds, or none could be opened.
    pub(super) async fn get(&self) -> Result<Lent, StoreError> {
        let lent = async {
            let place = self.place().await?;
            let connection = place.part.pool.get_owned().await;
            Ok(Lent { connection: connection.map_err(unavailable)?, _place: place })
        };
        tokio::time::timeout(WAIT, lent).await.unwrap_or_else(|_| Err(unavailable("no connection came free")))
    }

    /// Waits for its turn, and takes the nearest connection that is free then.
    async fn place(&self) -> Result<Place, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(unavailable)?;
        let own = *self.places.get_or(|| self.next.fetch_add(1, Ordering::Relaxed));
        let (before, after) = self.parts.split_at(own.checked_rem(self.parts.len()).unwrap_or_default());
        // A permit stands for a free connection, as counts are raised before permits go back. Only others that take and
        // return just now can hide it.
        let part = loop {
            if let Some(part) = after.iter().chain(before).find(|part| part.take()) {
                break part;
            }
            std::hint::spin_loop();
        };
        Ok(Place { part: Arc::clone(part), _permit: permit })
    }
}

impl Part {
    fn take(&self) -> bool {
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1)).is_ok()
    }
}

/// The right to one connection of a part.
#[derive(Debug)]
struct Place {
    part: Arc<Part>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.part.free.fetch_add(1, Ordering::AcqRel);
    }
}

/// A connection that goes back when it is dropped.
pub(crate) struct Lent {
    // Goes back before its place does.
    connection: bb8::PooledConnection<'static, Manager>,
    _place: Place,
}

impl Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

fn unavailable(reason: impl ToString) -> StoreError {
    StoreError::Unavailable(reason.to_string())
}

/// The connections of each part: as many parts as there are threads, unless that leaves less than two for each.
fn sizes(settings: &StoreSettings) -> impl Iterator<Item = u32> {
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
            let set = format!("SET idle_in_transaction_session_timeout = '{IDLE}'; {BY_KEY}");
            connection.batch_execute(&set).await.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
            Ok(connection)
        })
    });
    bb8::Pool::builder()
        .max_size(size)
        .connection_timeout(WAIT)
        .test_on_check_out(false)
        .build_unchecked(Manager::new_with_config(url, config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn pools(read_connections: u32, threads: u32) -> Pools {
        Pools::new("postgres://nobody@127.0.0.1:1/none", &StoreSettings { read_connections, threads })
    }

    /// Which part a place is of.
    fn part(pools: &Pools, place: &Place) -> usize {
        pools.parts.iter().position(|part| Arc::ptr_eq(part, &place.part)).unwrap()
    }

    #[test]
    fn connections_are_parted_and_none_is_added() {
        for (read_connections, threads, expected) in
            [(8, 3, vec![3, 3, 2]), (8, 1, vec![8]), (8, 17, vec![2, 2, 2, 2]), (3, 2, vec![3]), (1, 3, vec![1])]
        {
            assert_eq!(sizes(&StoreSettings { read_connections, threads }).collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test]
    async fn a_thread_keeps_its_part_and_others_have_others() {
        let pools = pools(6, 3);
        let own = || part(&pools, &pools.place().now_or_never().unwrap().unwrap());
        let all = std::sync::Barrier::new(2);
        // A thread that has ended leaves its place to the next: both live.
        let other = || {
            let own = own();
            all.wait();
            own
        };
        let mut seen = vec![own()];
        assert_eq!(own(), seen[0]);
        std::thread::scope(|scope| {
            let others = [scope.spawn(other), scope.spawn(other)];
            seen.extend(others.map(|thread| thread.join().unwrap()));
        });
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }

    #[tokio::test]
    async fn who_waits_gets_what_comes_free_first_wherever_and_in_turn() {
        let pools = pools(5, 2);
        let mut taken: Vec<_> = (0..5).map(|_| pools.place().now_or_never().unwrap().unwrap()).collect();
        // The own ones first.
        assert_eq!(taken.iter().map(|place| part(&pools, place)).collect::<Vec<_>>(), [0, 0, 0, 1, 1]);
        let (mut first, mut second) = (Box::pin(pools.place()), Box::pin(pools.place()));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(taken.pop());
        // Who comes now stands behind who has waited.
        assert!(pools.place().now_or_never().is_none() && (&mut second).now_or_never().is_none());
        assert_eq!(part(&pools, &first.now_or_never().unwrap().unwrap()), 1);
        drop(taken.remove(0));
        assert!(second.now_or_never().is_some());
    }
}
