//! How many users one user may notify: each notice is a write into somebody else's log.

use super::*;
use crate::bucket;
use crate::rows::sign_in::Reached;
use sotto_protocol::{Timestamp, UserId};
use std::time::Duration;

const KIND: &str = "notified_users";
const HOUR: Duration = Duration::from_secs(3600);

/// Takes a number of notices from a user's hourly budget, in the caller's transaction. Returns `Some` with the limit if it is
/// reached; nothing is taken then. A change that notifies more users than the whole limit takes all of it, so that it
/// stays possible.
pub async fn take(
    connection: &mut Connection,
    user: UserId,
    count: usize,
    per_hour: Option<u32>,
    now: Timestamp,
) -> Result<Option<Reached>, StoreError> {
    let Some(most) = per_hour else {
        return Ok(None);
    };
    let count = u32::try_from(count).unwrap_or(u32::MAX).min(most);
    let cost = HOUR.saturating_mul(count).checked_div(most).unwrap_or(HOUR);
    let moments = allowances::lock(connection, KIND, user.as_bytes(), now).await?;
    match bucket::take(moments.last().copied().unwrap_or(now), cost, HOUR, now) {
        Ok(full_at) => {
            allowances::write(connection, KIND, user.as_bytes(), &[full_at], full_at.since(now), now).await?;
            Ok(None)
        }
        Err(wait) => Ok(Some(Reached { kind: KIND, most, span: HOUR, wait })),
    }
}
