//! Reading JSON from strangers: bounded depth, and errors that say where.

use crate::limits::MAX_JSON_DEPTH;
use crate::problem::{ErrorCode, FieldError, Problem};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

/// Whether no place of the text is nested deeper than `max`. Looks only at brackets outside strings.
#[must_use]
pub fn depth_within(text: &[u8], max: usize) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Reads a body. Unknown members are ignored, `null` counts as absent where the type has a default.
///
/// # Errors
/// `invalid_frame` when the text is no JSON or nested too deep; `validation_failed` with a pointer
/// when a value is missing or has the wrong type.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    read_below("", text)
}

/// The same for a value that stands at `prefix` (a pointer) in what the client sent.
///
/// # Errors
/// As [`read`].
pub fn read_below<T: DeserializeOwned>(prefix: &str, text: &[u8]) -> Result<T, Problem> {
    if !depth_within(text, MAX_JSON_DEPTH) {
        return Err(Problem::new(
            ErrorCode::InvalidFrame,
            format!("JSON is nested deeper than {MAX_JSON_DEPTH}"),
        ));
    }
    // The fast way first: a path is looked for only when there is something to tell.
    if let Ok(value) = serde_json::from_slice(text) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(value) if deserializer.end().is_ok() => Ok(value),
        Ok(_) => Err(not_json()),
        Err(error) if error.inner().is_data() => {
            let pointer = pointer(prefix, error.path());
            let reason = error.inner().to_string();
            Err(Problem::invalid(vec![field_error(pointer, &reason)]))
        }
        Err(_) => Err(not_json()),
    }
}

fn not_json() -> Problem {
    Problem::new(ErrorCode::InvalidFrame, "this is not JSON")
}

/// `missing field` errors name the field: the pointer then includes it.
fn field_error(pointer: String, reason: &str) -> FieldError {
    if let Some(rest) = reason.strip_prefix("missing field `") {
        let name = rest.split('`').next().unwrap_or_default();
        return FieldError::at(format!("{pointer}/{name}"), "missing");
    }
    let code = if reason.starts_with("invalid type") {
        "wrong_type"
    } else if reason.starts_with("unknown variant") {
        "unknown_value"
    } else {
        "invalid"
    };
    FieldError::at(pointer, code)
}

fn pointer(prefix: &str, path: &serde_path_to_error::Path) -> String {
    use std::fmt::Write as _;
    let mut pointer = prefix.to_owned();
    for segment in path {
        // Writing to a String cannot fail.
        let _ = match segment {
            Segment::Seq { index } => write!(pointer, "/{index}"),
            Segment::Map { key } => {
                write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1"))
            }
            Segment::Enum { .. } | Segment::Unknown => Ok(()),
        };
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[allow(dead_code)]
        inner: Vec<Inner>,
    }
    #[derive(Debug, Deserialize)]
    struct Inner {
        #[allow(dead_code)]
        number: u8,
    }

    fn pointer_of(text: &str) -> (ErrorCode, Option<String>) {
        let problem = read::<Outer>(text.as_bytes()).unwrap_err();
        let pointer = problem
            .errors
            .first()
            .and_then(|error| error.pointer.clone());
        (problem.code, pointer)
    }

    #[test]
    fn errors_say_where() {
        let failed = ErrorCode::ValidationFailed;
        assert_eq!(
            pointer_of(r#"{"inner":[{"number":"x"}]}"#),
            (failed, Some("/inner/0/number".into()))
        );
        assert_eq!(pointer_of("{}"), (failed, Some("/inner".into())));
        assert_eq!(pointer_of("{"), (ErrorCode::InvalidFrame, None));
        assert_eq!(pointer_of("{} x"), (failed, Some("/inner".into())));
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert!(depth_within(br#"{"a":"[[[[["}"#, 1));
        assert!(!depth_within(b"[[[]]]", 2));
        assert!(depth_within(b"[[],[],[]]", 2));
        assert!(depth_within(br#"["\"[["]"#, 1));
    }
}
