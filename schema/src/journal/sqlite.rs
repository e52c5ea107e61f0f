//! The batch on SQLite: the steps of rule D11 under `BEGIN IMMEDIATE`, in one visit to the thread
//! that may block. The write lock of the file takes the place of the row locks.

use crate::StoreError;
use crate::append::{self, Batch, Head, Known, Mark, MarkPlan, Outcome, Plan};
use crate::sqlite::sql;
use crate::types::{Moment, Uuid, Word};
use diesel::connection::LoadConnection;
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::query_dsl::methods::{ExecuteDsl, LoadQuery};
use diesel::sql_types::{BigInt, Binary, Nullable};
use diesel::sqlite::{Sqlite, SqliteConnection};
use diesel::{OptionalExtension, QueryableByName};
use sotto_protocol::{ConversationId, DeviceId, Timestamp, UserId};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

#[derive(QueryableByName)]
struct HeadRow {
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    #[diesel(sql_type = BigInt)]
    membership_version: i64,
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct KnownRow {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Nullable<Uuid>)]
    sender_user: Option<UserId>,
    #[diesel(sql_type = Moment)]
    created_at: Timestamp,
}

#[derive(QueryableByName)]
struct MarkRow {
    #[diesel(sql_type = BigInt)]
    up_to: i64,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = BigInt)]
    receipts_seen: i64,
    #[diesel(sql_type = Moment)]
    at: Timestamp,
}

#[derive(QueryableByName)]
struct ReadRow {
    #[diesel(sql_type = Uuid)]
    read_by: DeviceId,
    #[diesel(sql_type = BigInt)]
    up_to: i64,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Moment)]
    at: Timestamp,
}

fn run<Q>(connection: &mut SqliteConnection, query: Q) -> Result<usize, StoreError>
where
    Q: QueryFragment<Sqlite> + QueryId,
    Q: ExecuteDsl<SqliteConnection, Sqlite>,
{
    Ok(ExecuteDsl::execute(query, connection)?)
}

fn first<'q, Q, R>(connection: &mut SqliteConnection, query: Q) -> Result<Option<R>, StoreError>
where
    Q: LoadQuery<'q, SqliteConnection, R> + 'q,
    SqliteConnection: LoadConnection,
{
    let mut rows = query.internal_load(connection)?;
    Ok(rows.next().transpose().optional()?.flatten())
}

pub(super) fn write(connection: &mut SqliteConnection, batch: &Batch, now: Timestamp) -> Result<Outcome, StoreError> {
    connection.immediate_transaction(|connection| {
        let plan = append(connection, batch, now)?;
        let marks = raise(connection, batch, now)?;
        for mark in &batch.accounts {
            run(
                connection,
                sql("UPDATE devices SET account_seen = $2, updated_at = $3 \
                     WHERE id = $1 AND account_seen < $2")
                .bind::<Uuid, _>(mark.device_id)
                .bind::<BigInt, _>(mark.seen)
                .bind::<Moment, _>(now),
            )?;
            run(connection, sql(append::FORGET_ACCOUNT_EVENTS).bind::<Uuid, _>(mark.device_id))?;
        }
        let wake = append::wake(&plan, &marks);
        if !wake.conversations.is_empty() {
            run(
                connection,
                sql("INSERT INTO wakes (xid, body, created_at, updated_at) VALUES (0, $1, $2, $2)")
                    .bind::<Binary, _>(wake.to_bytes())
                    .bind::<Moment, _>(now),
            )?;
        }
        let outcome = Outcome { appended: plan.appended, raised: marks.raised, skipped_marks: Vec::new() };
        #[cfg(feature = "planted-bugs")]
        crate::planted::answer_early(&outcome);
        Ok(outcome)
    })
}

fn head(connection: &mut SqliteConnection, conversation: ConversationId) -> Result<Option<Head>, StoreError> {
    let row: Option<HeadRow> = first(
        connection,
        sql("SELECT last_seq, membership_version FROM heads WHERE conversation_id = $1").bind::<Uuid, _>(conversation),
    )?;
    Ok(row.map(|row| Head {
        locked: true,
        last_seq: row.last_seq,
        membership_version: row.membership_version,
        device_versions: 0,
    }))
}

fn device_versions(connection: &mut SqliteConnection, conversation: ConversationId) -> Result<i64, StoreError> {
    let row: Option<NumberRow> = first(
        connection,
        sql("SELECT COALESCE(SUM(u.device_version), 0) AS number \
             FROM memberships m JOIN users u ON u.id = m.user_id \
             WHERE m.conversation_id = $1 AND m.to_seq IS NULL")
        .bind::<Uuid, _>(conversation),
    )?;
    Ok(row.map_or(0, |row| row.number))
}

fn append(connection: &mut SqliteConnection, batch: &Batch, now: Timestamp) -> Result<Plan, StoreError> {
    let mut heads = HashMap::new();
    let mut summed = HashSet::new();
    let mut known = HashMap::new();
    for append in &batch.appends {
        let conversation = append.conversation_id;
        if let Entry::Vacant(place) = heads.entry(conversation)
            && let Some(head) = head(connection, conversation)?
        {
            place.insert(head);
        }
        if append.device_versions.is_some()
            && summed.insert(conversation)
            && let Some(head) = heads.get_mut(&conversation)
        {
            head.device_versions = device_versions(connection, conversation)?;
        }
        let earlier: Option<KnownRow> = first(
            connection,
            sql("SELECT seq, sender_user, created_at FROM messages \
                 WHERE message_id = $1 AND conversation_id = $2")
            .bind::<Uuid, _>(append.message_id)
            .bind::<Uuid, _>(conversation),
        )?;
        if let Some(row) = earlier {
            known.insert(
                (conversation, append.message_id),
                Known { seq: row.seq, sender: row.sender_user, at: row.created_at },
            );
        }
    }
    let plan = append::plan(&batch.appends, &heads, known, now);
    for (index, seq) in &plan.rows {
        let Some(append) = batch.appends.get(*index) else {
            continue;
        };
        run(
            connection,
            sql("INSERT INTO messages (conversation_id, seq, message_id, sender_user, \
                 sender_device, kind, ciphertext, envelopes, reply_to, client_seq, expires_at, \
                 created_at, updated_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)")
            .bind::<Uuid, _>(append.conversation_id)
            .bind::<BigInt, _>(*seq)
            .bind::<Uuid, _>(append.message_id)
            .bind::<Uuid, _>(append.sender.user_id)
            .bind::<Uuid, _>(append.sender.device_id)
            .bind::<Word, _>(append.kind)
            .bind::<Nullable<Binary>, _>(append.ciphertext.as_deref())
            .bind::<Nullable<Binary>, _>(append.envelopes.as_deref())
            .bind::<Nullable<Uuid>, _>(append.reply_to)
            .bind::<Nullable<BigInt>, _>(append.client_seq)
            .bind::<Nullable<Moment>, _>(append.expires_at(now))
            .bind::<Moment, _>(now),
        )?;
        if append.first_of_sender {
            run(
                connection,
                sql("UPDATE memberships SET first_sent_seq = $3, updated_at = $4 \
                     WHERE conversation_id = $1 AND user_id = $2 AND to_seq IS NULL \
                       AND first_sent_seq IS NULL")
                .bind::<Uuid, _>(append.conversation_id)
                .bind::<Uuid, _>(append.sender.user_id)
                .bind::<BigInt, _>(*seq)
                .bind::<Moment, _>(now),
            )?;
        }
    }
    for (conversation, last_seq) in &plan.heads {
        run(
            connection,
            sql("UPDATE heads SET last_seq = $2, updated_at = $3 WHERE conversation_id = $1")
                .bind::<Uuid, _>(*conversation)
                .bind::<BigInt, _>(*last_seq)
                .bind::<Moment, _>(now),
        )?;
    }
    Ok(plan)
}

fn raise(connection: &mut SqliteConnection, batch: &Batch, now: Timestamp) -> Result<MarkPlan, StoreError> {
    let conversations: BTreeSet<_> = batch
        .delivered
        .iter()
        .map(|mark| mark.conversation_id)
        .chain(batch.reads.iter().map(|mark| mark.conversation_id))
        .collect();
    let mut versions = HashMap::new();
    for conversation in conversations {
        let row: Option<NumberRow> = first(
            connection,
            sql("SELECT version AS number FROM receipts WHERE conversation_id = $1").bind::<Uuid, _>(conversation),
        )?;
        if let Some(row) = row {
            versions.insert(conversation, row.number);
        }
    }
    let mut delivered = HashMap::new();
    for mark in &batch.delivered {
        let row: Option<MarkRow> = first(
            connection,
            sql("SELECT delivered_up_to AS up_to, delivered_version AS version, receipts_seen, \
                 delivered_at AS at FROM marks WHERE conversation_id = $1 AND device_id = $2")
            .bind::<Uuid, _>(mark.conversation_id)
            .bind::<Uuid, _>(mark.device_id),
        )?;
        if let Some(row) = row {
            delivered.insert((mark.conversation_id, mark.device_id), stored(&row));
        }
    }
    let mut reads = HashMap::new();
    for mark in &batch.reads {
        let row: Option<ReadRow> = first(
            connection,
            sql("SELECT read_by, read_up_to AS up_to, read_version AS version, read_at AS at FROM reads WHERE conversation_id = $1 AND user_id = $2")
            .bind::<Uuid, _>(mark.conversation_id)
            .bind::<Uuid, _>(mark.user_id),
        )?;
        if let Some(row) = row {
            let stored = Mark { up_to: row.up_to, version: row.version, receipts_seen: 0, at: row.at };
            reads.insert((mark.conversation_id, mark.user_id), (row.read_by, stored));
        }
    }
    let plan = append::plan_marks(batch, &versions, &delivered, &reads, now);
    store_marks(connection, &plan, now)?;
    Ok(plan)
}

const fn stored(row: &MarkRow) -> Mark {
    Mark { up_to: row.up_to, version: row.version, receipts_seen: row.receipts_seen, at: row.at }
}

fn store_marks(connection: &mut SqliteConnection, plan: &MarkPlan, now: Timestamp) -> Result<(), StoreError> {
    for (conversation, version) in &plan.versions {
        run(
            connection,
            sql("UPDATE receipts SET version = $2, updated_at = $3 WHERE conversation_id = $1")
                .bind::<Uuid, _>(*conversation)
                .bind::<BigInt, _>(*version)
                .bind::<Moment, _>(now),
        )?;
    }
    for ((conversation, device), (user, mark)) in &plan.delivered {
        // A device that was removed meanwhile gets no mark again.
        run(
            connection,
            sql("INSERT INTO marks (conversation_id, device_id, user_id, delivered_up_to, \
                    delivered_version, receipts_seen, delivered_at, created_at, updated_at) \
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $8 \
                 WHERE EXISTS (SELECT 1 FROM devices WHERE id = $2) \
                 ON CONFLICT (conversation_id, device_id) DO UPDATE SET \
                    delivered_up_to = MAX(delivered_up_to, excluded.delivered_up_to), \
                    delivered_version = MAX(delivered_version, excluded.delivered_version), \
                    receipts_seen = MAX(receipts_seen, excluded.receipts_seen), \
                    delivered_at = excluded.delivered_at, updated_at = excluded.updated_at")
            .bind::<Uuid, _>(*conversation)
            .bind::<Uuid, _>(*device)
            .bind::<Uuid, _>(*user)
            .bind::<BigInt, _>(mark.up_to)
            .bind::<BigInt, _>(mark.version)
            .bind::<BigInt, _>(mark.receipts_seen)
            .bind::<Moment, _>(mark.at)
            .bind::<Moment, _>(now),
        )?;
    }
    for ((conversation, user), (device, mark)) in &plan.reads {
        run(
            connection,
            sql("INSERT INTO reads (conversation_id, user_id, read_up_to, read_version, read_by, \
                    read_at, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7) \
                 ON CONFLICT (conversation_id, user_id) DO UPDATE SET \
                    read_up_to = MAX(read_up_to, excluded.read_up_to), \
                    read_version = MAX(read_version, excluded.read_version), \
                    read_by = excluded.read_by, read_at = excluded.read_at, \
                    updated_at = excluded.updated_at")
            .bind::<Uuid, _>(*conversation)
            .bind::<Uuid, _>(*user)
            .bind::<BigInt, _>(mark.up_to)
            .bind::<BigInt, _>(mark.version)
            .bind::<Uuid, _>(*device)
            .bind::<Moment, _>(mark.at)
            .bind::<Moment, _>(now),
        )?;
    }
    Ok(())
}
