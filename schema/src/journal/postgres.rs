//! The batch on PostgreSQL: each step of rule D11 its own statement, each statement a whole array, two round trips in all.
//!
//! One statement for lock, check and number would check against a snapshot older than its lock. So the steps stand in two
//! functions (`migrations/postgres/…_journal`), whose statements have a snapshot each: `journal_look` locks and reads,
//! [`append`] decides here, as on SQLite, and `journal_keep` writes. BEGIN travels with the first, COMMIT with the second.
//!
//! While the server has little to do, most batches hold one message or a few of different conversations. Each of those is
//! first tried in one statement, [`LONE`], which writes where there is nothing to decide and else nothing.

use crate::StoreError;
use crate::append::{self, Append, Appended, Batch, FEW, Head, Known, Mark, MarkPlan, Outcome, Patience, Plan, Wake};
use crate::postgres::{Connection, sql};
use crate::types::{Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::result::{DatabaseErrorKind, Error as DieselError, OptionalExtension};
use diesel::sql_types::{Array, BigInt, Binary, Bool, Nullable, SmallInt};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use futures::future::join_all;
use sotto_protocol::message::{Kind, Sender};
use sotto_protocol::{ConversationId, DeviceId, MessageId, Timestamp, UserId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

const LOOK: &str = "SELECT * FROM journal_look($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

const KEEP: &str = "SELECT journal_keep($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
    $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34)";

/// Stores one message if its conversation is free, its versions are those of the check, and its id is new. The number
/// comes from the row as it was locked, whatever the snapshot; an id that was committed after the snapshot was taken is
/// found by the unique key, and fails the statement. Where no row comes back, nothing was written.
const LONE: &str = "WITH held AS MATERIALIZED ( \
        SELECT h.last_seq FROM heads h WHERE h.conversation_id = $1 AND h.membership_version = $2 \
        FOR NO KEY UPDATE SKIP LOCKED \
    ), stored AS ( \
        INSERT INTO messages (conversation_id, seq, message_id, sender_user, sender_device, kind, ciphertext, envelopes, \
            reply_to, client_seq, expires_at, created_at, updated_at) \
        SELECT $1, held.last_seq + 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13 FROM held \
        WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.message_id = $4 AND m.conversation_id = $1) \
          AND ($3 IS NULL OR $3 = (SELECT SUM(u.device_version) FROM memberships m JOIN users u ON u.id = m.user_id \
            WHERE m.conversation_id = $1 AND m.to_seq IS NULL)) \
        RETURNING seq \
    ), moved AS ( \
        UPDATE heads SET last_seq = stored.seq, updated_at = $13 FROM stored WHERE heads.conversation_id = $1 \
    ), woken AS ( \
        INSERT INTO wakes (xid, body, created_at, updated_at) \
        SELECT pg_current_xact_id()::text::bigint, $14 || int8send(seq) || int8send(0), clock_timestamp(), clock_timestamp() \
        FROM stored \
    ) SELECT seq FROM stored";

#[derive(QueryableByName)]
struct SeqRow {
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

/// A row of `journal_look`; the migration says what each kind carries.
#[derive(QueryableByName)]
struct LookRow {
    #[diesel(sql_type = SmallInt)]
    what: i16,
    #[diesel(sql_type = Nullable<Uuid>)]
    home: Option<ConversationId>,
    #[diesel(sql_type = Nullable<Uuid>)]
    name: Option<uuid::Uuid>,
    #[diesel(sql_type = Nullable<Uuid>)]
    other: Option<uuid::Uuid>,
    #[diesel(sql_type = Nullable<BigInt>)]
    a: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    b: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    c: Option<i64>,
    #[diesel(sql_type = Nullable<Moment>)]
    at: Option<Timestamp>,
}

/// What was locked and read.
#[derive(Default)]
struct Look {
    transaction: i64,
    heads: HashMap<ConversationId, Head>,
    known: HashMap<(ConversationId, MessageId), Known>,
    /// Versions of the receipts that are locked.
    versions: HashMap<ConversationId, i64>,
    delivered: HashMap<(ConversationId, DeviceId), Mark>,
    reads: HashMap<(ConversationId, UserId), (DeviceId, Mark)>,
}

impl Look {
    fn of(rows: Vec<LookRow>, batch: &Batch, patience: Patience) -> Self {
        let mut look = Self::default();
        for row in rows {
            let (a, b, c) = (row.a.unwrap_or_default(), row.b.unwrap_or_default(), row.c.unwrap_or_default());
            let at = row.at.unwrap_or_default();
            let home = row.home.unwrap_or(ConversationId(uuid::Uuid::nil()));
            let name = row.name.unwrap_or_default();
            match row.what {
                0 => look.transaction = a,
                1 => {
                    let head = Head { locked: true, last_seq: a, membership_version: b, device_versions: 0 };
                    look.heads.insert(home, head);
                }
                2 => {
                    if let Some(head) = look.heads.get_mut(&home) {
                        head.device_versions = a;
                    }
                }
                3 => {
                    let known = Known { seq: a, sender: row.other.map(UserId), at };
                    look.known.insert((home, MessageId(name)), known);
                }
                4 => {
                    look.versions.insert(home, a);
                }
                5 => {
                    let mark = Mark { up_to: a, version: b, receipts_seen: c, at };
                    look.delivered.insert((home, DeviceId(name)), mark);
                }
                _ => {
                    let mark = Mark { up_to: a, version: b, receipts_seen: 0, at };
                    let by = DeviceId(row.other.unwrap_or_default());
                    look.reads.insert((home, UserId(name)), (by, mark));
                }
            }
        }
        if patience == Patience::Skip {
            // Held by another, or not there at all: who waits for it will know.
            let held = Head { locked: false, last_seq: 0, membership_version: 0, device_versions: 0 };
            for append in &batch.appends {
                look.heads.entry(append.conversation_id).or_insert(held);
            }
        }
        look
    }
}

/// Makes a fresh connection ready for batches: all statements prepared, so that what is sent with BEGIN and COMMIT is sent
/// between them and not after a question of the driver's.
pub(super) async fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    let nothing = Batch::default();
    connection.batch_execute("BEGIN").await?;
    let look = look(connection, &nothing, Patience::Skip).await?;
    keep(connection, &nothing, &look, &Plan::default(), &MarkPlan::default(), Timestamp::default()).await?;
    lone(connection, &to_nowhere(), Timestamp::default()).await?;
    Ok(connection.batch_execute("COMMIT").await?)
}

/// A message to a conversation that there never is.
const fn to_nowhere() -> Append {
    let nil = uuid::Uuid::nil();
    Append {
        conversation_id: ConversationId(nil),
        message_id: MessageId(nil),
        sender: Sender { user_id: UserId(nil), device_id: DeviceId(nil) },
        kind: Kind::Text,
        ciphertext: None,
        envelopes: None,
        reply_to: None,
        client_seq: None,
        expires_in: None,
        membership_version: 0,
        device_versions: None,
        first_of_sender: false,
    }
}

pub(super) async fn write(
    connection: &mut Connection,
    batch: &Batch,
    patience: Patience,
    now: Timestamp,
) -> Result<Outcome, StoreError> {
    if !has_little_to_decide(batch, patience) {
        return write_all(connection, batch, patience, now).await;
    }
    let stored = match batch.appends.as_slice() {
        [only] => vec![lone(connection, only, now).await?],
        few => in_one_transaction(connection, few, now).await?,
    };
    if stored.iter().all(Option::is_none) {
        return write_all(connection, batch, patience, now).await;
    }
    let left = batch.appends.iter().zip(&stored).filter(|(_, seq)| seq.is_none()).map(|(append, _)| append.clone());
    let left = Batch { appends: left.collect(), ..Batch::default() };
    let mut outcome = Outcome::default();
    // What stands must be told, whatever becomes of the others: they go by the side lane then, where their ids are looked up.
    if !left.appends.is_empty()
        && let Ok(written) = write_all(connection, &left, patience, now).await
    {
        outcome = written;
    }
    let mut others = std::mem::take(&mut outcome.appended).into_iter();
    let told = stored.into_iter().map(|seq| match seq {
        Some(seq) => Appended::Stored { seq, at: now },
        None => others.next().unwrap_or(Appended::Locked),
    });
    Ok(Outcome { appended: told.collect(), ..outcome })
}

/// Whatever the batch holds.
async fn write_all(
    connection: &mut Connection,
    batch: &Batch,
    patience: Patience,
    now: Timestamp,
) -> Result<Outcome, StoreError> {
    let shared = &*connection;
    let (begun, look) = futures::join!(execute(shared, "BEGIN"), look(shared, batch, patience));
    begun?;
    let look = match look {
        Ok(look) => look,
        Err(error) => return Err(undone(connection, error).await),
    };
    let plan = append::plan(&batch.appends, &look.heads, look.known.clone(), now);
    let marks = marks(batch, &look, patience, now);
    if let Err(error) = see_accounts(connection, batch, now).await {
        return Err(undone(connection, error).await);
    }
    let shared = &*connection;
    let keep = keep(shared, batch, &look, &plan, &marks, now);
    // After a statement that failed, COMMIT is a ROLLBACK and says that it went well: the statement's word counts.
    let (kept, committed) = futures::join!(keep, execute(shared, "COMMIT"));
    kept?;
    committed?;
    Ok(Outcome { appended: plan.appended, raised: marks.raised, skipped_marks: marks.skipped })
}

/// One message, or a few of which none follows another, and nothing else. Whoever waits for locks is not tried with others.
fn has_little_to_decide(batch: &Batch, patience: Patience) -> bool {
    let Batch { appends, delivered, reads, accounts } = batch;
    let most = if patience == Patience::Skip { FEW } else { 1 };
    let mut homes = HashSet::new();
    (1..=most).contains(&appends.len())
        && delivered.is_empty()
        && reads.is_empty()
        && accounts.is_empty()
        // A first message also changes its sender's membership.
        && appends.iter().all(|append| !append.first_of_sender && homes.insert(append.conversation_id))
        // Bugs are planted in the plan.
        && !cfg!(feature = "planted-bugs")
}

/// Tries [`LONE`] for each, in one round trip. All `None`: nothing was written.
async fn in_one_transaction(
    connection: &Connection,
    few: &[Arc<Append>],
    now: Timestamp,
) -> Result<Vec<Option<i64>>, StoreError> {
    let all = join_all(few.iter().map(|append| stored_alone(connection, append, now)));
    let (begun, all, committed) = futures::join!(execute(connection, "BEGIN"), all, execute(connection, "COMMIT"));
    begun?;
    if all.iter().any(is_taken) {
        return Ok(vec![None; few.len()]);
    }
    // As above: after a statement that failed, nothing was committed.
    let stored = all.into_iter().collect::<Result<_, _>>()?;
    committed?;
    Ok(stored)
}

/// Tries [`LONE`]. `None`: nothing was written, and there is something to decide.
async fn lone(connection: &Connection, append: &Append, now: Timestamp) -> Result<Option<i64>, StoreError> {
    let stored = stored_alone(connection, append, now).await;
    if is_taken(&stored) { Ok(None) } else { Ok(stored?) }
}

/// Whether the message's id is in use: another transaction has committed it meanwhile.
const fn is_taken<T>(stored: &Result<T, DieselError>) -> bool {
    matches!(stored, Err(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)))
}

async fn stored_alone(
    mut connection: &Connection,
    append: &Append,
    now: Timestamp,
) -> Result<Option<i64>, DieselError> {
    // Without its last two numbers, which the statement adds.
    let mut wake = Wake { conversations: vec![(append.conversation_id, 0, 0)], users: Vec::new() }.to_bytes();
    wake.truncate(wake.len().saturating_sub(16));
    let stored: Option<SeqRow> = sql(LONE)
        .bind::<Uuid, _>(append.conversation_id)
        .bind::<BigInt, _>(append.membership_version)
        .bind::<Nullable<BigInt>, _>(append.device_versions)
        .bind::<Uuid, _>(append.message_id)
        .bind::<Uuid, _>(append.sender.user_id)
        .bind::<Uuid, _>(append.sender.device_id)
        .bind::<Word, _>(append.kind)
        .bind::<Nullable<Binary>, _>(append.ciphertext.as_deref())
        .bind::<Nullable<Binary>, _>(append.envelopes.as_deref())
        .bind::<Nullable<Uuid>, _>(append.reply_to)
        .bind::<Nullable<BigInt>, _>(append.client_seq)
        .bind::<Nullable<Moment>, _>(append.expires_at(now))
        .bind::<Moment, _>(now)
        .bind::<Binary, _>(wake)
        .get_result(&mut connection)
        .await
        .optional()?;
    Ok(stored.map(|row| row.seq))
}

async fn execute(mut connection: &Connection, text: &str) -> Result<(), StoreError> {
    Ok(connection.batch_execute(text).await?)
}

/// Takes back what was begun, and passes on why. A connection that cannot even do that is not to be used again.
async fn undone(connection: &mut Connection, error: StoreError) -> StoreError {
    match execute(connection, "ROLLBACK").await {
        Ok(()) => error,
        Err(lost) => StoreError::Unavailable(format!("{error}; {lost}")),
    }
}

/// Each once, in the order in which rows are locked.
fn ascending<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

async fn look(mut connection: &Connection, batch: &Batch, patience: Patience) -> Result<Look, StoreError> {
    let (appends, delivered, reads) = (&batch.appends, &batch.delivered, &batch.reads);
    let listed = appends.iter().filter(|append| append.device_versions.is_some());
    let marked = delivered.iter().map(|mark| mark.conversation_id);
    let rows: Vec<LookRow> = sql(LOOK)
        .bind::<Bool, _>(patience == Patience::Wait)
        .bind::<Array<Uuid>, _>(ascending(appends.iter().map(|append| append.conversation_id)))
        .bind::<Array<Uuid>, _>(ascending(listed.map(|append| append.conversation_id)))
        .bind::<Array<Uuid>, _>(appends.iter().map(|append| append.conversation_id).collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(appends.iter().map(|append| append.message_id).collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(ascending(marked.chain(reads.iter().map(|mark| mark.conversation_id))))
        .bind::<Array<Uuid>, _>(delivered.iter().map(|mark| mark.conversation_id).collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(delivered.iter().map(|mark| mark.device_id).collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(reads.iter().map(|mark| mark.conversation_id).collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(reads.iter().map(|mark| mark.user_id).collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(ascending(delivered.iter().map(|mark| mark.device_id)))
        .load(&mut connection)
        .await?;
    Ok(Look::of(rows, batch, patience))
}

fn marks(batch: &Batch, look: &Look, patience: Patience, now: Timestamp) -> MarkPlan {
    let homes = batch.delivered.iter().map(|mark| mark.conversation_id);
    let homes = homes.chain(batch.reads.iter().map(|mark| mark.conversation_id));
    let absent = ascending(homes.filter(|home| !look.versions.contains_key(home)));
    let left;
    let batch = if absent.is_empty() {
        batch
    } else {
        left = batch.marks_without(&absent);
        &left
    };
    let plan = append::plan_marks(batch, &look.versions, &look.delivered, &look.reads, now);
    // Who waited for the lock and found no row knows that the conversation is gone, and its marks with it.
    let skipped = if patience == Patience::Skip { absent } else { Vec::new() };
    MarkPlan { skipped, ..plan }
}

async fn keep(
    mut connection: &Connection,
    batch: &Batch,
    look: &Look,
    plan: &Plan,
    marks: &MarkPlan,
    now: Timestamp,
) -> Result<(), StoreError> {
    macro_rules! column {
        ($rows:expr, $field:expr) => {
            $rows.iter().map($field).collect::<Vec<_>>()
        };
    }
    let rows: Vec<(&Append, i64)> =
        plan.rows.iter().filter_map(|(index, seq)| Some((batch.appends.get(*index)?.as_ref(), *seq))).collect();
    let mut first: BTreeMap<(ConversationId, UserId), i64> = BTreeMap::new();
    for (append, seq) in rows.iter().filter(|(append, _)| append.first_of_sender) {
        first.entry((append.conversation_id, append.sender.user_id)).or_insert(*seq);
    }
    let wake = append::wake(plan, marks);
    let wake = (!wake.conversations.is_empty()).then(|| wake.to_bytes());
    sql(KEEP)
        .bind::<BigInt, _>(look.transaction)
        .bind::<Moment, _>(now)
        .bind::<Nullable<Binary>, _>(wake)
        .bind::<Array<Uuid>, _>(column!(rows, |(append, _)| append.conversation_id))
        .bind::<Array<BigInt>, _>(column!(rows, |(_, seq)| *seq))
        .bind::<Array<Uuid>, _>(column!(rows, |(append, _)| append.message_id))
        .bind::<Array<Uuid>, _>(column!(rows, |(append, _)| append.sender.user_id))
        .bind::<Array<Uuid>, _>(column!(rows, |(append, _)| append.sender.device_id))
        .bind::<Array<Word>, _>(column!(rows, |(append, _)| append.kind))
        .bind::<Array<Nullable<Binary>>, _>(column!(rows, |(append, _)| append.ciphertext.as_deref()))
        .bind::<Array<Nullable<Binary>>, _>(column!(rows, |(append, _)| append.envelopes.as_deref()))
        .bind::<Array<Nullable<Uuid>>, _>(column!(rows, |(append, _)| append.reply_to))
        .bind::<Array<Nullable<BigInt>>, _>(column!(rows, |(append, _)| append.client_seq))
        .bind::<Array<Nullable<Moment>>, _>(column!(rows, |(append, _)| append.expires_at(now)))
        .bind::<Array<Uuid>, _>(plan.heads.keys().collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(plan.heads.values().collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(first.keys().map(|(home, _)| *home).collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(first.keys().map(|(_, user)| *user).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(first.values().copied().collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(marks.versions.keys().collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(marks.versions.values().collect::<Vec<_>>())
        .bind::<Array<Uuid>, _>(column!(marks.delivered, |((home, _), _)| *home))
        .bind::<Array<Uuid>, _>(column!(marks.delivered, |((_, device), _)| *device))
        .bind::<Array<Uuid>, _>(column!(marks.delivered, |(_, (user, _))| *user))
        .bind::<Array<BigInt>, _>(column!(marks.delivered, |(_, (_, mark))| mark.up_to))
        .bind::<Array<BigInt>, _>(column!(marks.delivered, |(_, (_, mark))| mark.version))
        .bind::<Array<BigInt>, _>(column!(marks.delivered, |(_, (_, mark))| mark.receipts_seen))
        .bind::<Array<Moment>, _>(column!(marks.delivered, |(_, (_, mark))| mark.at))
        .bind::<Array<Uuid>, _>(column!(marks.reads, |((home, _), _)| *home))
        .bind::<Array<Uuid>, _>(column!(marks.reads, |((_, user), _)| *user))
        .bind::<Array<BigInt>, _>(column!(marks.reads, |(_, (_, mark))| mark.up_to))
        .bind::<Array<BigInt>, _>(column!(marks.reads, |(_, (_, mark))| mark.version))
        .bind::<Array<Uuid>, _>(column!(marks.reads, |(_, (device, _))| *device))
        .bind::<Array<Moment>, _>(column!(marks.reads, |(_, (_, mark))| mark.at))
        .execute(&mut connection)
        .await?;
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
