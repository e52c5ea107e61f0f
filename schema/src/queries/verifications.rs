//! Requests for codes.

use super::*;
use crate::rows::verifications::{NewVerification, VerificationStarted};
use crate::types::{Moment, Uuid, Word};
use diesel::sql_types::{Binary, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::Timestamp;

/// Stores a request for a code, if the limits allow. The same work is done whether or not the number has an account.
pub async fn start(
    connection: &mut Connection,
    new: NewVerification,
    now: Timestamp,
) -> Result<VerificationStarted, StoreError> {
    transaction!(connection, |connection| {
        let (asking, asked_enough) = allowances::examine(connection, &new.asking, 1, now).await?;
        let (sending, sent_enough) = allowances::examine(connection, &new.sending, 1, now).await?;
        if let Some(reached) = asked_enough.or(sent_enough) {
            return Ok(VerificationStarted::Limited(reached));
        }
        let has_account = devices::by_phone(connection, &new.phone).await?.is_some();
        let send = has_account || !new.purpose.needs_account();
        allowances::count_in(connection, asking, 1, now).await?;
        allowances::count_in(connection, sending, usize::from(send), now).await?;
        let hash = if send { &new.code_hash } else { &new.no_code };
        sql("INSERT INTO verifications (id, phone, purpose, code_hash, tries, expires_at, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, 0, $5, $6, $6)")
        .bind::<Uuid, _>(new.id)
        .bind::<Text, _>(&new.phone)
        .bind::<Word, _>(new.purpose)
        .bind::<Binary, _>(hash)
        .bind::<Moment, _>(new.expires_at)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
        Ok(VerificationStarted::Started { send })
    })
}
