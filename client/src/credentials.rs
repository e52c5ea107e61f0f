//! Tokens: kept before they are used, refreshed one at a time, used up by whoever holds them.

use crate::client::Client;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::rest::Rest;
use crate::store::Tx;
use serde::{Deserialize, Serialize};
use sotto_protocol::auth::Tokens;
use sotto_protocol::{DeviceId, ErrorCode, Timestamp, UserId};
use std::time::Duration;

const NAME: &str = "credentials";
/// A token is renewed this long before its end, or at a fifth of its life if that is less.
const MARGIN: Duration = Duration::from_secs(60);

/// Who is signed in, and with which tokens.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    access_token: String,
    refresh_token: String,
    renew_at: Timestamp,
}

impl Credentials {
    pub(crate) fn new(tokens: Tokens) -> Self {
        let life = Duration::from_secs(tokens.expires_in);
        let renew_at = Timestamp::now().plus(life.saturating_sub(MARGIN.min(life / 5)));
        Self {
            user_id: tokens.user_id,
            device_id: tokens.device_id,
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            renew_at,
        }
    }

    pub(crate) fn load(tx: &mut Tx<'_>) -> Result<Option<Self>> {
        tx.meta_json(NAME)
    }

    pub(crate) fn save(&self, tx: &mut Tx<'_>) -> Result<()> {
        tx.set_meta_json(NAME, self)
    }

    pub(crate) fn remove(tx: &mut Tx<'_>) -> Result<()> {
        tx.remove_meta(NAME)
    }
}

impl Client {
    /// An access token that is valid for a while, by this device's clock.
    pub(crate) async fn token(&self) -> Result<String> {
        let credentials = self.credentials().await?;
        if Timestamp::now() < credentials.renew_at {
            return Ok(credentials.access_token);
        }
        match self.renew(&credentials.access_token).await {
            // The old token may still be good for its last minute.
            Err(error) if error.is_retryable() => Ok(credentials.access_token),
            renewed => renewed,
        }
    }

    /// Another access token than `stale`.
    pub(crate) async fn renew(&self, stale: &str) -> Result<String> {
        let _one_at_a_time = self.inner.renewing.lock().await;
        let credentials = self.credentials().await?;
        if credentials.access_token != stale {
            return Ok(credentials.access_token);
        }
        match self.inner.rest.refresh(&credentials.refresh_token).await {
            Ok(tokens) => {
                let renewed = Credentials::new(tokens);
                let token = renewed.access_token.clone();
                self.inner.store.run(move |tx| renewed.save(tx)).await?;
                Ok(token)
            }
            Err(error) if error.code() == Some(ErrorCode::Unauthenticated) => {
                self.tell(Event::SignedOut);
                Err(Error::SignedOut)
            }
            Err(error) => Err(error),
        }
    }

    async fn credentials(&self) -> Result<Credentials> {
        self.inner.store.run(Credentials::load).await?.ok_or(Error::NotSignedIn)
    }

    /// A REST call as this device; once more with a new token if the server does not take the old one.
    pub(crate) async fn call<T, F, Answer>(&self, request: F) -> Result<T>
    where
        F: Fn(Rest) -> Answer + Send,
        Answer: Future<Output = Result<T>> + Send,
    {
        let token = self.token().await?;
        match request(self.inner.rest.with_token(&token)).await {
            Err(error) if error.code() == Some(ErrorCode::Unauthenticated) => {
                let token = self.renew(&token).await?;
                request(self.inner.rest.with_token(&token)).await
            }
            answer => answer,
        }
    }
}
