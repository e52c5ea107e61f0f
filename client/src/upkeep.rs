//! Keys upkeep: one-time keys in stock, a fallback key that is not old.

use crate::client::Client;
use crate::crypto::account;
use crate::error::Result;
use sotto_protocol::Timestamp;
use std::time::Duration;

/// Below this the stock is filled up.
const LOW: i64 = 50;
/// Up to this.
const FULL: i64 = 100;
/// The fallback key is replaced this long before it counts as expired.
const EARLY: Duration = Duration::from_secs(24 * 3600);
/// But not more often than so, because only the one before it still decrypts.
const LEAST_AGE: Duration = Duration::from_secs(3600);

impl Client {
    /// Looks at the stock of keys on the server and fills it. Runs by itself after connecting and
    /// when the server says that keys run low.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn maintain_keys(&self) -> Result<()> {
        let _one_at_a_time = self.inner.maintaining.lock().await;
        let count = self.call(|rest| async move { rest.key_count().await }).await?;
        let wanted = if count.one_time_prekeys < LOW { FULL - count.one_time_prekeys.max(0) } else { 0 };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let made_at = self.inner.store.run(account::fallback_made_at).await?;
        let now = Timestamp::now();
        let old = now.plus(EARLY) >= count.signed_prekey_expires_at && now.since(made_at) >= LEAST_AGE;
        let keys = self.inner.store.run(move |tx| account::refill(tx, wanted, old)).await?;
        if keys.one_time_prekeys.is_none() && keys.signed_prekey.is_none() {
            return Ok(());
        }
        let keys = &keys;
        self.call(|rest| async move { rest.put_keys(keys).await }).await?;
        self.inner.store.run(account::mark_published).await
    }

    /// The same beside everything else; failing, it is tried again with the next connection.
    pub(crate) fn maintain_keys_soon(&self) {
        let client = self.unguarded();
        tokio::spawn(async move {
            if let Err(error) = client.maintain_keys().await {
                tracing::debug!(%error, "keys could not be looked after");
            }
        });
    }
}
