//! Conversations, their members, their history.

use super::*;
use crate::append::Wake;
use crate::rows::{
    ConversationRow, ConversationState, Created, MemberDeviceRow, MemberRow, MessageRow, NewConversation,
    ShownConversation, ShownMember,
};
use crate::types::{Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::conversation::ConversationType;
use sotto_protocol::limits::MAX_MEMBERS_SHOWN;
use sotto_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = Uuid)]
    id: uuid::Uuid,
}

#[derive(QueryableByName)]
struct HomeRow {
    #[diesel(sql_type = Uuid)]
    conversation_id: ConversationId,
    #[diesel(sql_type = BigInt)]
    seq: Seq,
}

/// Makes a conversation with its members, or finds the direct one that the pair has already. All members are notified,
/// at the cost of the creator's notices.
pub async fn create(
    connection: &mut Connection,
    new: NewConversation,
    notices_per_hour: Option<u32>,
    now: Timestamp,
) -> Result<Created, StoreError> {
    transaction!(connection, |connection| {
        if !members::all_exist(connection, &new.members).await? {
            return Ok(Created::NoSuchUser);
        }
        let count = new.members.len();
        if let Some(reached) = notices::take(connection, new.creator, count, notices_per_hour, now).await? {
            return Ok(Created::Limited(reached));
        }
        let id = ConversationId::ordered();
        let made = sql("INSERT INTO conversations \
                (id, kind, name, direct_pair, created_by, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (direct_pair) DO NOTHING")
        .bind::<Uuid, _>(id)
        .bind::<Word, _>(new.kind)
        .bind::<Nullable<Text>, _>(new.name.as_deref())
        .bind::<Nullable<Text>, _>(new.direct_pair())
        .bind::<Uuid, _>(new.creator)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
        if made == 0 {
            let existing: IdRow = sql("SELECT id FROM conversations WHERE direct_pair = $1")
                .bind::<Nullable<Text>, _>(new.direct_pair())
                .get_result(connection)
                .await?;
            return Ok(Created::Done { id: existing.id.into(), is_new: false });
        }
        for text in [
            "INSERT INTO heads (conversation_id, created_at, updated_at) VALUES ($1, $2, $2)",
            "INSERT INTO receipts (conversation_id, created_at, updated_at) VALUES ($1, $2, $2)",
        ] {
            sql(text).bind::<Uuid, _>(id).bind::<Moment, _>(now).execute(connection).await?;
        }
        let owner = (new.kind == ConversationType::Group).then_some(new.creator);
        members::insert(connection, id, &new.members, 1, owner, now).await?;
        let heads = account_log::append_conversation_changed(connection, id, &new.members, now).await?;
        wakes::write(connection, &Wake::of_users(heads)).await?;
        Ok(Created::Done { id, is_new: true })
    })
}

/// The direct conversation of a pair.
pub async fn direct(connection: &mut Connection, pair: String) -> Result<Option<ConversationId>, StoreError> {
    let row: Option<IdRow> = sql("SELECT id FROM conversations WHERE direct_pair = $1")
        .bind::<Text, _>(pair)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map(|row| row.id.into()))
}

/// A conversation with its head.
pub async fn row(connection: &mut Connection, id: ConversationId) -> Result<Option<ConversationRow>, StoreError> {
    Ok(sql("SELECT c.id, c.kind, c.name, c.created_at, h.last_seq, h.floor_seq, \
                h.membership_version, r.version AS receipts_version \
         FROM conversations c JOIN heads h ON h.conversation_id = c.id \
         JOIN receipts r ON r.conversation_id = c.id WHERE c.id = $1")
    .bind::<Uuid, _>(id)
    .get_result(connection)
    .await
    .optional()?)
}

/// The intervals of all who are or were members.
pub async fn members(connection: &mut Connection, id: ConversationId) -> Result<Vec<MemberRow>, StoreError> {
    Ok(sql("SELECT m.user_id, m.from_seq, m.to_seq, m.role, m.first_sent_seq, m.joined_at, \
                u.device_version, COALESCE(r.read_up_to, 0) AS read_up_to \
         FROM memberships m JOIN users u ON u.id = m.user_id \
         LEFT JOIN reads r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id \
         WHERE m.conversation_id = $1 ORDER BY m.from_seq, m.user_id")
    .bind::<Uuid, _>(id)
    .load(connection)
    .await?)
}

/// Everything about a conversation that its actor keeps, from one moment.
pub async fn state(connection: &mut Connection, id: ConversationId) -> Result<Option<ConversationState>, StoreError> {
    // The version is read first: if a change commits in between, what was read is newer than its
    // version, and the append's comparison asks for another look. The other order would not.
    let Some(conversation) = row(connection, id).await? else {
        return Ok(None);
    };
    let members = members(connection, id).await?;
    let devices: Vec<MemberDeviceRow> = sql("SELECT d.user_id, d.id AS device_id, d.registration_id, \
                COALESCE(k.delivered_up_to, m.from_seq - 1) AS delivered_up_to \
             FROM memberships m JOIN devices d ON d.user_id = m.user_id \
             LEFT JOIN marks k ON k.conversation_id = m.conversation_id AND k.device_id = d.id \
             WHERE m.conversation_id = $1 AND m.to_seq IS NULL ORDER BY d.user_id, d.id")
    .bind::<Uuid, _>(id)
    .load(connection)
    .await?;
    Ok(Some(ConversationState { conversation, members, devices }))
}

macro_rules! shown_members {
    ($rest:literal) => {
        concat!(
            "SELECT m.user_id, m.role, m.joined_at, COALESCE(r.read_up_to, 0) AS read_up_to, \
                COALESCE((SELECT MIN(COALESCE(k.delivered_up_to, m.from_seq - 1)) FROM devices d \
                    LEFT JOIN marks k ON k.conversation_id = m.conversation_id AND k.device_id = d.id \
                    WHERE d.user_id = m.user_id), 0) AS delivered_up_to \
             FROM memberships m \
             LEFT JOIN reads r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id \
             WHERE m.conversation_id = $1 AND m.to_seq IS NULL",
            $rest
        )
    };
}

#[derive(QueryableByName)]
struct OwnRow {
    #[diesel(sql_type = Nullable<BigInt>)]
    to_seq: Option<Seq>,
    #[diesel(sql_type = BigInt)]
    read_up_to: Seq,
}

#[derive(QueryableByName)]
struct TotalRow {
    #[diesel(sql_type = BigInt)]
    members: i64,
    #[diesel(sql_type = BigInt)]
    device_versions: i64,
}

/// A conversation as a user sees it; `None`: he never was a member. Members of a larger conversation are not read one by
/// one, but for himself.
pub async fn shown(
    connection: &mut Connection,
    id: ConversationId,
    user: UserId,
) -> Result<Option<ShownConversation>, StoreError> {
    let own: Option<OwnRow> = sql("SELECT m.to_seq, COALESCE(r.read_up_to, 0) AS read_up_to FROM memberships m \
         LEFT JOIN reads r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id \
         WHERE m.conversation_id = $1 AND m.user_id = $2 ORDER BY m.from_seq DESC LIMIT 1")
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(user)
    .get_result(connection)
    .await
    .optional()?;
    let Some(own) = own else {
        return Ok(None);
    };
    // The version is read before the members, as in `state`.
    let Some(conversation) = row(connection, id).await? else {
        return Ok(None);
    };
    let mut shown = ShownConversation {
        conversation,
        left_at: own.to_seq,
        read_up_to: own.read_up_to,
        delivered_up_to: 0,
        member_count: 0,
        device_versions: 0,
        members: Vec::new(),
    };
    if own.to_seq.is_some() {
        return Ok(Some(shown));
    }
    let total: TotalRow = sql("SELECT COUNT(*) AS members, CAST(COALESCE(SUM(u.device_version), 0) AS bigint) \
            AS device_versions \
         FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.conversation_id = $1 AND m.to_seq IS NULL")
    .bind::<Uuid, _>(id)
    .get_result(connection)
    .await?;
    (shown.member_count, shown.device_versions) = (total.members, total.device_versions);
    let most = i64::try_from(MAX_MEMBERS_SHOWN).unwrap_or(i64::MAX);
    shown.members = if total.members <= most {
        sql(shown_members!(" ORDER BY m.from_seq, m.user_id LIMIT $2"))
            .bind::<Uuid, _>(id)
            .bind::<BigInt, _>(most)
            .load(connection)
            .await?
    } else {
        sql(shown_members!(" AND m.user_id = $2")).bind::<Uuid, _>(id).bind::<Uuid, _>(user).load(connection).await?
    };
    let himself = shown.members.iter().find(|member| member.user_id == user);
    shown.delivered_up_to = himself.map_or(0, |member| member.delivered_up_to);
    Ok(Some(shown))
}

/// Members of a conversation in the order of their ids, after one of them.
pub async fn members_after(
    connection: &mut Connection,
    id: ConversationId,
    after: UserId,
    limit: i64,
) -> Result<Vec<ShownMember>, StoreError> {
    Ok(sql(shown_members!(" AND m.user_id > $2 ORDER BY m.user_id LIMIT $3"))
        .bind::<Uuid, _>(id)
        .bind::<Uuid, _>(after)
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?)
}

/// Whether a user is a member at present; `None`: he never was one.
pub async fn is_member(
    connection: &mut Connection,
    id: ConversationId,
    user: UserId,
) -> Result<Option<bool>, StoreError> {
    let row: Option<OwnRow> = sql("SELECT to_seq, from_seq AS read_up_to FROM memberships \
         WHERE conversation_id = $1 AND user_id = $2 ORDER BY from_seq DESC LIMIT 1")
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(user)
    .get_result(connection)
    .await
    .optional()?;
    Ok(row.map(|row| row.to_seq.is_none()))
}

/// The conversations of a user, newest first, before one of them.
pub async fn list(
    connection: &mut Connection,
    user: UserId,
    before: Option<ConversationId>,
    limit: i64,
) -> Result<Vec<ConversationId>, StoreError> {
    let before = before.unwrap_or(ConversationId(uuid::Uuid::max()));
    let rows: Vec<IdRow> = sql("SELECT conversation_id AS id FROM memberships \
         WHERE user_id = $1 AND to_seq IS NULL AND conversation_id < $2 \
         ORDER BY conversation_id DESC LIMIT $3")
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(before)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.id.into()).collect())
}

/// The part of a conversation's log that a user may see, ascending: the first ones after a number,
/// or the last ones before one.
pub async fn history(
    connection: &mut Connection,
    id: ConversationId,
    user: UserId,
    after: Option<Seq>,
    before: Option<Seq>,
    limit: i64,
) -> Result<Vec<MessageRow>, StoreError> {
    let forward = after.is_some() || before.is_none();
    let query = if forward {
        sql(concat!(
            "SELECT ",
            "conversation_id, seq, message_id, sender_user, sender_device, kind, ciphertext, \
             envelopes, reply_to, client_seq, system, expires_at, edited_at, deleted_at, created_at",
            " FROM messages g WHERE conversation_id = $1 AND seq > $2 AND seq < $3 AND EXISTS \
              (SELECT 1 FROM memberships m WHERE m.conversation_id = g.conversation_id \
               AND m.user_id = $4 AND m.from_seq <= g.seq \
               AND (m.to_seq IS NULL OR g.seq <= m.to_seq)) ORDER BY seq LIMIT $5"
        ))
    } else {
        sql(concat!(
            "SELECT ",
            "conversation_id, seq, message_id, sender_user, sender_device, kind, ciphertext, \
             envelopes, reply_to, client_seq, system, expires_at, edited_at, deleted_at, created_at",
            " FROM messages g WHERE conversation_id = $1 AND seq > $2 AND seq < $3 AND EXISTS \
              (SELECT 1 FROM memberships m WHERE m.conversation_id = g.conversation_id \
               AND m.user_id = $4 AND m.from_seq <= g.seq \
               AND (m.to_seq IS NULL OR g.seq <= m.to_seq)) ORDER BY seq DESC LIMIT $5"
        ))
    };
    let mut rows: Vec<MessageRow> = query
        .bind::<Uuid, _>(id)
        .bind::<BigInt, _>(after.unwrap_or(0))
        .bind::<BigInt, _>(before.unwrap_or(i64::MAX))
        .bind::<Uuid, _>(user)
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?;
    if !forward {
        rows.reverse();
    }
    Ok(rows)
}

/// Where a message id stands among the conversations of a user, as far as he may see it.
pub async fn homes_of_message(
    connection: &mut Connection,
    user: UserId,
    message: MessageId,
) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
    let rows: Vec<HomeRow> = sql("SELECT DISTINCT g.conversation_id, g.seq FROM messages g \
         JOIN memberships m ON m.conversation_id = g.conversation_id AND m.user_id = $2 \
          AND m.from_seq <= g.seq AND (m.to_seq IS NULL OR g.seq <= m.to_seq) \
         WHERE g.message_id = $1 ORDER BY g.conversation_id LIMIT 2")
    .bind::<Uuid, _>(message)
    .bind::<Uuid, _>(user)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.conversation_id, row.seq)).collect())
}

#[derive(QueryableByName)]
struct KnownMessageRow {
    #[diesel(sql_type = BigInt)]
    seq: Seq,
    #[diesel(sql_type = Nullable<Uuid>)]
    sender_user: Option<UserId>,
    #[diesel(sql_type = Moment)]
    created_at: Timestamp,
}

/// A message that a conversation has under an id: number, sender, time.
pub async fn known_message(
    connection: &mut Connection,
    id: ConversationId,
    message: MessageId,
) -> Result<Option<(Seq, Option<UserId>, Timestamp)>, StoreError> {
    let row: Option<KnownMessageRow> = sql("SELECT seq, sender_user, created_at FROM messages \
         WHERE message_id = $1 AND conversation_id = $2")
    .bind::<Uuid, _>(message)
    .bind::<Uuid, _>(id)
    .get_result(connection)
    .await
    .optional()?;
    Ok(row.map(|row| (row.seq, row.sender_user, row.created_at)))
}
