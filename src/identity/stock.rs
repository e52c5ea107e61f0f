//! Which of a device's stocks of keys run low, as the socket and the sync tell it.

use futures::FutureExt;
use futures::future::BoxFuture;
use sotto_actors::Caller;
use sotto_protocol::event::KeysLow;
use sotto_protocol::{DeviceId, Problem, Timestamp};
use sotto_schema::rows::keys::low_stocks;
use uuid::Uuid;

use super::Identity;

impl sotto_actors::Identity for Identity {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, Problem>> {
        async move {
            let caller = self.authenticate(token, Timestamp::now()).await.map_err(|error| error.0)?;
            Ok(Caller {
                user_id: caller.user_id,
                device_id: caller.device_id,
                session_id: caller.session_id,
                token_expires_at: caller.token_expires_at,
            })
        }
        .boxed()
    }

    fn is_live(&self, family: Uuid) -> BoxFuture<'_, bool> {
        async move { self.is_live(family, Timestamp::now()).await.unwrap_or(true) }.boxed()
    }

    fn keys_low(&self, device: DeviceId) -> BoxFuture<'_, Vec<KeysLow>> {
        async move {
            let look = async {
                let ever = self.store.stocked_kinds(device).await?;
                let count = self.store.key_count(device).await?;
                Ok::<_, sotto_schema::StoreError>(low_stocks(&count, &ever, Timestamp::now()))
            };
            match look.await {
                Ok(low) => low.into_iter().map(|(kind, remaining)| KeysLow { kind, remaining }).collect(),
                Err(error) => {
                    tracing::warn!(%error, "the stock of keys could not be read");
                    Vec::new()
                }
            }
        }
        .boxed()
    }
}
