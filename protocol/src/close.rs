//! WebSocket close codes. 1xxx and 4000–4499: reconnect and go on; 4500–4999: stop until the user or the app acts.

/// The server drains, or a later connection without `attempt` replaced this one.
pub const DRAINING: u16 = 4000;
/// The access token ran out.
pub const TOKEN_EXPIRED: u16 = 4401;
/// The peer was silent for too long, or `hello` did not come in time.
pub const TIMEOUT: u16 = 4408;
/// The peer does not read.
pub const SLOW_CONSUMER: u16 = 4420;
/// Nothing was acknowledged for 60 s while something was due.
pub const NOT_ACKNOWLEDGED: u16 = 4421;
/// The peer sends faster than its limits allow, for too long.
pub const RATE_LIMITED: u16 = 4429;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 4500;
/// The token is not valid.
pub const UNAUTHENTICATED: u16 = 4501;
/// The device was revoked or signed out.
pub const DEVICE_REVOKED: u16 = 4503;
/// The account is disabled.
pub const ACCOUNT_DISABLED: u16 = 4504;
/// The client's protocol version is no longer spoken.
pub const UPGRADE_REQUIRED: u16 = 4505;
/// A connection with a higher `attempt` took this one's place.
pub const REPLACED: u16 = 4509;
/// Too many connections of this user or address.
pub const CONNECTION_LIMIT: u16 = 4510;

/// Whether a client may connect again by itself after this code.
#[must_use]
pub const fn may_reconnect(code: u16) -> bool {
    code < 4500
}
