//! The wire contract of Sotto: ids, times, REST bodies, WebSocket frames, error codes and limits.
//!
//! This package does no I/O and knows no database and no actor. The server, the client library and
//! every tool speak through it, so that both ends of a connection are compiled from one definition.

pub mod account;
pub mod auth;
pub mod binary;
pub mod challenge;
pub mod close;
pub mod conversation;
pub mod device_link;
pub mod devices;
pub mod event;
pub mod export;
pub mod frame;
pub mod id;
pub mod json;
pub mod keys;
pub mod limits;
pub mod logins;
pub mod message;
pub mod problem;
pub mod reauthentication;
pub mod registration_lock;
pub mod second_factor;
pub mod sync;
pub mod text;
pub mod timestamp;
pub mod trail;

pub use binary::Binary;
pub use id::{ConversationId, DeviceId, LinkId, MessageId, SessionId, UserId, VerificationId};
pub use problem::{ErrorCode, FieldError, Problem};
pub use timestamp::Timestamp;

/// A message's number within its conversation: 1, 2, 3 … without gaps. 0 stands for "nothing yet".
pub type Seq = i64;
