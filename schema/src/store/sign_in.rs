//! Signing in: codes that are shown, token families and their refresh tokens.

use crate::rows::registration_lock::Takeover;
use crate::rows::sign_in::{
    Allowance, Attempt, EndedSessionRow, NewSession, Reached, Refresh, RefreshTokenRow, Refreshed, SignedIn,
    SigningDevice, VerificationRow,
};
use crate::second_factor::Shown;
use sotto_protocol::{Timestamp, UserId, VerificationId};

super::facade! {
    /// A request for a code.
    read fn verification(id: VerificationId) -> Option<VerificationRow> = sign_in::verification;
    /// Counts a wrong code; never signs anybody in.
    write fn wrong_code(attempt: Attempt) -> SignedIn = sign_in::wrong_code;
    /// Makes an account with its first device, after the right code. An account that had the number goes, if it may.
    write fn register(attempt: Attempt, takeover: Takeover, user: UserId, device: SigningDevice, session: NewSession) -> SignedIn = sign_in::register;
    /// Signs a device in, new or known, after the right code and what was shown of the second factor.
    write fn login(attempt: Attempt, shown: Shown, device: SigningDevice, session: NewSession) -> SignedIn = sign_in::login;
    /// A refresh token, by its hash.
    read fn refresh_token(hash: Vec<u8>) -> Option<RefreshTokenRow> = sign_in::refresh_token;
    /// Uses a refresh token: makes its successor, gives the same one again, or ends the family.
    write fn refresh(refresh: Refresh) -> Refreshed = sign_in::refresh;
    /// Takes from an allowance; `Some`: the limit is reached and nothing was taken.
    write fn take_allowance(allowance: Allowance, count: usize, now: Timestamp) -> Option<Reached> = allowances::take_alone;
    /// Whether one more of each is allowed, which takes nothing; `Some`: the limit is reached.
    write fn peek_allowances(allowances: Vec<Allowance>, now: Timestamp) -> Option<Reached> = allowances::peek_alone;
    /// Families that were ended before their time since a moment.
    read fn ended_sessions(since: Timestamp) -> Vec<EndedSessionRow> = sign_in::ended_since;
    /// Removes codes, counts, families, tokens and unfinished set-ups of second factors that have ended.
    write fn sweep_sign_in(now: Timestamp) -> usize = sign_in::sweep;
}
