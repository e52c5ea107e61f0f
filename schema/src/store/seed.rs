//! Users by the thousand, for load tools.

use crate::rows::seed::Seed;
use sotto_protocol::Timestamp;

super::facade! {
    /// Stores users with one signed-in device each and their conversations, all or nothing.
    write fn seed(seed: Seed, now: Timestamp) -> () = seed::seed;
}
