//! The change of an account's number.

use super::second_factor::Asked;
use super::*;
use crate::rows::number::NumberChange;
use crate::rows::sign_in::{Attempt, Refusal, SignedIn};
use crate::second_factor::{Asks, Method, Use};
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
    let NumberChange { attempt, user_id, shown, old } = change;
    let (user, now) = (*user_id, attempt.now);
    if let Some(answer) = sign_in::begin(connection, attempt).await? {
        return Ok(answer);
    }
    second_factor::lock(connection, user, now).await?;
    let PhoneRow { phone } =
        sql("SELECT phone FROM users WHERE id = $1").bind::<Uuid, _>(user).get_result(connection).await?;
    let old = match old {
        Some((id, of)) if *of == phone => {
            let old = Attempt { verification_id: *id, failures: Vec::new(), ..attempt.clone() };
            if let Some(answer) = sign_in::begin(connection, &old).await? {
                return Ok(answer);
            }
            Some(old)
        }
        // It was changed since.
        Some(_) => return Ok(SignedIn::Rejected { attempts_left: 0 }),
        None => None,
    };
    // A code of the present number stands in for a PIN, and never for a second factor.
    let asks = if old.is_some() { Asks::Factor } else { Asks::FactorOrPin };
    let used = match second_factor::ask(connection, attempt, user, asks, shown).await? {
        Asked::NotNeeded if old.is_none() => {
            return Ok(SignedIn::SecondFactorRequired { methods: vec![Method::OldNumber] });
        }
        Asked::Answered(SignedIn::SecondFactorRequired { mut methods }) => {
            if methods.contains(&Method::Pin) {
                methods.push(Method::OldNumber);
            }
            return Ok(SignedIn::SecondFactorRequired { methods });
        }
        Asked::Answered(answer) => return Ok(answer),
        Asked::NotNeeded => None,
        Asked::Passed(used) => Some(used),
    };
    if attempt.phone == phone {
        return Ok(SignedIn::Refused(Refusal::OwnNumber));
    }
    if let Some(answer) = second_factor::spend(connection, attempt, user, used).await? {
        return Ok(answer);
    }
    if let Some(old) = &old {
        sign_in::use_up(connection, old).await?;
    }
    sql("UPDATE users SET phone = $2, updated_at = $3 WHERE id = $1")
        .bind::<Uuid, _>(user)
        .bind::<Text, _>(&attempt.phone)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    account_log::append_own(connection, user, EVENT, user.0, &json!({ "phone": attempt.phone }), now).await?;
    if let Some(Use::BackupCode(_)) = used {
        sign_in::tell(connection, attempt, user, TrailEvent::BackupCodeUsed).await?;
    }
    sign_in::tell(connection, attempt, user, TrailEvent::PhoneChanged).await?;
    Ok(SignedIn::Done { user_id: user, ended: Vec::new(), told: vec![user] })
}
