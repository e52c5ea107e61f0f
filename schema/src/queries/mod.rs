//! All queries, one file per table family. Compiled once per database: see the package's head.

use super::{Connection, sql};
use crate::StoreError;

pub mod account_log;
pub mod allowances;
pub mod conversations;
pub mod devices;
pub mod idempotency;
pub mod keys;
pub mod meta;
pub mod nodes;
pub mod seed;
pub mod sign_in;
pub mod sync;
pub mod wakes;
