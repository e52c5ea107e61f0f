//! The trail of an account, as the store gives and takes it.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Text};
use sotto_protocol::trail::TrailEvent;

/// What is to be told in a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// What.
    pub event: TrailEvent,
    /// From which address, where that is known and kept.
    pub address: Option<String>,
}

impl From<TrailEvent> for Happened {
    fn from(event: TrailEvent) -> Self {
        Self { event, address: None }
    }
}

#[derive(QueryableByName)]
pub(crate) struct HeadRow {
    #[diesel(sql_type = BigInt)]
    pub seq: i64,
    #[diesel(sql_type = Binary)]
    pub hash: Vec<u8>,
}

#[derive(QueryableByName)]
pub(crate) struct ItemRow {
    #[diesel(sql_type = BigInt)]
    pub seq: i64,
    #[diesel(sql_type = Text)]
    pub entry: String,
    #[diesel(sql_type = Binary)]
    pub hash: Vec<u8>,
}
