//! Answers that are kept for the same `Idempotency-Key`.

use crate::rows::idempotency::{IdempotencyClaim, IdempotencySlot};
use sotto_protocol::Timestamp;

super::facade! {
    /// Takes a key for a request that begins now, or tells what is there. What was made before
    /// `expired`, or before `abandoned` and has no answer, counts as absent.
    write fn claim_idempotency(slot: IdempotencySlot, body_hash: Vec<u8>, now: Timestamp, abandoned: Timestamp, expired: Timestamp) -> IdempotencyClaim = idempotency::claim;
    /// Keeps the answer of the request that claimed the key at this moment.
    write fn keep_idempotent(slot: IdempotencySlot, claimed_at: Timestamp, status: i64, answer: Vec<u8>, now: Timestamp) -> () = idempotency::keep;
    /// Frees the key of a request that failed.
    write fn release_idempotency(slot: IdempotencySlot, claimed_at: Timestamp) -> () = idempotency::release;
    /// Removes keys older than a moment.
    write fn prune_idempotency(before: Timestamp) -> usize = idempotency::prune;
}
