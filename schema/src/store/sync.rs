//! What a device reads to catch up.
//!
//! Where many devices have fallen behind, it is not the database that they wait for: each statement's way there and back
//! takes its turns with everything else that a busy thread does. So on PostgreSQL what has come meanwhile goes together, at
//! once on one connection: see `gather.rs`.

use crate::append::Wake;
use crate::gather::Gather;
use crate::postgres::queries;
use crate::rows::{BacklogRow, MessageRow, ReceiptRow};
use crate::store::Backend;
use crate::{Store, StoreError};
use futures::future::join_all;
use sotto_protocol::{ConversationId, DeviceId, Seq, UserId};
use std::sync::Arc;
use std::time::Instant;
use thread_local::ThreadLocal;

/// Connections of one thread on which devices read the same kind of thing at the same time.
const LANES: usize = 2;
/// Devices that read on one connection at once: each may ask for a quarter of a MiB.
const MOST: usize = 16;

super::facade! {
    /// [`Store::place`], alone.
    read fn read_place(user: UserId, device: DeviceId, conversation: ConversationId) -> Option<BacklogRow> = sync::place;
    /// [`Store::messages`], alone.
    read fn read_messages(conversation: ConversationId, user: UserId, after: Seq, up_to: Seq, limit: i64) -> Vec<MessageRow> = sync::messages;
    /// [`Store::receipts`], alone.
    read fn read_receipts(conversation: ConversationId, user: UserId, device: DeviceId, after: i64, limit: i64) -> Vec<ReceiptRow> = sync::receipts;
    /// The wakes since a position, and the next position.
    read fn wakes_since(position: i64) -> (Vec<Wake>, i64) = wakes::since;
    /// Who is or ever was a member of these conversations.
    read fn readers(conversations: Vec<ConversationId>) -> Vec<(ConversationId, UserId)> = wakes::readers;
    /// Where a sweep that starts now begins.
    read fn wakes_position() -> i64 = wakes::position;
    /// Removes wakes of more than ten minutes ago.
    write fn prune_wakes() -> usize = wakes::prune;
}

/// Declares methods of [`Store`] whose questions go together on PostgreSQL, each thread's for itself as its connections are
/// (`postgres/pools.rs`).
macro_rules! together {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $alone:ident;)*) => {
        /// What waits to be read, for each thread.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Reads {
            $($name: Arc<ThreadLocal<Gather<($($ty),*), (), $ret>>>,)*
        }

        impl Store {
            $(
                $(#[$meta])*
                ///
                /// # Errors
                /// The database failed.
                pub async fn $name(&self, $($arg: $ty),*) -> Result<$ret, StoreError> {
                    let Backend::Postgres(database) = self.backend.clone() else {
                        return self.$alone($($arg),*).await;
                    };
                    let run = move |asked: Vec<(($($ty),*), ())>| {
                        let database = database.clone();
                        async move {
                            let began = Instant::now();
                            let connection = database.read().await?;
                            let connection = &*connection;
                            let all = asked.into_iter().map(|(question, ())| async move {
                                let ($($arg),*) = question;
                                Ok((question, queries::sync::$name(connection, $($arg),*).await?))
                            });
                            let found = join_all(all).await.into_iter().collect();
                            metrics::histogram!("sotto_db_seconds", "query" => stringify!($alone))
                                .record(began.elapsed().as_secs_f64());
                            found
                        }
                    };
                    let waiting = self.reads.$name.get_or(|| Gather::new(LANES, MOST));
                    let found = waiting.ask(($($arg),*), (), run).await?;
                    found.ok_or_else(|| StoreError::Unavailable("a read brought no answer".to_owned()))
                }
            )*
        }
    };
}

together! {
    /// Where a device stands in one conversation; `None`: its user never was a member.
    fn place(user: UserId, device: DeviceId, conversation: ConversationId) -> Option<BacklogRow> = read_place;
    /// The messages of a range (after, up to] that a user may see, ascending.
    fn messages(conversation: ConversationId, user: UserId, after: Seq, up_to: Seq, limit: i64) -> Vec<MessageRow> = read_messages;
    /// The receipts of a conversation after a version that concern a device, oldest first.
    fn receipts(conversation: ConversationId, user: UserId, device: DeviceId, after: i64, limit: i64) -> Vec<ReceiptRow> = read_receipts;
}
