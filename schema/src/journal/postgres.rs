//! The batch on PostgreSQL: each step of rule D11 its own statement, each statement a whole array.
//!
//! One statement for lock, check and number would check against a snapshot older than its lock.

use crate::StoreError;
use crate::append::{self, Batch, Head, Known, Mark, MarkPlan, Outcome, Patience, Plan};
use crate::postgres::{Connection, sql};
use crate::types::{Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Binary, Nullable};
use diesel_async::{AsyncConnection, RunQueryDsl};
use sotto_protocol::{ConversationId, DeviceId, MessageId, Timestamp, UserId};
use std::collections::{BTreeSet, HashMap, HashSet};

#[derive(QueryableByName)]
struct HeadRow {
    #[diesel(sql_type = Uuid)]
    conversation_id: ConversationId,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    #[diesel(sql_type = BigInt)]
    membership_version: i64,
}

#[derive(QueryableByName)]
struct VersionRow {
    #[diesel(sql_type = Uuid)]
    conversation_id: ConversationId,
    #[diesel(sql_type = BigInt)]
    version: i64,
}

#[derive(QueryableByName)]
struct KnownRow {
    #[diesel(sql_type = Uuid)]
    conversation_id: ConversationId,
    #[diesel(sql_type = Uuid)]
    message_id: MessageId,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Nullable<Uuid>)]
    sender_user: Option<UserId>,
    #[diesel(sql_type = Moment)]
    created_at: Timestamp,
}

#[derive(QueryableByName)]
struct DeliveredRow {
    #[diesel(sql_type = Uuid)]
    conversation_id: ConversationId,
    #[diesel(sql_type = Uuid)]
    device_id: DeviceId,
    #[diesel(sql_type = BigInt)]
    delivered_up_to: i64,
    #[diesel(sql_type = BigInt)]
    delivered_version: i64,
    #[diesel(sql_type = BigInt)]
    receipts_seen: i64,
    #[diesel(sql_type = Moment)]
    delivered_at: Timestamp,
}

#[derive(QueryableByName)]
struct ReadRow {
    #[diesel(sql_type = Uuid)]
    conversation_id: ConversationId,
    #[diesel(sql_type = Uuid)]
    user_id: UserId,
    #[diesel(sql_type = BigInt)]
    read_up_to: i64,
    #[diesel(sql_type = BigInt)]
    read_version: i64,
    #[diesel(sql_type = Uuid)]
    read_by: DeviceId,
    #[diesel(sql_type = Moment)]
    read_at: Timestamp,
}

pub(super) async fn write(
    connection: &mut Connection,
    batch: &Batch,
    patience: Patience,
    now: Timestamp,
) -> Result<Outcome, StoreError> {
    connection
        .transaction(async |connection| {
            let plan = if batch.appends.is_empty() {
                Plan::default()
            } else {
                append(connection, batch, patience, now).await?
            };
            let marks = if batch.delivered.is_empty() && batch.reads.is_empty() {
                MarkPlan::default()
            } else {
                raise(connection, batch, patience, now).await?
            };
            if !batch.accounts.is_empty() {
                see_accounts(connection, batch, now).await?;
            }
            let wake = append::wake(&plan, &marks);
            if !wake.conversations.is_empty() {
                crate::postgres::queries::wakes::write(connection, &wake).await?;
            }
            Ok::<_, StoreError>(Outcome { appended: plan.appended, raised: marks.raised, skipped_marks: marks.skipped })
        })
        .await
}

#[derive(QueryableByName)]
struct LockedRow {
    #[diesel(sql_type = Uuid)]
    conversation_id: ConversationId,
}

/// Locks rows in id order and tells which ones it holds now.
async fn locked(
    connection: &mut Connection,
    text: &'static str,
    conversations: &[ConversationId],
) -> Result<HashSet<ConversationId>, StoreError> {
    Ok(sql(text)
        .bind::<Array<Uuid>, _>(conversations)
        .load::<LockedRow>(connection)
        .await?
        .into_iter()
        .map(|row| row.conversation_id)
        .collect())
}

async fn append(
    connection: &mut Connection,
    batch: &Batch,
    patience: Patience,
    now: Timestamp,
) -> Result<Plan, StoreError> {
    let conversations: Vec<ConversationId> =
        batch.appends.iter().map(|append| append.conversation_id).collect::<BTreeSet<_>>().into_iter().collect();
    let lock = match patience {
        Patience::Wait => {
            "SELECT conversation_id FROM heads WHERE conversation_id = ANY($1) \
             ORDER BY conversation_id FOR NO KEY UPDATE"
        }
        Patience::Skip => {
            "SELECT conversation_id FROM heads WHERE conversation_id = ANY($1) \
             ORDER BY conversation_id FOR NO KEY UPDATE SKIP LOCKED"
        }
    };
    let locked = locked(connection, lock, &conversations).await?;
    let mut heads: HashMap<ConversationId, Head> =
        sql("SELECT conversation_id, last_seq, membership_version FROM heads \
             WHERE conversation_id = ANY($1)")
        .bind::<Array<Uuid>, _>(&conversations)
        .load::<HeadRow>(connection)
        .await?
        .into_iter()
        .map(|row| {
            let head = Head {
                locked: locked.contains(&row.conversation_id),
                last_seq: row.last_seq,
                membership_version: row.membership_version,
                device_versions: 0,
            };
            (row.conversation_id, head)
        })
        .collect();
    let with_list: Vec<ConversationId> = batch
        .appends
        .iter()
        .filter(|append| append.device_versions.is_some())
        .map(|append| append.conversation_id)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if !with_list.is_empty() {
        let sums: Vec<VersionRow> = sql("SELECT m.conversation_id, SUM(u.device_version)::bigint AS version \
             FROM memberships m JOIN users u ON u.id = m.user_id \
             WHERE m.conversation_id = ANY($1) AND m.to_seq IS NULL GROUP BY m.conversation_id")
        .bind::<Array<Uuid>, _>(&with_list)
        .load(connection)
        .await?;
        for sum in sums {
            if let Some(head) = heads.get_mut(&sum.conversation_id) {
                head.device_versions = sum.version;
            }
        }
    }
    let ids: Vec<MessageId> = batch.appends.iter().map(|append| append.message_id).collect();
    let homes: Vec<ConversationId> = batch.appends.iter().map(|append| append.conversation_id).collect();
    let known = sql("SELECT m.conversation_id, m.message_id, m.seq, m.sender_user, m.created_at \
         FROM UNNEST($1, $2) AS asked (message_id, conversation_id) \
         JOIN messages m ON m.message_id = asked.message_id \
          AND m.conversation_id = asked.conversation_id")
    .bind::<Array<Uuid>, _>(&ids)
    .bind::<Array<Uuid>, _>(&homes)
    .load::<KnownRow>(connection)
    .await?
    .into_iter()
    .map(|row| {
        let known = Known { seq: row.seq, sender: row.sender_user, at: row.created_at };
        ((row.conversation_id, row.message_id), known)
    })
    .collect();
    let plan = append::plan(&batch.appends, &heads, known, now);
    if !plan.heads.is_empty() {
        insert(connection, batch, &plan, now).await?;
    }
    Ok(plan)
}

async fn insert(connection: &mut Connection, batch: &Batch, plan: &Plan, now: Timestamp) -> Result<(), StoreError> {
    let rows: Vec<(&append::Append, i64)> =
        plan.rows.iter().filter_map(|(index, seq)| Some((batch.appends.get(*index)?, *seq))).collect();
    macro_rules! column {
        ($field:expr) => {
            rows.iter().map($field).collect::<Vec<_>>()
        };
    }
    sql("INSERT INTO messages (conversation_id, seq, message_id, sender_user, sender_device, kind, \
         ciphertext, envelopes, reply_to, client_seq, expires_at, created_at, updated_at) \
         SELECT r.*, $12, $12 FROM UNNEST($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS r")
    .bind::<Array<Uuid>, _>(column!(|(append, _)| append.conversation_id))
    .bind::<Array<BigInt>, _>(column!(|(_, seq)| *seq))
    .bind::<Array<Uuid>, _>(column!(|(append, _)| append.message_id))
    .bind::<Array<Uuid>, _>(column!(|(append, _)| append.sender.user_id))
    .bind::<Array<Uuid>, _>(column!(|(append, _)| append.sender.device_id))
    .bind::<Array<Word>, _>(column!(|(append, _)| append.kind))
    .bind::<Array<Nullable<Binary>>, _>(column!(|(append, _)| append.ciphertext.as_deref()))
    .bind::<Array<Nullable<Binary>>, _>(column!(|(append, _)| append.envelopes.as_deref()))
    .bind::<Array<Nullable<Uuid>>, _>(column!(|(append, _)| append.reply_to))
    .bind::<Array<Nullable<BigInt>>, _>(column!(|(append, _)| append.client_seq))
    .bind::<Array<Nullable<Moment>>, _>(column!(|(append, _)| append.expires_at(now)))
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    sql("UPDATE heads SET last_seq = moved.last_seq, updated_at = $3 \
         FROM UNNEST($1, $2) AS moved (conversation_id, last_seq) \
         WHERE heads.conversation_id = moved.conversation_id")
    .bind::<Array<Uuid>, _>(plan.heads.keys().collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(plan.heads.values().collect::<Vec<_>>())
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    for (append, seq) in rows.iter().filter(|(append, _)| append.first_of_sender) {
        sql("UPDATE memberships SET first_sent_seq = $3, updated_at = $4 \
             WHERE conversation_id = $1 AND user_id = $2 AND to_seq IS NULL \
               AND first_sent_seq IS NULL")
        .bind::<Uuid, _>(append.conversation_id)
        .bind::<Uuid, _>(append.sender.user_id)
        .bind::<BigInt, _>(seq)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn raise(
    connection: &mut Connection,
    batch: &Batch,
    patience: Patience,
    now: Timestamp,
) -> Result<MarkPlan, StoreError> {
    let conversations: Vec<ConversationId> = batch
        .delivered
        .iter()
        .map(|mark| mark.conversation_id)
        .chain(batch.reads.iter().map(|mark| mark.conversation_id))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    // After the lock a statement of its own reads the versions: with a snapshot newer than the lock.
    let lock = match patience {
        Patience::Wait => {
            "SELECT conversation_id FROM receipts WHERE conversation_id = ANY($1) \
             ORDER BY conversation_id FOR NO KEY UPDATE"
        }
        Patience::Skip => {
            "SELECT conversation_id FROM receipts WHERE conversation_id = ANY($1) \
             ORDER BY conversation_id FOR NO KEY UPDATE SKIP LOCKED"
        }
    };
    let locked = locked(connection, lock, &conversations).await?;
    let skipped: Vec<ConversationId> =
        conversations.iter().copied().filter(|conversation| !locked.contains(conversation)).collect();
    let left: Batch;
    let batch = if skipped.is_empty() {
        batch
    } else {
        left = batch.marks_without(&skipped);
        &left
    };
    let versions: HashMap<ConversationId, i64> =
        sql("SELECT conversation_id, version FROM receipts WHERE conversation_id = ANY($1)")
            .bind::<Array<Uuid>, _>(&conversations)
            .load::<VersionRow>(connection)
            .await?
            .into_iter()
            .map(|row| (row.conversation_id, row.version))
            .collect();
    let delivered = if batch.delivered.is_empty() {
        HashMap::new()
    } else {
        let homes: Vec<_> = batch.delivered.iter().map(|mark| mark.conversation_id).collect();
        let devices: Vec<_> = batch.delivered.iter().map(|mark| mark.device_id).collect();
        sql("SELECT m.conversation_id, m.device_id, m.delivered_up_to, m.delivered_version, \
                    m.receipts_seen, m.delivered_at \
             FROM UNNEST($1, $2) AS asked (conversation_id, device_id) \
             JOIN marks m ON m.conversation_id = asked.conversation_id \
              AND m.device_id = asked.device_id")
        .bind::<Array<Uuid>, _>(homes)
        .bind::<Array<Uuid>, _>(devices)
        .load::<DeliveredRow>(connection)
        .await?
        .into_iter()
        .map(|row| {
            let mark = Mark {
                up_to: row.delivered_up_to,
                version: row.delivered_version,
                receipts_seen: row.receipts_seen,
                at: row.delivered_at,
            };
            ((row.conversation_id, row.device_id), mark)
        })
        .collect()
    };
    let reads = if batch.reads.is_empty() {
        HashMap::new()
    } else {
        let homes: Vec<_> = batch.reads.iter().map(|mark| mark.conversation_id).collect();
        let users: Vec<_> = batch.reads.iter().map(|mark| mark.user_id).collect();
        sql("SELECT r.conversation_id, r.user_id, r.read_up_to, r.read_version, r.read_by, r.read_at \
             FROM UNNEST($1, $2) AS asked (conversation_id, user_id) \
             JOIN reads r ON r.conversation_id = asked.conversation_id \
              AND r.user_id = asked.user_id")
        .bind::<Array<Uuid>, _>(homes)
        .bind::<Array<Uuid>, _>(users)
        .load::<ReadRow>(connection)
        .await?
        .into_iter()
        .map(|row| {
            let mark = Mark { up_to: row.read_up_to, version: row.read_version, receipts_seen: 0, at: row.read_at };
            ((row.conversation_id, row.user_id), (row.read_by, mark))
        })
        .collect()
    };
    let mut plan = append::plan_marks(batch, &versions, &delivered, &reads, now);
    plan.skipped = skipped;
    store_marks(connection, &plan, now).await?;
    Ok(plan)
}

async fn store_marks(connection: &mut Connection, plan: &MarkPlan, now: Timestamp) -> Result<(), StoreError> {
    if !plan.versions.is_empty() {
        sql("UPDATE receipts SET version = raised.version, updated_at = $3 \
             FROM UNNEST($1, $2) AS raised (conversation_id, version) \
             WHERE receipts.conversation_id = raised.conversation_id")
        .bind::<Array<Uuid>, _>(plan.versions.keys().collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(plan.versions.values().collect::<Vec<_>>())
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    }
    if !plan.delivered.is_empty() {
        let rows: Vec<_> = plan.delivered.iter().collect();
        macro_rules! column {
            ($field:expr) => {
                rows.iter().map($field).collect::<Vec<_>>()
            };
        }
        // A device that is being removed is waited for, and one that was removed gets no mark again: what is inserted
        // is decided by a snapshot newer than the lock.
        let mut devices: Vec<DeviceId> = plan.delivered.keys().map(|(_, device)| *device).collect();
        devices.sort_unstable();
        devices.dedup();
        sql("SELECT id FROM devices WHERE id = ANY($1) ORDER BY id FOR KEY SHARE")
            .bind::<Array<Uuid>, _>(devices)
            .execute(connection)
            .await?;
        sql("INSERT INTO marks (conversation_id, device_id, user_id, delivered_up_to, \
                delivered_version, receipts_seen, delivered_at, created_at, updated_at) \
             SELECT r.*, $8, $8 FROM UNNEST($1, $2, $3, $4, $5, $6, $7) \
                AS r (conversation_id, device_id, user_id, up_to, version, seen, at) \
             WHERE EXISTS (SELECT 1 FROM devices d WHERE d.id = r.device_id) \
             ON CONFLICT (conversation_id, device_id) DO UPDATE SET \
                delivered_up_to = GREATEST(marks.delivered_up_to, excluded.delivered_up_to), \
                delivered_version = GREATEST(marks.delivered_version, excluded.delivered_version), \
                receipts_seen = GREATEST(marks.receipts_seen, excluded.receipts_seen), \
                delivered_at = excluded.delivered_at, updated_at = excluded.updated_at")
        .bind::<Array<Uuid>, _>(column!(|((conversation, _), _)| *conversation))
        .bind::<Array<Uuid>, _>(column!(|((_, device), _)| *device))
        .bind::<Array<Uuid>, _>(column!(|(_, (user, _))| *user))
        .bind::<Array<BigInt>, _>(column!(|(_, (_, mark))| mark.up_to))
        .bind::<Array<BigInt>, _>(column!(|(_, (_, mark))| mark.version))
        .bind::<Array<BigInt>, _>(column!(|(_, (_, mark))| mark.receipts_seen))
        .bind::<Array<Moment>, _>(column!(|(_, (_, mark))| mark.at))
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    }
    if !plan.reads.is_empty() {
        let rows: Vec<_> = plan.reads.iter().collect();
        macro_rules! column {
            ($field:expr) => {
                rows.iter().map($field).collect::<Vec<_>>()
            };
        }
        sql("INSERT INTO reads (conversation_id, user_id, read_up_to, read_version, read_by, read_at, \
                created_at, updated_at) \
             SELECT r.*, $7, $7 FROM UNNEST($1, $2, $3, $4, $5, $6) AS r \
             ON CONFLICT (conversation_id, user_id) DO UPDATE SET \
                read_up_to = GREATEST(reads.read_up_to, excluded.read_up_to), \
                read_version = GREATEST(reads.read_version, excluded.read_version), \
                read_by = excluded.read_by, read_at = excluded.read_at, \
                updated_at = excluded.updated_at")
        .bind::<Array<Uuid>, _>(column!(|((conversation, _), _)| *conversation))
        .bind::<Array<Uuid>, _>(column!(|((_, user), _)| *user))
        .bind::<Array<BigInt>, _>(column!(|(_, (_, mark))| mark.up_to))
        .bind::<Array<BigInt>, _>(column!(|(_, (_, mark))| mark.version))
        .bind::<Array<Uuid>, _>(column!(|(_, (device, _))| *device))
        .bind::<Array<Moment>, _>(column!(|(_, (_, mark))| mark.at))
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn see_accounts(connection: &mut Connection, batch: &Batch, now: Timestamp) -> Result<(), StoreError> {
    let mut marks = batch.accounts.clone();
    marks.sort_unstable_by_key(|mark| mark.device_id);
    for mark in marks {
        sql("UPDATE devices SET account_seen = $2, updated_at = $3 \
             WHERE id = $1 AND account_seen < $2")
        .bind::<Uuid, _>(mark.device_id)
        .bind::<BigInt, _>(mark.seen)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
        sql(append::FORGET_ACCOUNT_EVENTS).bind::<Uuid, _>(mark.device_id).execute(connection).await?;
    }
    Ok(())
}
