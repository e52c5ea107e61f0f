//! Who belongs to a conversation, and changes of that. However many users a change concerns, it has a fixed number of
//! statements.

use super::*;
use crate::append::Wake;
use crate::rows::{MemberChange, MemberRow, MembersChanged};
use crate::types::{Json, Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use sotto_protocol::conversation::{ConversationType, Role};
use sotto_protocol::limits::MAX_STAYS;
use sotto_protocol::message::{Kind, MembershipEvent};
use sotto_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};
use std::collections::HashMap;

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Whether all of these users, each named once, exist.
pub async fn all_exist(connection: &mut Connection, users: &[UserId]) -> Result<bool, StoreError> {
    let found: CountRow =
        sql(concat!("SELECT COUNT(*) AS count ", given_rows!(), " JOIN users u ON u.id = ", given_uuid!("user")))
            .bind::<Json, _>(account_log::given(users))
            .get_result(connection)
            .await?;
    Ok(usize::try_from(found.count) == Ok(users.len()))
}

/// Makes users members from a number on, one of them perhaps the owner.
pub async fn insert(
    connection: &mut Connection,
    conversation: ConversationId,
    users: &[UserId],
    from_seq: Seq,
    owner: Option<UserId>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let role = |user: UserId| if owner == Some(user) { Role::Owner } else { Role::Member };
    let rows: Value = users.iter().map(|user| json!({ "user": hex(user.0), "role": role(*user).as_str() })).collect();
    sql(concat!(
        "INSERT INTO memberships (conversation_id, user_id, from_seq, role, joined_at, created_at, updated_at) \
         SELECT $2, ",
        given_uuid!("user"),
        ", $3, given.value->>'role', $4, $4, $4 ",
        given_rows!()
    ))
    .bind::<Json, _>(rows)
    .bind::<Uuid, _>(conversation)
    .bind::<BigInt, _>(from_seq)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Starts new members at the end of the receipts, because receipts from before the join do not concern them. A member who comes
/// back and never acknowledged anything starts at the first interval, because what waited from there on still waits.
async fn insert_marks(
    connection: &mut Connection,
    conversation: ConversationId,
    users: &[UserId],
    receipts_seen: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql(concat!(
        "INSERT INTO marks (conversation_id, device_id, user_id, delivered_up_to, receipts_seen, delivered_at, \
             created_at, updated_at) \
         SELECT $2, d.id, d.user_id, \
             (SELECT MIN(m.from_seq) - 1 FROM memberships m WHERE m.conversation_id = $2 AND m.user_id = d.user_id), \
             $3, $4, $4, $4 ",
        given_rows!(),
        " JOIN devices d ON d.user_id = ",
        given_uuid!("user"),
        // SQLite takes ON for a part of the join otherwise.
        " WHERE true ON CONFLICT (conversation_id, device_id) DO UPDATE SET receipts_seen = excluded.receipts_seen"
    ))
    .bind::<Json, _>(account_log::given(users))
    .bind::<Uuid, _>(conversation)
    .bind::<BigInt, _>(receipts_seen)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends the present intervals of members at a number.
async fn end_intervals(
    connection: &mut Connection,
    conversation: ConversationId,
    users: &[UserId],
    to_seq: Seq,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql(concat!(
        "UPDATE memberships SET to_seq = $3, updated_at = $4 \
         WHERE conversation_id = $2 AND to_seq IS NULL AND user_id IN (SELECT ",
        given_uuid!("user"),
        " ",
        given_rows!(),
        ")"
    ))
    .bind::<Json, _>(account_log::given(users))
    .bind::<Uuid, _>(conversation)
    .bind::<BigInt, _>(to_seq)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds or removes members: entry of the log, intervals, version and news in one transaction. What
/// the caller may do is decided here, under the lock. All members are notified, at the cost of the caller's notices.
pub async fn change(
    connection: &mut Connection,
    id: ConversationId,
    by: UserId,
    change: MemberChange,
    notices_per_hour: Option<u32>,
    now: Timestamp,
) -> Result<MembersChanged, StoreError> {
    transaction!(connection, |connection| {
        sql(super::super::LOCK_HEAD).bind::<Uuid, _>(id).execute(connection).await?;
        let Some(conversation) = conversations::row(connection, id).await? else {
            return Ok(MembersChanged::NotFound);
        };
        let intervals = conversations::members(connection, id).await?;
        let present: HashMap<UserId, &MemberRow> =
            intervals.iter().filter(|row| row.to_seq.is_none()).map(|row| (row.user_id, row)).collect();
        let Some(caller) = present.get(&by) else {
            let was_member = intervals.iter().any(|row| row.user_id == by);
            return Ok(if was_member { MembersChanged::Forbidden } else { MembersChanged::NotFound });
        };
        let (event, users) = match &change {
            MemberChange::Add(users) => {
                let fresh: Vec<UserId> = users.iter().copied().filter(|user| !present.contains_key(user)).collect();
                (MembershipEvent::Joined, fresh)
            }
            MemberChange::Remove(users) => {
                let leaves = matches!(users.as_slice(), [one] if *one == by);
                let there: Vec<UserId> = users.iter().copied().filter(|user| present.contains_key(user)).collect();
                if there.len() < users.len() {
                    return Ok(MembersChanged::NoSuchMember);
                }
                let event = if leaves { MembershipEvent::Left } else { MembershipEvent::Removed };
                (event, there)
            }
        };
        let removes_owner =
            users.iter().any(|user| *user != by && present.get(user).is_some_and(|row| row.role == Role::Owner));
        if conversation.kind == ConversationType::Direct
            || (event != MembershipEvent::Left && !caller.role.manages_members())
            || (event == MembershipEvent::Removed && removes_owner)
        {
            return Ok(MembersChanged::Forbidden);
        }
        if users.is_empty() {
            return Ok(MembersChanged::Nothing);
        }
        if event == MembershipEvent::Joined && present.len() + users.len() > sotto_protocol::limits::MAX_MEMBERS {
            return Ok(MembersChanged::TooMany);
        }
        let seq = conversation.last_seq + 1;
        let mut stays: HashMap<UserId, usize> = HashMap::new();
        for row in &intervals {
            *stays.entry(row.user_id).or_default() += 1;
        }
        let too_often = |user: &UserId| stays.get(user).is_some_and(|stays| *stays >= MAX_STAYS);
        if event == MembershipEvent::Joined && users.iter().any(too_often) {
            return Ok(MembersChanged::TooOften);
        }
        if event == MembershipEvent::Joined && !all_exist(connection, &users).await? {
            return Ok(MembersChanged::NoSuchUser);
        }
        let mut told: Vec<UserId> = present.keys().copied().chain(users.iter().copied()).collect();
        told.sort_unstable();
        told.dedup();
        // Nothing keeps a member in a group.
        if event != MembershipEvent::Left
            && let Some(reached) = notices::take(connection, by, told.len(), notices_per_hour, now).await?
        {
            return Ok(MembersChanged::Limited(reached));
        }
        if event == MembershipEvent::Joined {
            insert(connection, id, &users, seq, None, now).await?;
            insert_marks(connection, id, &users, conversation.receipts_version, now).await?;
        } else {
            end_intervals(connection, id, &users, seq - 1, now).await?;
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
        let heads = account_log::append_conversation_changed(connection, id, &told, now).await?;
        let wake = Wake { conversations: vec![(id, seq, 0)], users: heads };
        wakes::write(connection, &wake).await?;
        Ok(MembersChanged::Done { seq, told })
    })
}
