//! Locks on the database that a test holds, and who waits for them.

use super::database::connect;
use super::node::TestNode;
use super::wire::PATIENCE;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// A transaction of the test's own that is open, with the locks that its statement took.
pub struct Held(Client);

impl Held {
    pub async fn by(node: &TestNode, statement: &str) -> Self {
        let client = connect(&node.store_url).await;
        client.batch_execute(&format!("BEGIN; {statement}")).await.expect("the lock is free");
        Self(client)
    }

    /// Waits until so many connections stand before a lock.
    pub async fn blocks(&self, count: i64) {
        waiting_for_locks(&self.0, count).await;
    }

    pub async fn release(self) {
        self.0.batch_execute("COMMIT").await.expect("released");
    }
}

/// Waits until so many others wait for a lock.
pub async fn waiting_for_locks(look: &Client, count: i64) {
    let begun = Instant::now();
    let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    loop {
        // Within a transaction, what was seen of others once is shown for ever.
        look.batch_execute("SELECT pg_stat_clear_snapshot()").await.expect("forgotten");
        if look.query_one(text, &[]).await.expect("a count").get::<_, i64>(0) >= count {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody waits for the lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
