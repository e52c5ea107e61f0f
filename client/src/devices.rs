//! The devices of one's own account: the list, renaming, verifying, removing.

use crate::client::Client;
use crate::error::Result;
use crate::rest::{Rest, nothing};
use reqwest::Method;
use reqwest::header::HeaderMap;
use sotto_protocol::devices::{OwnDevice, OwnDevices, RenameDevice, VerifyDevice};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::{Binary, DeviceId};

impl Rest {
    /// `GET /v1/devices`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn own_devices(&self) -> Result<Vec<OwnDevice>> {
        let answer: OwnDevices = self.get("/v1/devices").await?;
        Ok(answer.devices)
    }

    /// `PATCH /v1/devices/{device_id}`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn rename_device(&self, device: DeviceId, name: &str) -> Result<()> {
        let body = RenameDevice { name: name.to_owned() };
        nothing(self.send(Method::PATCH, &format!("/v1/devices/{device}"), Some(&body), HeaderMap::new()).await?)
    }

    /// `POST /v1/devices/{device_id}/verify`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn verify_device(&self, device: DeviceId, identity_key: &Binary) -> Result<()> {
        let body = VerifyDevice { identity_key: identity_key.clone() };
        nothing(self.send(Method::POST, &format!("/v1/devices/{device}/verify"), Some(&body), HeaderMap::new()).await?)
    }

    /// `DELETE /v1/devices/{device_id}`. The calling device needs no proof.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn remove_device(&self, device: DeviceId, proof: Option<&Reauthentication>) -> Result<()> {
        nothing(self.send(Method::DELETE, &format!("/v1/devices/{device}"), proof, HeaderMap::new()).await?)
    }

    /// `DELETE /v1/devices`: all but the calling one.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn remove_other_devices(&self, proof: &Reauthentication) -> Result<()> {
        nothing(self.send(Method::DELETE, "/v1/devices", Some(proof), HeaderMap::new()).await?)
    }
}

impl Client {
    /// All devices of this account, the oldest first.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn own_devices(&self) -> Result<Vec<OwnDevice>> {
        self.call(|rest| async move { rest.own_devices().await }).await
    }

    /// Gives a device of this account another name; the others are told ([`crate::Event::DeviceUpdated`]).
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn rename_device(&self, device: DeviceId, name: &str) -> Result<()> {
        self.call(|rest| async move { rest.rename_device(device, name).await }).await
    }

    /// Tells the server that somebody has compared another device's identity key, read from that device itself.
    ///
    /// # Errors
    /// As the REST calls; `conflict` when the server has another key.
    pub async fn verify_device(&self, device: DeviceId, identity_key: &Binary) -> Result<()> {
        self.call(|rest| async move { rest.verify_device(device, identity_key).await }).await
    }

    /// Removes another device of this account: it is signed out at once. The proof is the second factor, or without one a code for
    /// [`Purpose::DeviceRemoval`] with the PIN where there is one.
    ///
    /// [`Purpose::DeviceRemoval`]: sotto_protocol::auth::Purpose::DeviceRemoval
    ///
    /// # Errors
    /// As the REST calls; `conflict` with `available_at` while a second factor is new.
    pub async fn remove_device(&self, device: DeviceId, proof: &Reauthentication) -> Result<()> {
        self.call(|rest| async move { rest.remove_device(device, Some(proof)).await }).await
    }

    /// Removes all devices of this account but this one, by the same proof.
    ///
    /// # Errors
    /// As [`Client::remove_device`].
    pub async fn remove_other_devices(&self, proof: &Reauthentication) -> Result<()> {
        self.call(|rest| async move { rest.remove_other_devices(proof).await }).await
    }
}
