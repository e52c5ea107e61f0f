//! Checks on text that people write: lengths in characters, no control characters.

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
