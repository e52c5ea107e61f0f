//! The store's own row.

use sotto_protocol::Timestamp;

super::facade! {
    /// The store's generation; a new one means that history went back (rule D13).
    write fn epoch() -> uuid::Uuid = meta::epoch;
    /// Gives the store a new generation after its history went back, and drops the one-time keys, codes and wakes that
    /// would come to life a second time. For the time between a restore and the start of the first node: a node that
    /// runs does not notice.
    write fn new_epoch(now: Timestamp) -> uuid::Uuid = meta::new_epoch;
    /// Keeps the fingerprint of the secret keys at the first start, and returns the kept one.
    write fn claim_fingerprint(fingerprint: String) -> String = meta::claim_fingerprint;
    /// Whether a commit can be made and read back.
    write fn commits(now: Timestamp) -> bool = meta::probe;
}
