//! Conversations, their members, their history.

use super::*;
use crate::append::Wake;
use crate::rows::{
    ConversationRow, ConversationState, MemberChange, MemberDeviceRow, MemberRow, MembersChanged, MessageRow,
    NewConversation,
};
use crate::types::{Json, Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;
use serde_json::json;
use sotto_protocol::conversation::{ConversationType, Role};
use sotto_protocol::message::{Kind, MembershipEvent};
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

/// Makes a conversation with its members, or finds the direct one that the pair has already.
/// `Ok(None)`: one of the users does not exist.
pub async fn create(
    connection: &mut Connection,
    new: NewConversation,
    now: Timestamp,
) -> Result<Option<(ConversationId, bool)>, StoreError> {
    transaction!(connection, |connection| {
        for member in &new.members {
            let found: Option<IdRow> = sql("SELECT id FROM users WHERE id = $1")
                .bind::<Uuid, _>(member)
                .get_result(connection)
                .await
                .optional()?;
            if found.is_none() {
                return Ok(None);
            }
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
            return Ok(Some((existing.id.into(), false)));
        }
        for text in [
            "INSERT INTO heads (conversation_id, created_at, updated_at) VALUES ($1, $2, $2)",
            "INSERT INTO receipts (conversation_id, created_at, updated_at) VALUES ($1, $2, $2)",
        ] {
            sql(text).bind::<Uuid, _>(id).bind::<Moment, _>(now).execute(connection).await?;
        }
        for member in &new.members {
            let owns = *member == new.creator && new.kind == ConversationType::Group;
            let role = if owns { Role::Owner } else { Role::Member };
            insert_member(connection, id, *member, 1, role, now).await?;
        }
        let heads = account_log::append_conversation_changed(connection, id, &new.members, now).await?;
        wakes::write(connection, &Wake::of_users(heads)).await?;
        Ok(Some((id, true)))
    })
}

async fn insert_member(
    connection: &mut Connection,
    conversation: ConversationId,
    user: UserId,
    from_seq: Seq,
    role: Role,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql("INSERT INTO memberships (conversation_id, user_id, from_seq, role, joined_at, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5, $5)")
    .bind::<Uuid, _>(conversation)
    .bind::<Uuid, _>(user)
    .bind::<BigInt, _>(from_seq)
    .bind::<Word, _>(role)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(())
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
async fn row(connection: &mut Connection, id: ConversationId) -> Result<Option<ConversationRow>, StoreError> {
    Ok(sql("SELECT c.id, c.kind, c.name, c.created_at, h.last_seq, h.floor_seq, \
                h.membership_version, r.version AS receipts_version \
         FROM conversations c JOIN heads h ON h.conversation_id = c.id \
         JOIN receipts r ON r.conversation_id = c.id WHERE c.id = $1")
    .bind::<Uuid, _>(id)
    .get_result(connection)
    .await
    .optional()?)
}

async fn members(connection: &mut Connection, id: ConversationId) -> Result<Vec<MemberRow>, StoreError> {
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

/// Adds or removes members: entry of the log, intervals, version and news in one transaction. What
/// the caller may do is decided here, under the lock.
pub async fn change_members(
    connection: &mut Connection,
    id: ConversationId,
    by: UserId,
    change: MemberChange,
    now: Timestamp,
) -> Result<MembersChanged, StoreError> {
    transaction!(connection, |connection| {
        sql(super::super::LOCK_HEAD).bind::<Uuid, _>(id).execute(connection).await?;
        let Some(conversation) = row(connection, id).await? else {
            return Ok(MembersChanged::NotFound);
        };
        let intervals = members(connection, id).await?;
        let present = |user: UserId| intervals.iter().find(|row| row.user_id == user && row.to_seq.is_none());
        let Some(caller) = present(by) else {
            let was_member = intervals.iter().any(|row| row.user_id == by);
            return Ok(if was_member { MembersChanged::Forbidden } else { MembersChanged::NotFound });
        };
        let (event, users) = match &change {
            MemberChange::Add(users) => {
                let fresh: Vec<UserId> = users.iter().copied().filter(|user| present(*user).is_none()).collect();
                (MembershipEvent::Joined, fresh)
            }
            MemberChange::Remove(users) => {
                let leaves = matches!(users.as_slice(), [one] if *one == by);
                let there: Vec<UserId> = users.iter().copied().filter(|user| present(*user).is_some()).collect();
                if there.len() < users.len() {
                    return Ok(MembersChanged::NoSuchMember);
                }
                let event = if leaves { MembershipEvent::Left } else { MembershipEvent::Removed };
                (event, there)
            }
        };
        let removes_owner =
            users.iter().any(|user| *user != by && present(*user).is_some_and(|row| row.role == Role::Owner));
        if conversation.kind == ConversationType::Direct
            || (event != MembershipEvent::Left && !caller.role.manages_members())
            || (event == MembershipEvent::Removed && removes_owner)
        {
            return Ok(MembersChanged::Forbidden);
        }
        if users.is_empty() {
            return Ok(MembersChanged::Nothing);
        }
        let count = intervals.iter().filter(|row| row.to_seq.is_none()).count();
        if event == MembershipEvent::Joined && count + users.len() > sotto_protocol::limits::MAX_MEMBERS {
            return Ok(MembersChanged::TooMany);
        }
        let seq = conversation.last_seq + 1;
        for user in &users {
            if event == MembershipEvent::Joined {
                let found: Option<IdRow> = sql("SELECT id FROM users WHERE id = $1")
                    .bind::<Uuid, _>(user)
                    .get_result(connection)
                    .await
                    .optional()?;
                if found.is_none() {
                    // Nothing has been written yet: users are looked up before the first write.
                    return Ok(MembersChanged::NoSuchUser);
                }
            }
        }
        for user in &users {
            if event == MembershipEvent::Joined {
                insert_member(connection, id, *user, seq, Role::Member, now).await?;
                // Receipts from before the join are not news to a new member. One who comes back without ever having
                // acknowledged begins where his first interval did: what waited for him there still does.
                sql("INSERT INTO marks (conversation_id, device_id, user_id, delivered_up_to, \
                        receipts_seen, delivered_at, created_at, updated_at) \
                     SELECT $1, d.id, d.user_id, \
                        (SELECT MIN(m.from_seq) - 1 FROM memberships m \
                         WHERE m.conversation_id = $1 AND m.user_id = $2), $3, $4, $4, $4 FROM devices d \
                     WHERE d.user_id = $2 \
                     ON CONFLICT (conversation_id, device_id) DO UPDATE SET \
                        receipts_seen = excluded.receipts_seen")
                .bind::<Uuid, _>(id)
                .bind::<Uuid, _>(user)
                .bind::<BigInt, _>(conversation.receipts_version)
                .bind::<Moment, _>(now)
                .execute(connection)
                .await?;
            } else {
                sql("UPDATE memberships SET to_seq = $3, updated_at = $4 \
                     WHERE conversation_id = $1 AND user_id = $2 AND to_seq IS NULL")
                .bind::<Uuid, _>(id)
                .bind::<Uuid, _>(user)
                .bind::<BigInt, _>(seq - 1)
                .bind::<Moment, _>(now)
                .execute(connection)
                .await?;
            }
        }
        let owner_goes = event != MembershipEvent::Joined && caller.role == Role::Owner && users.contains(&by);
        if owner_goes {
            // A group is never without an owner: the eldest admin, else the eldest member.
            let heir = intervals
                .iter()
                .filter(|row| row.to_seq.is_none() && !users.contains(&row.user_id))
                .min_by_key(|row| (row.role != Role::Admin, row.from_seq, row.joined_at));
            if let Some(heir) = heir {
                sql("UPDATE memberships SET role = $3, updated_at = $4 \
                     WHERE conversation_id = $1 AND user_id = $2 AND to_seq IS NULL")
                .bind::<Uuid, _>(id)
                .bind::<Uuid, _>(heir.user_id)
                .bind::<Word, _>(Role::Owner)
                .bind::<Moment, _>(now)
                .execute(connection)
                .await?;
            }
        }
        let system = json!({ "event": event, "user_ids": users, "by": by });
        sql("INSERT INTO messages (conversation_id, seq, message_id, kind, system, created_at, \
             updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6)")
        .bind::<Uuid, _>(id)
        .bind::<BigInt, _>(seq)
        .bind::<Uuid, _>(MessageId::ordered())
        .bind::<Word, _>(Kind::System)
        .bind::<Json, _>(&system)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
        sql("UPDATE heads SET last_seq = $2, membership_version = membership_version + 1, \
             updated_at = $3 WHERE conversation_id = $1")
        .bind::<Uuid, _>(id)
        .bind::<BigInt, _>(seq)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
        let mut told: Vec<UserId> = intervals
            .iter()
            .filter(|row| row.to_seq.is_none())
            .map(|row| row.user_id)
            .chain(users.iter().copied())
            .collect();
        told.sort_unstable();
        told.dedup();
        let heads = account_log::append_conversation_changed(connection, id, &told, now).await?;
        let wake = Wake { conversations: vec![(id, seq, 0)], users: heads };
        wakes::write(connection, &wake).await?;
        Ok(MembersChanged::Done { seq, told })
    })
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

/// Whether a user is or was a member: his intervals' roles are not asked for.
pub async fn was_member(connection: &mut Connection, id: ConversationId, user: UserId) -> Result<bool, StoreError> {
    let row: Option<IdRow> = sql("SELECT user_id AS id FROM memberships \
         WHERE conversation_id = $1 AND user_id = $2 LIMIT 1")
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(user)
    .get_result(connection)
    .await
    .optional()?;
    Ok(row.is_some())
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
