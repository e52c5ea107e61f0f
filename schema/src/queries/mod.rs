//! All queries, one file per table family. Compiled once per database: see the package's head.

use super::{Connection, sql};
use crate::StoreError;

pub mod account_log;
pub mod conversations;
pub mod meta;
pub mod sync;
pub mod wakes;
