//! Who somebody is: codes, tokens, keys and their checks, secrets at rest.
//!
//! What lies directly here is pure: bytes and a moment come in, a verdict goes out. `session` and `directory` join
//! it with the database; HTTP and the socket ask them and nobody else.

pub mod access_token;
pub mod code;
pub mod device_proof;
pub mod key_check;
pub mod phone;
pub mod refresh_token;
pub mod secret_key;
pub mod sms;
pub mod xeddsa;
