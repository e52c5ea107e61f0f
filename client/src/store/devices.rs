//! Known devices of users, their identity keys, and whether a user's list is complete.

use super::schema::{device_lists, devices};
use super::{Tx, id};
use crate::crypto::pairwise::check_identity;
use crate::error::{Error, Result};
use diesel::prelude::*;
use sotto_protocol::keys::{Bundle, Suite};
use sotto_protocol::{DeviceId, Timestamp, UserId};

impl Tx<'_> {
    /// The identity key that a device showed first.
    pub(crate) fn identity_key(&mut self, device: DeviceId) -> Result<Option<Vec<u8>>> {
        let found =
            devices::table.find(device.to_string()).select(devices::identity_key).first(self.connection).optional()?;
        Ok(found)
    }

    /// Remembers a device's identity key, or compares it with the remembered one.
    pub(crate) fn pin_identity(
        &mut self,
        user: UserId,
        device: DeviceId,
        suite: Suite,
        identity_key: &[u8],
        listed: bool,
    ) -> Result<()> {
        let known: Option<(String, Vec<u8>)> = devices::table
            .find(device.to_string())
            .select((devices::user_id, devices::identity_key))
            .first(self.connection)
            .optional()?;
        match known {
            Some((owner, key)) if owner != user.to_string() || key != identity_key => {
                Err(Error::IdentityChanged { user_id: user, device_id: device })
            }
            Some(_) if !listed => Ok(()),
            Some(_) => {
                diesel::update(devices::table.find(device.to_string()))
                    .set(devices::listed.eq(true))
                    .execute(self.connection)?;
                Ok(())
            }
            None => {
                diesel::insert_into(devices::table)
                    .values((
                        devices::device_id.eq(device.to_string()),
                        devices::user_id.eq(user.to_string()),
                        devices::suite.eq(suite.as_str()),
                        devices::identity_key.eq(identity_key),
                        devices::listed.eq(listed),
                    ))
                    .execute(self.connection)?;
                Ok(())
            }
        }
    }

    /// A user's devices as the server listed them; `None` when the list is not known.
    pub(crate) fn device_list(&mut self, user: UserId) -> Result<Option<Vec<(DeviceId, Suite)>>> {
        let known: Option<i64> = device_lists::table
            .find(user.to_string())
            .select(device_lists::fetched_at)
            .first(self.connection)
            .optional()?;
        if known.is_none() {
            return Ok(None);
        }
        self.listed_devices(user).map(Some)
    }

    fn listed_devices(&mut self, user: UserId) -> Result<Vec<(DeviceId, Suite)>> {
        let rows: Vec<(String, String)> = devices::table
            .filter(devices::user_id.eq(user.to_string()))
            .filter(devices::listed.eq(true))
            .order(devices::device_id)
            .select((devices::device_id, devices::suite))
            .load(self.connection)?;
        rows.into_iter()
            .map(|(device, suite)| {
                let suite = Suite::parse(&suite).ok_or_else(|| Error::store("unknown suite"))?;
                Ok((id(&device)?, suite))
            })
            .collect()
    }

    /// Takes the server's complete list of a user's devices.
    pub(crate) fn put_device_list(&mut self, user: UserId, bundles: &[Bundle]) -> Result<()> {
        diesel::update(devices::table.filter(devices::user_id.eq(user.to_string())))
            .set(devices::listed.eq(false))
            .execute(self.connection)?;
        for bundle in bundles {
            check_identity(user, bundle)?;
            self.pin_identity(user, bundle.device_id, bundle.suite, &bundle.identity_key.0, true)?;
        }
        diesel::replace_into(device_lists::table)
            .values((
                device_lists::user_id.eq(user.to_string()),
                device_lists::fetched_at.eq(Timestamp::now().as_micros()),
            ))
            .execute(self.connection)?;
        Ok(())
    }

    /// A user's devices changed: the list must be fetched before the next message to him.
    pub(crate) fn forget_device_list(&mut self, user: UserId) -> Result<()> {
        diesel::delete(device_lists::table.find(user.to_string())).execute(self.connection)?;
        Ok(())
    }

    /// All devices ever seen of a user with their identity keys, to compare by another way.
    pub(crate) fn identities(&mut self, user: UserId) -> Result<Vec<(DeviceId, Vec<u8>)>> {
        let rows: Vec<(String, Vec<u8>)> = devices::table
            .filter(devices::user_id.eq(user.to_string()))
            .order(devices::device_id)
            .select((devices::device_id, devices::identity_key))
            .load(self.connection)?;
        rows.into_iter().map(|(device, key)| Ok((id(&device)?, key))).collect()
    }
}
