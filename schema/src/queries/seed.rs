//! Users by the thousand, for load tools: each statement stores the rows of a whole JSON array.
//!
//! Reading the array is the one thing that the databases spell differently: `given_rows!`, `given_uuid!` and
//! `given_bytes!` stand beside their connections.

use super::*;
use crate::rows::seed::Seed;
use crate::types::{Json, Moment};
use diesel_async::RunQueryDsl;
use sotto_protocol::Timestamp;

/// Stores users, devices, keys, token families and conversations in one transaction. Nobody is told: whoever is new
/// has no socket, and starts with nothing that waits for him.
pub async fn seed(connection: &mut Connection, seed: Seed, now: Timestamp) -> Result<(), StoreError> {
    let (users, conversations, members) = (seed.user_rows(), seed.conversation_rows(), seed.member_rows());
    // As after a sign-in whose news the device has acknowledged: `account_seen` is `account_seq`.
    let of_users = [
        concat!(
            "INSERT INTO users (id, phone, device_version, account_seq, created_at, updated_at) SELECT ",
            given_uuid!("user"),
            ", given.value->>'phone', 1, 0, $2, $2 ",
            given_rows!()
        ),
        concat!(
            "INSERT INTO devices (id, user_id, name, platform, suite, identity_key, signing_key, identity_signature, account_seen, \
             last_active_at, created_at, updated_at) SELECT ",
            given_uuid!("device"),
            ", ",
            given_uuid!("user"),
            ", 'Seeded', 'desktop', 'olm', ",
            given_bytes!("identity_key"),
            ", ",
            given_bytes!("signing_key"),
            ", ",
            given_bytes!("identity_signature"),
            ", 0, $2, $2, $2 ",
            given_rows!()
        ),
    ];
    let with_end_of_life = [
        (
            concat!(
                "INSERT INTO prekeys (device_id, kind, key_id, public_key, signature, expires_at, created_at, \
                 updated_at) SELECT ",
                given_uuid!("device"),
                ", 'signed', 1, ",
                given_bytes!("signed_prekey"),
                ", ",
                given_bytes!("signature"),
                ", $3, $2, $2 ",
                given_rows!()
            ),
            seed.signed_prekey_expires_at,
        ),
        // Confirmed: the first use of each token is not one more write in the middle of a measurement.
        (
            concat!(
                "INSERT INTO sessions (id, user_id, device_id, generation, confirmed, expires_at, created_at, \
                 updated_at) SELECT ",
                given_uuid!("family"),
                ", ",
                given_uuid!("user"),
                ", ",
                given_uuid!("device"),
                ", 1, 1, $3, $2, $2 ",
                given_rows!()
            ),
            seed.families_expire_at,
        ),
    ];
    let of_conversations = [
        concat!(
            "INSERT INTO conversations (id, kind, direct_pair, created_by, created_at, updated_at) SELECT ",
            given_uuid!("conversation"),
            ", given.value->>'kind', given.value->>'pair', ",
            given_uuid!("creator"),
            ", $2, $2 ",
            given_rows!()
        ),
        concat!(
            "INSERT INTO heads (conversation_id, created_at, updated_at) SELECT ",
            given_uuid!("conversation"),
            ", $2, $2 ",
            given_rows!()
        ),
        concat!(
            "INSERT INTO receipts (conversation_id, created_at, updated_at) SELECT ",
            given_uuid!("conversation"),
            ", $2, $2 ",
            given_rows!()
        ),
    ];
    let of_members = concat!(
        "INSERT INTO memberships (conversation_id, user_id, from_seq, role, joined_at, created_at, updated_at) SELECT ",
        given_uuid!("conversation"),
        ", ",
        given_uuid!("user"),
        ", 1, given.value->>'role', $2, $2, $2 ",
        given_rows!()
    );
    transaction!(connection, |connection| {
        for text in of_users {
            sql(text).bind::<Json, _>(&users).bind::<Moment, _>(now).execute(connection).await?;
        }
        for (text, ends_at) in with_end_of_life {
            let statement = sql(text).bind::<Json, _>(&users).bind::<Moment, _>(now);
            statement.bind::<Moment, _>(ends_at).execute(connection).await?;
        }
        for text in of_conversations {
            sql(text).bind::<Json, _>(&conversations).bind::<Moment, _>(now).execute(connection).await?;
        }
        sql(of_members).bind::<Json, _>(&members).bind::<Moment, _>(now).execute(connection).await?;
        Ok(())
    })
}
