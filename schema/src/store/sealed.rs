//! Sealed cells, for whoever rotates the keys.

use crate::rows::sealed::{Reseal, SealedColumn, SealedCount, SealedRow};
use sotto_protocol::Timestamp;

super::facade! {
    /// The next cells after a row that are sealed with another key than this one, in order of their rows.
    read fn sealed_with_others(column: SealedColumn, key_id: String, after: uuid::Uuid, most: i64) -> Vec<SealedRow> = sealed::page;
    /// Puts cells in the place of others, each only if that one is still there. Returns how many.
    write fn reseal(column: SealedColumn, cells: Vec<Reseal>, now: Timestamp) -> usize = sealed::reseal;
    /// How many cells of a column each key has sealed.
    read fn sealed_counts(column: SealedColumn) -> Vec<SealedCount> = sealed::counts;
}
