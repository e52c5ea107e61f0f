//! Text: checks on what people write (lengths in characters, no control characters), and escaping for URIs.

use crate::problem::FieldError;

/// Checks a text of at most `max` characters without control characters.
///
/// # Errors
/// `too_long`, or `control_character`, or `empty` when `required` and there is none.
pub fn check(pointer: &str, text: &str, max: usize, required: bool) -> Result<(), FieldError> {
    if required && text.trim().is_empty() {
        return Err(FieldError::at(pointer, "empty"));
    }
    if text.chars().count() > max {
        return Err(FieldError::at(pointer, "too_long"));
    }
    if text.chars().any(char::is_control) {
        return Err(FieldError::at(pointer, "control_character"));
    }
    Ok(())
}

/// A text as a part of a URI (RFC 3986, section 2): all but the unreserved characters are escaped.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
