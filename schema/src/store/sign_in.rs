//! Signing in: codes that are shown, token families and their refresh tokens.

use crate::rows::proofs::{CodeCompared, CodeGuess, Evidence, FactorAdmitted, FactorGuess, FactorTry, RightCode};
use crate::rows::registration_lock::Takeover;
use crate::rows::sign_in::{
    Allowance, EndedSessionRow, NewSession, Reached, Refresh, RefreshTokenRow, Refreshed, SignedIn, SigningDevice,
};
use sotto_protocol::{Timestamp, UserId};

super::facade! {
    /// Compares a presented code. A wrong one counts, and so does any while a limit is reached.
    write fn compare_code(guess: CodeGuess) -> CodeCompared = proofs::compare_code;
    /// Takes a try to show a second factor or PIN, before it is compared.
    write fn admit_factor(guess: FactorGuess) -> FactorAdmitted = proofs::admit_factor;
    /// Gives a try back within which nothing was compared.
    write fn give_try_back(code: Option<RightCode>, taken: FactorTry) -> () = proofs::give_try_back;
    /// Makes an account with its first device, after the right code. An account that had the number goes, if it may.
    write fn register(code: RightCode, takeover: Takeover, user: UserId, device: SigningDevice, session: NewSession) -> SignedIn = sign_in::register;
    /// Signs a device in, new or known, after the right code and what is shown of the second factor.
    write fn login(code: RightCode, evidence: Evidence, device: SigningDevice, session: NewSession) -> SignedIn = sign_in::login;
    /// A refresh token, by its hash.
    read fn refresh_token(hash: Vec<u8>) -> Option<RefreshTokenRow> = sign_in::refresh_token;
    /// Uses a refresh token: makes its successor, gives the same one again, or ends the family.
    write fn refresh(refresh: Refresh) -> Refreshed = sign_in::refresh;
    /// Takes from an allowance; `Some`: the limit is reached and nothing was taken.
    write fn take_allowance(allowance: Allowance, count: usize, now: Timestamp) -> Option<Reached> = allowances::take_alone;
    /// Families that were ended before their time since a moment.
    read fn ended_sessions(since: Timestamp) -> Vec<EndedSessionRow> = sign_in::ended_since;
    /// Removes codes, counts, families, tokens and unfinished set-ups of second factors that have ended.
    write fn sweep_sign_in(now: Timestamp) -> usize = sign_in::sweep;
}
