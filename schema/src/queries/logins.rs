//! The history of sign-ins: written behind the answers, read by its user, forgotten after a while.

use super::super::LOGINS_BY_MONTH;
use super::*;
use crate::month::Month;
use crate::rows::logins::{LoginOf, LoginRow, NewLogin};
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use sotto_protocol::{Timestamp, UserId};

/// Months that have a partition before they begin, beside the present one.
const AHEAD: usize = 2;
/// One node makes partitions at a time: by this name of a lock ("logins" as a number).
const ONE_NODE: &str = "SELECT pg_advisory_xact_lock(119204735251822)";
/// Rows that are deleted at once where there are no partitions.
const AT_ONCE: i64 = 1000;

const BY_CODE: &str = "INSERT INTO logins (id, user_id, device_id, method, outcome, address, agent, created_at, updated_at) \
     SELECT $1, u.id, $2, $3, $4, $5, $6, $7, $7 FROM verifications v JOIN users u ON u.phone = v.phone WHERE v.id = $8";
const BY_ACCOUNT: &str = "INSERT INTO logins (id, user_id, device_id, method, outcome, address, agent, created_at, updated_at) \
     SELECT $1, u.id, $2, $3, $4, $5, $6, $7, $7 FROM users u WHERE u.id = $8";

#[derive(QueryableByName)]
struct NameRow {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Writes tries of accounts that exist; those of numbers without one leave nothing.
pub async fn note(connection: &mut Connection, logins: Vec<NewLogin>) -> Result<(), StoreError> {
    transaction!(connection, |connection| {
        for login in &logins {
            let (text, of) = match login.of {
                LoginOf::Code(id) => (BY_CODE, id.0),
                LoginOf::Account(id) => (BY_ACCOUNT, id.0),
            };
            sql(text)
                .bind::<Uuid, _>(login.id)
                .bind::<Nullable<Uuid>, _>(login.device_id)
                .bind::<Text, _>(login.method)
                .bind::<Text, _>(login.outcome)
                .bind::<Nullable<Text>, _>(login.address.as_deref())
                .bind::<Nullable<Text>, _>(login.agent.as_deref())
                .bind::<Moment, _>(login.at)
                .bind::<Uuid, _>(of)
                .execute(connection)
                .await?;
        }
        Ok::<_, StoreError>(())
    })
}

/// Tries of a user since a moment and before an entry, newest first.
pub async fn before(
    connection: &mut Connection,
    user: UserId,
    since: Timestamp,
    before: (Timestamp, uuid::Uuid),
    limit: i64,
) -> Result<Vec<LoginRow>, StoreError> {
    Ok(sql("SELECT id, device_id, method, outcome, address, agent, created_at FROM logins \
         WHERE user_id = $1 AND created_at >= $2 AND (created_at, id) < ($3, $4) \
         ORDER BY created_at DESC, id DESC LIMIT $5")
    .bind::<Uuid, _>(user)
    .bind::<Moment, _>(since)
    .bind::<Moment, _>(before.0)
    .bind::<Uuid, _>(before.1)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?)
}

/// Makes room for the coming months, and forgets what is older than `since`. Any number of nodes may do it at once.
pub async fn keep_house(connection: &mut Connection, since: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    if !LOGINS_BY_MONTH {
        sql("DELETE FROM logins WHERE (user_id, created_at, id) IN \
             (SELECT user_id, created_at, id FROM logins WHERE created_at < $1 ORDER BY created_at LIMIT $2)")
        .bind::<Moment, _>(since)
        .bind::<BigInt, _>(AT_ONCE)
        .execute(connection)
        .await?;
        return Ok(());
    }
    let wanted: Vec<Month> =
        std::iter::successors(Month::of(now), |month| Some(month.next())).take(AHEAD + 1).collect();
    if changes(connection, &wanted, since).await?.is_empty() {
        return Ok(());
    }
    transaction!(connection, |connection| {
        connection.batch_execute(ONE_NODE).await?;
        for statement in changes(connection, &wanted, since).await? {
            connection.batch_execute(&statement).await?;
        }
        Ok::<_, StoreError>(())
    })
}

/// What is to be done about partitions.
async fn changes(connection: &mut Connection, wanted: &[Month], since: Timestamp) -> Result<Vec<String>, StoreError> {
    let rows: Vec<NameRow> =
        sql("SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'logins'::regclass")
        .load(connection)
        .await?;
    let there: Vec<Month> = rows.iter().filter_map(|row| Month::of_partition("logins", &row.name)).collect();
    let oldest = Month::of(since);
    let made = wanted.iter().filter(|month| !there.contains(month)).map(|month| {
        let (name, from, to) = (month.partition("logins"), month.start(), month.next().start());
        format!("CREATE TABLE {name} PARTITION OF logins FOR VALUES FROM ('{from}') TO ('{to}')")
    });
    let dropped = there.iter().filter(|month| oldest.is_some_and(|oldest| **month < oldest) && !wanted.contains(month));
    Ok(made.chain(dropped.map(|month| format!("DROP TABLE {}", month.partition("logins")))).collect())
}
