//! Reading JSON from strangers: bounded depth, objects only from objects, and errors that say where.

use crate::limits::MAX_JSON_DEPTH;
use crate::problem::{ErrorCode, FieldError, Problem};
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::{Segment, Track};
use std::fmt;
use std::marker::PhantomData;

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

/// Reads a value only from a JSON object: by itself serde takes an array as well, its elements for the members in the
/// order in which the program happens to declare them. For `#[serde(deserialize_with)]`.
///
/// # Errors
/// The value is no object, or `T` does not take it.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct FromObject<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for FromObject<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members))
        }
    }
    deserializer.deserialize_map(FromObject(PhantomData))
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Self)
    }
}

/// The same for a member that may be absent.
///
/// # Errors
/// As [`object`].
pub fn optional_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0))
}

/// The same for a list of objects that may be absent.
///
/// # Errors
/// As [`object`].
pub fn optional_objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let list = Option::<Vec<Object<T>>>::deserialize(deserializer)?;
    Ok(list.map(|list| list.into_iter().map(|object| object.0).collect()))
}

/// Reads a body, which is an object. Unknown members are ignored, `null` counts as absent where the type has a default.
///
/// # Errors
/// `invalid_frame` when the text is no JSON or nested too deep; `validation_failed` with a pointer
/// when a value is missing or has the wrong type.
pub fn read<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, Problem> {
    read_below("", text)
}

/// The same for a value that stands at `prefix` (a pointer) in what the client sent.
///
/// # Errors
/// As [`read`].
pub fn read_below<'de, T: Deserialize<'de>>(prefix: &str, text: &'de [u8]) -> Result<T, Problem> {
    if !depth_within(text, MAX_JSON_DEPTH) {
        return Err(Problem::new(ErrorCode::InvalidFrame, format!("JSON is nested deeper than {MAX_JSON_DEPTH}")));
    }
    let text = std::str::from_utf8(text).map_err(|_| not_json())?;
    // The fast way first: a path is looked for only when there is something to tell.
    let mut deserializer = serde_json::Deserializer::from_str(text);
    if let Ok(value) = object(&mut deserializer)
        && deserializer.end().is_ok()
    {
        return Ok(value);
    }
    // Whatever its values are: what is no JSON from end to end is not looked into.
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Err(not_json());
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut track = Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    match object(deserializer) {
        Ok(value) => Ok(value),
        Err(error) => {
            let pointer = pointer(prefix, &track.path());
            Err(Problem::invalid(vec![field_error(pointer, &error.to_string())]))
        }
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
    } else if reason.starts_with("number out of range") {
        "out_of_range"
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
        let pointer = problem.errors.first().and_then(|error| error.pointer.clone());
        (problem.code, pointer)
    }

    #[test]
    fn errors_say_where() {
        let failed = ErrorCode::ValidationFailed;
        assert_eq!(pointer_of(r#"{"inner":[{"number":"x"}]}"#), (failed, Some("/inner/0/number".into())));
        assert_eq!(pointer_of("{}"), (failed, Some("/inner".into())));
        assert_eq!(pointer_of("{"), (ErrorCode::InvalidFrame, None));
        for text in ["{} x", r#"{"inner":7,}"#, "{\"inner\":\"\u{1}\"}"] {
            assert_eq!(pointer_of(text), (ErrorCode::InvalidFrame, None), "{text}");
        }
    }

    #[test]
    fn values_that_no_type_can_hold_are_told_with_their_place() {
        let code = |text: &str| read::<Outer>(text.as_bytes()).unwrap_err().errors.remove(0).code;
        assert_eq!(code(r#"{"inner":[{"number":1e400}]}"#), "out_of_range");
        assert_eq!(code(r#"{"inner":"\ud800"}"#), "invalid");
        assert_eq!(
            pointer_of(r#"{"inner":[{"number":1e400}]}"#),
            (ErrorCode::ValidationFailed, Some("/inner/0/number".into()))
        );
    }

    #[test]
    fn an_array_is_no_object() {
        #[derive(Debug, Deserialize)]
        struct Strict {
            #[serde(default, deserialize_with = "optional_object")]
            one: Option<Inner>,
            #[serde(default, deserialize_with = "optional_objects")]
            many: Option<Vec<Inner>>,
        }
        let pointer = |text: &str| {
            let error = read::<Strict>(text.as_bytes()).unwrap_err().errors.remove(0);
            assert_eq!(error.code, "wrong_type", "{text}");
            error.pointer.unwrap()
        };
        assert_eq!(pointer("[{\"number\":1},[]]"), "");
        assert_eq!(pointer(r#"{"one":[1]}"#), "/one");
        assert_eq!(pointer(r#"{"many":[{"number":1},[2]]}"#), "/many/1");
        let read = read::<Strict>(br#"{"one":null,"many":[{"number":1}]}"#).unwrap();
        assert!(read.one.is_none() && read.many.is_some_and(|many| many[0].number == 1));
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert!(depth_within(br#"{"a":"[[[[["}"#, 1));
        assert!(!depth_within(b"[[[]]]", 2));
        assert!(depth_within(b"[[],[],[]]", 2));
        assert!(depth_within(br#"["\"[["]"#, 1));
    }
}
