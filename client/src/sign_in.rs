//! Signing in and out: what makes a store a device of an account.

use crate::client::{Client, Options};
use crate::credentials::Credentials;
use crate::crypto::account;
use crate::error::{Error, Result};
use crate::link::ATTEMPT;
use crate::rest::Rest;
use crate::store::{Store, Tx};
use sotto_protocol::VerificationId;
use sotto_protocol::auth::{DeviceInfo, LoginRequest, Purpose, RecoverRequest, RegisterRequest, Tokens, Verification};
use std::fmt;

/// What signing in needs. `Debug` shows no code.
#[derive(Clone)]
pub struct SignIn {
    /// From [`Client::verify`].
    pub verification_id: VerificationId,
    /// The six digits that came by SMS.
    pub code: String,
    /// What this device says of itself.
    pub device: DeviceInfo,
    /// Second factor of a login, where the account has one.
    pub totp: Option<String>,
    /// Replacement for the second factor.
    pub backup_code: Option<String>,
    /// PIN of the registration lock, where the account has one and no second factor.
    pub pin: Option<String>,
    /// Of a registration: whether the account that has the number is to be deleted, if it was silent for long enough.
    pub replace: bool,
}

impl SignIn {
    /// Signing in without second factor.
    #[must_use]
    pub fn new(verification_id: VerificationId, code: impl Into<String>, device: DeviceInfo) -> Self {
        Self { verification_id, code: code.into(), device, totp: None, backup_code: None, pin: None, replace: false }
    }

    /// The same with the code that the authenticator app shows: after [`Error::needs_second_factor`], with the same
    /// verification and code.
    #[must_use]
    pub fn with_totp(self, totp: impl Into<String>) -> Self {
        Self { totp: Some(totp.into()), ..self }
    }

    /// The same with a backup code instead.
    #[must_use]
    pub fn with_backup_code(self, backup_code: impl Into<String>) -> Self {
        Self { backup_code: Some(backup_code.into()), ..self }
    }

    /// The same, to register a number whose account has been silent since `available_at`: **that account is deleted**.
    #[must_use]
    pub fn replacing(self) -> Self {
        Self { replace: true, ..self }
    }

    /// The same with the PIN of the registration lock.
    #[must_use]
    pub fn with_pin(self, pin: impl Into<String>) -> Self {
        Self { pin: Some(pin.into()), ..self }
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignIn").field("verification_id", &self.verification_id).finish_non_exhaustive()
    }
}

impl Client {
    /// Asks the server to send a code to a number. A signed-in device asks with [`Client::rest`] and [`Rest::verify`] instead: that
    /// sends its token, and strangers cannot use its budget up.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn verify(server: &str, phone: &str, purpose: Purpose) -> Result<Verification> {
        Rest::new(server)?.verify(phone, purpose).await
    }

    /// Makes an account with this store's keys as its first device. With the second factor or else the PIN of the account that has the
    /// number, or [`SignIn::replacing`], that account is deleted with everything in it, and this one takes its place.
    ///
    /// # Errors
    /// As the REST calls; `conflict` with `available_at` when the account that has the number was in use lately. After an unknown outcome [`Client::login`] with the same store goes on.
    pub async fn register(options: Options, store: Store, sign_in: SignIn) -> Result<Self> {
        let rest = Rest::new(&options.server)?;
        let keys = store.run(account::sign_in_keys).await?;
        let SignIn { verification_id, code, device, totp, backup_code, pin, replace, .. } = sign_in;
        let replace = replace.then_some(true);
        let request = RegisterRequest { verification_id, code, device, keys, totp, backup_code, pin, replace };
        let tokens = rest.register(&request).await?;
        Self::signed_in(options, rest, store, tokens).await
    }

    /// Signs in. An empty store makes a new device of the account; a store that was signed in before
    /// proves it and becomes the same device again, with everything that waits for it.
    ///
    /// # Errors
    /// As the REST calls. [`Error::needs_second_factor`]: the account has one, or a PIN; ask for it and repeat with
    /// [`SignIn::with_totp`], [`SignIn::with_backup_code`] or [`SignIn::with_pin`], the code from the text message still serves.
    pub async fn login(options: Options, store: Store, sign_in: SignIn) -> Result<Self> {
        let rest = Rest::new(&options.server)?;
        let SignIn { verification_id, code, device, totp, backup_code, pin, .. } = sign_in;
        let (keys, device_proof) = store
            .run(move |tx| {
                let known = account::find(tx)?.is_some();
                let keys = account::sign_in_keys(tx)?;
                let proof = if known { Some(account::device_proof(tx, verification_id)?) } else { None };
                Ok((keys, proof))
            })
            .await?;
        let request = LoginRequest { verification_id, code, device, keys, device_proof, totp, backup_code, pin };
        let tokens = rest.login(&request).await?;
        Self::signed_in(options, rest, store, tokens).await
    }

    /// Signs this empty store in as a new device and removes all others, for whoever has lost them: by a code for
    /// [`Purpose::Recovery`] and the second factor, or else the PIN. A backup code turns the second factor off.
    ///
    /// # Errors
    /// As [`Client::login`]; `conflict` when the account has neither a second factor nor a PIN, and [`Error::Usage`] for a store
    /// that is signed in.
    pub async fn recover(options: Options, store: Store, sign_in: SignIn) -> Result<Self> {
        let rest = Rest::new(&options.server)?;
        let keys = store
            .run(|tx| match Credentials::load(tx)? {
                Some(_) => Err(Error::Usage("this store is signed in; recovery is for a new device".to_owned())),
                None => account::sign_in_keys(tx),
            })
            .await?;
        let SignIn { verification_id, code, device, totp, backup_code, pin, .. } = sign_in;
        let request = RecoverRequest { verification_id, code, device, keys, totp, backup_code, pin };
        let tokens = rest.recover(&request).await?;
        Self::signed_in(options, rest, store, tokens).await
    }

    pub(crate) async fn signed_in(options: Options, rest: Rest, store: Store, tokens: Tokens) -> Result<Self> {
        let credentials = Credentials::new(tokens);
        store.run(move |tx| become_device(tx, &credentials)).await?;
        Self::begin(options, rest, store).await
    }

    /// Goes on with a store that is signed in. Needs no network.
    ///
    /// # Errors
    /// [`Error::NotSignedIn`] when it is not.
    pub async fn open(options: Options, store: Store) -> Result<Self> {
        let rest = Rest::new(&options.server)?;
        Self::begin(options, rest, store).await
    }

    /// Ends the session and removes this device, on the server and its keys in the store. Messages stay.
    ///
    /// # Errors
    /// As the REST calls; then nothing has been removed here.
    pub async fn logout(&self) -> Result<()> {
        self.call(|rest| async move { rest.logout().await }).await?;
        self.disconnect().await;
        self.inner
            .store
            .run(|tx| {
                Credentials::remove(tx)?;
                account::remove(tx)?;
                forget_device(tx)
            })
            .await
    }
}

/// The server has given this store's keys a device: the same as before, or another.
pub(crate) fn become_device(tx: &mut Tx<'_>, credentials: &Credentials) -> Result<()> {
    if let Some(before) = Credentials::load(tx)? {
        if before.user_id != credentials.user_id {
            return Err(Error::Usage("this store belongs to another user".to_owned()));
        }
        if before.device_id != credentials.device_id {
            forget_device(tx)?;
        }
    }
    tx.set_meta_json(ATTEMPT, &0_i64)?;
    account::mark_published(tx)?;
    credentials.save(tx)
}

/// What was made under a device's id is worth nothing under another.
fn forget_device(tx: &mut Tx<'_>) -> Result<()> {
    tx.forget_sessions()?;
    tx.forget_outbound_groups()?;
    tx.forget_requests()?;
    tx.restart_client_seqs()
}
