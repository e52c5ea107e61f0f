//! The carrier for development: the server's log. The one place where a number and a code may be logged; it works
//! only while nobody else can reach the server, or with `dev.insecure`.

use super::Text;

/// Writes number and code to the log.
pub(super) fn send(text: &Text) {
    tracing::info!(to = text.to.as_str(), code = text.code.expose(), "sign-in code");
}
