//! One wrong value at a time: what each kind of member must not hold, and bodies with it in its place.

use serde_json::Value;

/// What a member of a body holds.
#[derive(Clone, Copy, Debug)]
pub enum Holds {
    /// Text that people write, of so many characters.
    Text(usize),
    /// Any text: a code, a token, a number.
    Word,
    /// A UUID.
    Id,
    /// A whole number within bounds.
    Number(i64, i64),
    /// A count that may be as large as 64 bits hold.
    Count,
    /// base64url.
    Bytes,
    /// One of a list of words.
    Choice,
    Object,
    List,
}

/// Whether a member may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    BeAbsent,
    NotBeAbsent,
    /// It is an element of a list, or stands for another member.
    Neither,
}

/// A member of a body.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub pointer: &'static str,
    pub holds: Holds,
    pub may: May,
}

pub const fn must(pointer: &'static str, holds: Holds) -> Member {
    Member { pointer, holds, may: May::NotBeAbsent }
}

pub const fn may(pointer: &'static str, holds: Holds) -> Member {
    Member { pointer, holds, may: May::BeAbsent }
}

pub const fn element(pointer: &'static str, holds: Holds) -> Member {
    Member { pointer, holds, may: May::Neither }
}

impl Member {
    /// Values that it must not hold, as JSON text.
    pub fn wrong(&self) -> Vec<String> {
        let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let mut wrong = match self.holds {
            Holds::Text(max) => {
                let mut wrong = list(&["7", "[]", r#""\ud800""#, r#""\udfff\ud800""#]);
                wrong.extend(list(&[r#""a\u0000b""#, r#""a\nb""#, r#""\u0007""#, r#""\u0085""#]));
                wrong.push(format!("\"{}\"", "é".repeat(max + 1)));
                wrong
            }
            Holds::Word => list(&["7", "[]", r#"["x"]"#, r#""\ud800""#]),
            Holds::Id => list(&[
                "7",
                "[]",
                r#""""#,
                r#""x""#,
                r#""00000000-0000-0000-0000-00000000000g""#,
                r#""00000000-0000-4000-8000-0000000000001""#,
                r#""../../etc/passwd""#,
                "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]",
            ]),
            Holds::Number(min, max) => {
                let mut wrong = list(&[r#""1""#, "1.5", "[]", "9223372036854775808", "-9223372036854775809", "1e400"]);
                wrong.extend(min.checked_sub(1).map(|number| number.to_string()));
                wrong.extend(max.checked_add(1).map(|number| number.to_string()));
                wrong
            }
            Holds::Count => list(&[r#""1""#, "1.5", "[]", "-1", "18446744073709551616", "1e400"]),
            Holds::Bytes => list(&["7", "[1,2]", r#""a b""#, r#""%%%%""#, r#""é""#, r#""A""#, r#""\ud800""#]),
            Holds::Choice => list(&["7", "[]", r#""nonsense""#, r#""""#, r#""TEXT""#]),
            Holds::Object => list(&["7", "[]", r#""x""#, r#"["x",1,"AA"]"#]),
            Holds::List => list(&["7", r#""x""#, "{}", r#"{"0":1}"#]),
        };
        wrong.push("true".to_owned());
        if !matches!(self.holds, Holds::Object | Holds::List) {
            wrong.push("{}".to_owned());
        }
        if self.may == May::NotBeAbsent {
            wrong.push("null".to_owned());
        }
        wrong
    }
}

/// Stands where the wrong value comes.
const PLACE: &str = "\u{1}";

/// The body with a value, given as JSON text, at a place.
pub fn with(body: &Value, pointer: &str, value: &str) -> String {
    let mut body = body.clone();
    *place(&mut body, pointer) = Value::from(PLACE);
    body.to_string().replace("\"\\u0001\"", value)
}

/// The body without a member.
pub fn without(body: &Value, pointer: &str) -> String {
    let mut body = body.clone();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    body.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").remove(name);
    body.to_string()
}

fn place<'a>(body: &'a mut Value, pointer: &str) -> &'a mut Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    match body.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} has no parent")) {
        Value::Array(items) => items.get_mut(name.parse::<usize>().expect("an index")).expect("an element"),
        object => &mut object[name],
    }
}

/// Texts that are no JSON object, or too deep, whatever the route.
pub fn no_json() -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> =
        ["", " ", "{", "}", "x", "{\"a\":}", "{'a':1}", "{\"a\":1,}", "{\"a\":1}}", "\u{feff}{}"]
            .into_iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    texts.push(b"{\"a\":\"\x01\"}".to_vec());
    texts.push(b"{\"phone\":\"\xff\xfe\"}".to_vec());
    texts.push(b"\x00\x01\x02\x03".to_vec());
    texts.push("{}".encode_utf16().flat_map(u16::to_le_bytes).collect());
    for depth in [33, 10_000] {
        texts.push(nested(depth).into_bytes());
        texts.push(vec![b'['; depth]);
    }
    texts
}

/// An object that is as deep as that.
pub fn nested(depth: usize) -> String {
    format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth))
}
