//! The change of an account's number.

use super::second_factor::Asked;
use super::*;
use crate::account_change::{Change, Held, Ruling, rule};
use crate::rows::number::NumberChange;
use crate::rows::registration_lock::LockRow;
use crate::rows::sign_in::{Refusal, SignedIn};
use crate::second_factor::{Guard, Use};
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use serde_json::json;
use sotto_protocol::trail::TrailEvent;

/// How an account event about it is called.
const EVENT: &str = "phone_changed";

#[derive(QueryableByName)]
struct PhoneRow {
    #[diesel(sql_type = Text)]
    phone: String,
}

/// Gives an account another number, if what was shown allows it, and tells its devices. Only the account is `told`.
pub async fn change(connection: &mut Connection, change: NumberChange) -> Result<SignedIn, StoreError> {
    let changed = transaction!(connection, |connection| { change_in(connection, &change).await });
    match changed {
        // Another account has the number; nothing was done.
        Err(error) if error.is_unique_violation() => Ok(SignedIn::Refused(Refusal::NumberInUse)),
        changed => changed,
    }
}

async fn change_in(connection: &mut Connection, change: &NumberChange) -> Result<SignedIn, StoreError> {
    let NumberChange { code, user_id, evidence, old, wait } = change;
    let (user, now) = (*user_id, code.now);
    // In the order of their ids: of two requests with the same codes in exchanged places one waits for the other.
    let taken = evidence.taken.as_ref();
    let mut codes: Vec<_> = std::iter::once((code, taken)).chain(old.as_ref().map(|old| (old, None))).collect();
    codes.sort_by_key(|(code, _)| code.verification_id);
    for (code, taken) in codes {
        if let Some(answer) = proofs::begin(connection, code, taken).await? {
            return Ok(answer);
        }
    }
    second_factor::lock(connection, user, now).await?;
    let PhoneRow { phone } =
        sql("SELECT phone FROM users WHERE id = $1").bind::<Uuid, _>(user).get_result(connection).await?;
    if old.as_ref().is_some_and(|old| old.phone != phone) {
        // It is another number's, or the number was changed since.
        return Ok(SignedIn::Rejected { attempts_left: 0 });
    }
    let row = registration_lock::guards(connection, user).await?;
    let factor = row.factor.as_ref().map(|row| &row.factor);
    let factor_since = factor.and_then(|factor| factor.enabled_at);
    let guard = Guard::of(Change::ChangeContact.asks(*wait, now), factor, row.lock.as_ref().map(LockRow::standing));
    let used = match second_factor::ask(connection, Some(code), &guard, evidence, now).await? {
        Asked::NotNeeded => None,
        Asked::Answered(answer) => return Ok(answer),
        Asked::Passed(used) => Some(used),
    };
    let held = Held { code: old.is_some(), shown: used };
    match rule(Change::ChangeContact, &guard, factor_since, held, *wait, now) {
        Ruling::Allowed | Ruling::NothingToChange => {}
        Ruling::Missing(methods) => return Ok(SignedIn::SecondFactorRequired { methods }),
        Ruling::Waits(until) => return Ok(SignedIn::Refused(Refusal::Waits { until })),
    }
    if code.phone == phone {
        return Ok(SignedIn::Refused(Refusal::OwnNumber));
    }
    if let Some(answer) = second_factor::spend(connection, Some(code), user, used, evidence, now).await? {
        return Ok(answer);
    }
    if let Some(old) = old {
        proofs::use_up(connection, old).await?;
    }
    sql("UPDATE users SET phone = $2, updated_at = $3 WHERE id = $1")
        .bind::<Uuid, _>(user)
        .bind::<Text, _>(&code.phone)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    account_log::append_own(connection, user, EVENT, user.0, &json!({ "phone": code.phone }), now).await?;
    if let Some(Use::BackupCode(_)) = used {
        sign_in::tell(connection, code, user, TrailEvent::BackupCodeUsed).await?;
    }
    sign_in::tell(connection, code, user, TrailEvent::PhoneChanged).await?;
    Ok(SignedIn::Done { user_id: user, ended: Vec::new(), told: vec![user] })
}
