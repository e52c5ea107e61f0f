//! Recovery: a new device in the place of all that an account has.

use super::second_factor::Asked;
use super::*;
use crate::account_change::{Change, Held, Ruling, rule};
use crate::rows::proofs::{Evidence, RightCode};
use crate::rows::registration_lock::LockRow;
use crate::rows::sign_in::{NewSession, Recovered, Refusal, SignedIn, SigningDevice};
use crate::second_factor::{Guard, Use};
use sotto_protocol::DeviceId;
use sotto_protocol::trail::{Removal, TrailEvent};
use std::time::Duration;

/// Signs a new device in and removes all others, after the right code and what stands behind it. A backup code turns the
/// second factor off: the app is lost that it stands for.
pub async fn recover(
    connection: &mut Connection,
    code: RightCode,
    evidence: Evidence,
    wait: Duration,
    device: SigningDevice,
    session: NewSession,
) -> Result<Recovered, StoreError> {
    let now = code.now;
    transaction!(connection, |connection| {
        if let Some(answer) = proofs::begin(connection, &code, evidence.taken.as_ref()).await? {
            return Ok(answer.into());
        }
        let Some(user) = second_factor::lock_by_phone(connection, &code.phone, now).await? else {
            return Ok(SignedIn::Refused(Refusal::NoAccount).into());
        };
        let row = registration_lock::guards(connection, user).await?;
        let factor = row.factor.as_ref().map(|row| &row.factor);
        let factor_since = factor.and_then(|factor| factor.enabled_at);
        let guard = Guard::of(Change::Recover.asks(wait, now), factor, row.lock.as_ref().map(LockRow::standing));
        let used = match second_factor::ask(connection, Some(&code), &guard, &evidence, now).await? {
            Asked::Answered(answer) => return Ok(answer.into()),
            Asked::NotNeeded => return Ok(SignedIn::Refused(Refusal::NothingBehindCode).into()),
            Asked::Passed(used) => used,
        };
        let held = Held { code: true, shown: Some(used) };
        if let Ruling::Waits(until) = rule(Change::Recover, &guard, factor_since, held, wait, now) {
            return Ok(SignedIn::Refused(Refusal::Waits { until }).into());
        }
        let others = devices::of_user(connection, user).await?;
        let identity = device.keys.identity_key.as_ref().map(AsRef::<[u8]>::as_ref);
        if others.iter().any(|other| identity == Some(other.identity_key.as_slice())) {
            return Ok(SignedIn::Refused(Refusal::IdentityInUse).into());
        }
        if let Some(answer) = second_factor::spend(connection, Some(&code), user, Some(used), &evidence, now).await? {
            return Ok(answer.into());
        }
        let others: Vec<DeviceId> = others.into_iter().map(|other| other.device_id).collect();
        // The locks of all sessions before that of the trail, as everywhere.
        let mut families = Vec::with_capacity(others.len());
        for id in &others {
            families.push(sign_in::end_sessions(connection, *id, now).await?);
        }
        let mut removed = Vec::with_capacity(others.len());
        for (id, families) in others.into_iter().zip(families) {
            removed.push(devices::remove_in(connection, user, id, Removal::Recovered, families, now).await?);
        }
        if let Use::BackupCode(_) = used {
            sign_in::tell(connection, &code, user, TrailEvent::BackupCodeUsed).await?;
        }
        // The PIN opens only what it guarded: a second factor beside it is a new one, which it undoes.
        if factor_since.is_some() && matches!(used, Use::BackupCode(_) | Use::Pin(_)) {
            second_factor::remove(connection, user).await?;
            sign_in::tell(connection, &code, user, TrailEvent::SecondFactorDisabled).await?;
        }
        let told = devices::add(connection, user, &device, now).await?;
        sign_in::insert_session(connection, user, device.id, &session, now).await?;
        networks::remember(connection, user, &code.networks, now).await?;
        sign_in::tell(connection, &code, user, TrailEvent::Recovered { device_id: device.id }).await?;
        Ok::<_, StoreError>(Recovered { answer: SignedIn::Done { user_id: user, ended: Vec::new(), told }, removed })
    })
}
