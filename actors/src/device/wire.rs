//! Reading the envelope of a frame, and the words that go with a close code.

use sotto_protocol::frame::RawFrame;
use sotto_protocol::{ErrorCode, Problem, close, json};

/// A problem of a frame's content: the frame itself was readable.
pub(super) fn as_validation(problem: Problem) -> Problem {
    if problem.code == ErrorCode::InvalidFrame { Problem::field("", "invalid") } else { problem }
}

/// Reads the envelope of a frame. `invalid_frame`: no JSON object; `validation_failed`: one with wrong members.
pub(super) fn read_frame(text: &[u8]) -> Result<RawFrame<'_>, Problem> {
    let invalid = || Problem::new(ErrorCode::InvalidFrame, "a frame is one JSON object");
    // serde would take an array as well.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(invalid());
    }
    json::read(text).map_err(|problem| if problem.code == ErrorCode::InvalidFrame { invalid() } else { problem })
}

pub(super) const fn close_reason(code: u16) -> &'static str {
    match code {
        close::DRAINING => "draining",
        close::REPLACED => "replaced",
        close::DEVICE_REVOKED => "signed out",
        close::NOT_ACKNOWLEDGED => "nothing acknowledged",
        close::PROTOCOL_ERROR => "protocol error",
        close::SLOW_CONSUMER => "slow consumer",
        close::CONNECTION_LIMIT => "connection limit",
        _ => "try again",
    }
}
