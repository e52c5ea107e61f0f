//! Recovery: a new device in the place of all that an account has.

use super::second_factor::Asked;
use super::*;
use crate::rows::sign_in::{Attempt, NewSession, Recovered, Refusal, SignedIn, SigningDevice};
use crate::second_factor::{Asks, Shown, Use};
use sotto_protocol::DeviceId;
use sotto_protocol::trail::{Removal, TrailEvent};

/// Signs a new device in and removes all others, after the right code and what stands behind it. A backup code turns the
/// second factor off: the app is lost that it stands for.
pub async fn recover(
    connection: &mut Connection,
    attempt: Attempt,
    shown: Shown,
    device: SigningDevice,
    session: NewSession,
) -> Result<Recovered, StoreError> {
    let now = attempt.now;
    transaction!(connection, |connection| {
        if let Some(answer) = sign_in::begin(connection, &attempt).await? {
            return Ok(answer.into());
        }
        let Some(user) = second_factor::lock_by_phone(connection, &attempt.phone, now).await? else {
            return Ok(SignedIn::Refused(Refusal::NoAccount).into());
        };
        let used = match second_factor::ask(connection, &attempt, user, Asks::FactorOrPin, &shown).await? {
            Asked::Answered(answer) => return Ok(answer.into()),
            Asked::NotNeeded => return Ok(SignedIn::Refused(Refusal::NothingBehindCode).into()),
            Asked::Passed(used) => used,
        };
        let others = devices::of_user(connection, user).await?;
        let identity = device.keys.identity_key.as_ref().map(AsRef::<[u8]>::as_ref);
        if others.iter().any(|other| identity == Some(other.identity_key.as_slice())) {
            return Ok(SignedIn::Refused(Refusal::IdentityInUse).into());
        }
        if let Some(answer) = second_factor::spend(connection, &attempt, user, Some(used)).await? {
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
            second_factor::remove(connection, user).await?;
            sign_in::tell(connection, &attempt, user, TrailEvent::BackupCodeUsed).await?;
            sign_in::tell(connection, &attempt, user, TrailEvent::SecondFactorDisabled).await?;
        }
        let told = devices::add(connection, user, &device, now).await?;
        sign_in::insert_session(connection, user, device.id, &session, now).await?;
        networks::remember(connection, user, &attempt.networks, now).await?;
        sign_in::tell(connection, &attempt, user, TrailEvent::Recovered { device_id: device.id }).await?;
        Ok::<_, StoreError>(Recovered { answer: SignedIn::Done { user_id: user, ended: Vec::new(), told }, removed })
    })
}
