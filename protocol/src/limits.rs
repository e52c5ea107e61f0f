//! The contract's bounds: sizes, counts and times that both ends must know.

/// Largest ciphertext, decoded, in bytes.
pub const MAX_CIPHERTEXT: usize = 96 * 1024;
/// Largest WebSocket message in bytes.
pub const MAX_FRAME: usize = 256 * 1024;
/// Largest `hello` frame in bytes.
pub const MAX_HELLO: usize = 8 * 1024;
/// Largest REST body for messages and keys, in bytes.
pub const MAX_BODY_LARGE: usize = 1024 * 1024;
/// Largest REST body that brings a new device's keys, in bytes: with the most one-time keys of both kinds, each with its
/// signature, such a body has about 235 KiB.
pub const MAX_BODY_SIGN_IN: usize = 256 * 1024;
/// Largest REST body elsewhere, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Deepest nesting of JSON.
pub const MAX_JSON_DEPTH: usize = 32;
/// Longest name, in characters.
pub const MAX_NAME: usize = 100;
/// Most members of a group.
pub const MAX_MEMBERS: usize = 1000;
/// How often a user can be made a member of one conversation: each stay is read whenever one of the user's devices comes.
pub const MAX_STAYS: usize = 1000;
/// Most devices of a user.
pub const MAX_DEVICES: usize = 10;
/// Most envelopes of a message; above it a shared ciphertext is to be used.
pub const MAX_ENVELOPES: usize = 500;
/// Most entries of each list in a `device_list_mismatch`.
pub const MAX_MISMATCHES: usize = 100;
/// Most durable events in flight on a connection.
pub const WINDOW_EVENTS: usize = 256;
/// Most bytes of durable events in flight on a connection.
pub const WINDOW_BYTES: usize = 1024 * 1024;
/// Most requests unanswered on a connection before the server stops reading.
pub const MAX_UNANSWERED: usize = 256;
/// Largest page of sync and history in bytes (never below one item).
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// Longest sync cursor in characters.
pub const MAX_CURSOR: usize = 16 * 1024;
/// Most one-time keys of a kind per upload.
pub const MAX_KEYS_PER_UPLOAD: usize = 100;
/// Most one-time keys of a kind kept per device.
pub const MAX_KEYS_KEPT: usize = 200;
/// Most numbers in one look-up.
pub const MAX_LOOKUP: usize = 100;
/// Conversations with more members tell receipts to the reader's own devices only.
pub const MAX_MEMBERS_WITH_RECEIPTS: usize = 50;
/// Most devices in each list of a `devices_changed`: the newest.
pub const MAX_DEVICES_TOLD: usize = 100;
/// Most members that stand in a conversation itself; those of larger ones come by page.
pub const MAX_MEMBERS_SHOWN: usize = 50;
/// Messages that one side of a direct conversation may have there before the other wrote or read.
pub const MAX_UNANSWERED_CONTACT: i64 = 3;
/// Longest `Idempotency-Key`, in visible ASCII characters.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;
/// Largest request id on the wire (2^53 - 1).
pub const MAX_REQUEST_ID: u64 = (1 << 53) - 1;

/// The WebSocket subprotocol that must be offered.
pub const SUBPROTOCOL: &str = "sotto.v1.json";
/// What a device proof signs, before the verification id.
pub const DEVICE_PROOF_PREFIX: &str = "sotto-device-proof-v1:";
/// What the signature of an identity key stands over, before the key's bytes.
pub const IDENTITY_PREFIX: &str = "sotto-identity-v1:";
/// What the proof of a device that is linked signs, before the link's id and the challenge.
pub const LINK_PROOF_PREFIX: &str = "sotto-link-proof-v1:";
