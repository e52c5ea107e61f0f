//! Reading the envelope of a frame, and the words that go with a close code.

use sotto_protocol::frame::RawFrame;
use sotto_protocol::{ErrorCode, Problem, close, json};

/// The number that an `attempt` stands for in the order of a device's connections (rule D7). Between two of them
/// there is room for connections without one, to which the server gives the next number: they must not use up the
/// number that the device itself will count to next.
pub(super) const fn connection_number(attempt: i64) -> i64 {
    attempt.saturating_add(1).saturating_mul(512)
}

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
