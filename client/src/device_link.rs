//! Linking a new device by a QR code: the side that shows it, and the side that scans and confirms it.

use crate::backoff::Backoff;
use crate::client::{Client, Options};
use crate::crypto::account;
use crate::error::{Error, Result};
use crate::rest::{Rest, nothing, parse};
use crate::store::Store;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use sotto_protocol::auth::{DeviceInfo, Tokens};
use sotto_protocol::device_link::{
    BeginLink, BegunLink, CollectLink, ConfirmLink, LinkCode, LinkPending, LinkUri, ScannedLink,
};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::{LinkId, Timestamp};
use std::fmt;
use std::time::{Duration, Instant};

/// A server that has no room to hold a request answers at once; so often is it asked at most.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What a new device gets that asks for its tokens.
#[derive(Clone)]
pub enum Collected {
    /// It is a device of the account.
    Tokens(Tokens),
    /// Nobody has confirmed yet.
    Pending(LinkPending),
}

impl Rest {
    /// `POST /v1/auth/links`: a new device asks to be linked.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn begin_link(&self, request: &BeginLink) -> Result<BegunLink> {
        self.post("/v1/auth/links", request).await
    }

    /// `POST /v1/auth/links/{link_id}/scan`: who wants to join the caller's account.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn scan_link(&self, link: LinkId, code: &LinkCode) -> Result<ScannedLink> {
        self.post(&format!("/v1/auth/links/{link}/scan"), code).await
    }

    /// `POST /v1/auth/links/{link_id}/confirm`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn confirm_link(&self, link: LinkId, request: &ConfirmLink) -> Result<()> {
        let path = format!("/v1/auth/links/{link}/confirm");
        nothing(self.send(Method::POST, &path, Some(request), HeaderMap::new()).await?)
    }

    /// `POST /v1/auth/links/{link_id}/refuse`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn refuse_link(&self, link: LinkId, code: &LinkCode) -> Result<()> {
        let path = format!("/v1/auth/links/{link}/refuse");
        nothing(self.send(Method::POST, &path, Some(code), HeaderMap::new()).await?)
    }

    /// `POST /v1/auth/links/{link_id}/tokens`: the new device asks for its tokens. The server may hold the answer for some
    /// seconds.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn collect_link(&self, link: LinkId, request: &CollectLink) -> Result<Collected> {
        let path = format!("/v1/auth/links/{link}/tokens");
        let answer = self.send(Method::POST, &path, Some(request), HeaderMap::new()).await?;
        if answer.status == StatusCode::ACCEPTED.as_u16() {
            return Ok(Collected::Pending(parse(&answer)?));
        }
        Ok(Collected::Tokens(parse(&answer)?))
    }
}

/// A new device that shows its QR code and waits. `Debug` shows no secret.
pub struct PendingLink {
    options: Options,
    rest: Rest,
    store: Store,
    begun: BegunLink,
}

impl PendingLink {
    /// The text of the QR code, to be drawn as one.
    #[must_use]
    pub fn qr(&self) -> &str {
        &self.begun.qr
    }

    /// The QR code as SVG.
    #[must_use]
    pub fn qr_svg(&self) -> &str {
        &self.begun.qr_svg
    }

    /// The QR code as a `data:` URI of a PNG.
    #[must_use]
    pub fn qr_png(&self) -> &str {
        &self.begun.qr_png
    }

    /// Until when it can be scanned and confirmed.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.begun.expires_at
    }

    /// Waits until the account has confirmed, and is then a device of it. Failures of the network are waited out. Show whose
    /// account it is ([`Client::user_id`]): whoever scans the code first decides that.
    ///
    /// # Errors
    /// `not_found` when it was refused or has expired: begin again with the same store. `conflict` and `limit_reached` when
    /// the account cannot take the device.
    pub async fn wait(self) -> Result<Client> {
        let Self { options, rest, store, begun } = self;
        let (link, challenge) = (begun.link_id, begun.challenge.clone());
        let proof = store.run(move |tx| account::link_proof(tx, link, &challenge)).await?;
        let request = CollectLink { link_secret: begun.link_secret, challenge: begun.challenge, proof };
        let mut backoff = Backoff::new();
        loop {
            let asked = Instant::now();
            match rest.collect_link(link, &request).await {
                Ok(Collected::Tokens(tokens)) => return Client::signed_in(options, rest, store, tokens).await,
                Ok(Collected::Pending(_)) => {
                    backoff.reset();
                    tokio::time::sleep(ASK_EVERY.saturating_sub(asked.elapsed())).await;
                }
                // The same tokens come again as long as none of them was used.
                Err(error) if error.is_retryable() && Timestamp::now() < begun.expires_at => {
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for PendingLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PendingLink").field("link_id", &self.begun.link_id).finish_non_exhaustive()
    }
}

impl Client {
    /// Begins to link a store to an account without a text message to this device: show the QR code, and wait. A store that
    /// was signed in before becomes the same device again.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn link(options: Options, store: Store, device: DeviceInfo) -> Result<PendingLink> {
        let rest = Rest::new(&options.server)?;
        let keys = store.run(account::sign_in_keys).await?;
        let begun = rest.begin_link(&BeginLink { device, keys }).await?;
        Ok(PendingLink { options, rest, store, begun })
    }

    /// Reads a QR code that was scanned, and asks who wants to join. Show it to whoever is to decide: a code may have been
    /// shown to them by somebody else.
    ///
    /// # Errors
    /// [`Error::Usage`] when the text is no such code. As the REST calls; `not_found` when it is of no use to this account.
    pub async fn scan_link(&self, qr: &str) -> Result<(LinkUri, ScannedLink)> {
        let uri = LinkUri::parse(qr).ok_or_else(|| Error::Usage("this is no code of a device to link".to_owned()))?;
        let (link, code) = (uri.link_id, uri.code.clone());
        let scanned = self.call(|rest| {
            let code = code.clone();
            async move { rest.scan_link(link, &code).await }
        });
        Ok((uri, scanned.await?))
    }

    /// Takes the device into this account. The proof needs a code for [`Purpose::DeviceLink`], and the second factor where
    /// there is one.
    ///
    /// [`Purpose::DeviceLink`]: sotto_protocol::auth::Purpose::DeviceLink
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn confirm_link(&self, uri: &LinkUri, proof: &Reauthentication) -> Result<()> {
        let request = ConfirmLink::new(uri.code.clone(), proof.clone());
        self.call(|rest| {
            let (link, request) = (uri.link_id, request.clone());
            async move { rest.confirm_link(link, &request).await }
        })
        .await
    }

    /// Refuses a device that was scanned; possible until it has its tokens.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn refuse_link(&self, uri: &LinkUri) -> Result<()> {
        self.call(|rest| {
            let uri = uri.clone();
            async move { rest.refuse_link(uri.link_id, &uri.code).await }
        })
        .await
    }
}
