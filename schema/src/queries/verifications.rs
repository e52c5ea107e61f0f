//! Requests for codes.

use super::*;
use crate::asking::{self, Asker, Verdict};
use crate::rows::verifications::{NewVerification, VerificationStarted};
use crate::types::{Moment, Uuid, Word};
use diesel::sql_types::{Binary, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::Timestamp;
use sotto_protocol::auth::Purpose;

/// Stores a request for a code, if the limits allow. The same work is done, and the same is counted, whether or not the number has
/// an account.
pub async fn start(
    connection: &mut Connection,
    new: NewVerification,
    now: Timestamp,
) -> Result<VerificationStarted, StoreError> {
    transaction!(connection, |connection| {
        let owner = devices::by_phone(connection, &new.phone).await?;
        let known = networks::known(connection, &new.phone, &new.networks, now).await?;
        let changes_number = new.purpose == Purpose::PhoneChange;
        let payer = Asker { caller: new.caller, owner, changes_number, known }.payer();
        let (counted, reached) = allowances::examine(connection, new.budgets.of(payer), 1, now).await?;
        let guarded = counted.iter().filter(|(allowance, _)| new.demands && allowance.is_guarded);
        let share = guarded.map(|(allowance, moments)| allowance.share(moments, now)).max();
        let (answer, used_before) = allowances::examine(connection, new.answer.as_slice(), 1, now).await?;
        let is_answered = !answer.is_empty() && used_before.is_none();
        let uses_answer = match asking::verdict(reached, share, is_answered) {
            Verdict::Limited(reached) => return Ok(VerificationStarted::Limited(reached)),
            Verdict::Challenged => return Ok(VerificationStarted::Challenged { share: share.unwrap_or_default() }),
            Verdict::Taken { uses_answer } => uses_answer,
        };
        allowances::count_in(connection, counted, 1, now).await?;
        allowances::count_in(connection, answer, usize::from(uses_answer), now).await?;
        let send = owner.is_some() || !new.purpose.needs_account();
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
