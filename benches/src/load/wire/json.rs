//! A scanner for JSON that comes by the hundred thousand: it finds values and builds nothing.
//!
//! It is lenient: what is not JSON at all ends the scan, and what it passes over is not checked.

use memchr::memchr;

/// A place in a text.
pub struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// Before the text's first value.
    pub fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    fn blank(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.blank();
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Goes into an object; whether there is one.
    pub fn object(&mut self) -> bool {
        self.eat(b'{')
    }

    /// Goes into an array; whether there is one.
    pub fn array(&mut self) -> bool {
        self.eat(b'[')
    }

    /// Whether the array has another element, which stands next; its end is passed.
    pub fn element(&mut self) -> bool {
        self.eat(b',');
        !self.eat(b']') && !self.rest.is_empty()
    }

    /// The next name of the object and the place before its value; none at its end, which is passed.
    pub fn name(&mut self) -> Option<&'a [u8]> {
        self.eat(b',');
        if self.eat(b'}') {
            return None;
        }
        let name = self.string()?;
        self.eat(b':').then_some(name)
    }

    /// A string as it is written, without resolving escapes.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        if !self.eat(b'"') {
            return None;
        }
        let text = self.rest;
        let mut end = 0;
        loop {
            end += memchr(b'"', text.get(end..)?)?;
            let before = text.get(..end)?;
            let escapes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
            if escapes % 2 == 0 {
                self.rest = text.get(end + 1..)?;
                return Some(before);
            }
            end += 1;
        }
    }

    /// A whole number that is not negative.
    pub fn number(&mut self) -> Option<u64> {
        self.blank();
        let mut value: Option<u64> = None;
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            value = Some(value.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
            self.rest = rest;
        }
        if value.is_none() {
            self.skip();
        }
        value
    }

    /// `true` or not.
    pub fn truth(&mut self) -> bool {
        self.blank();
        let is_true = self.rest.starts_with(b"true");
        self.skip();
        is_true
    }

    /// Passes over a value of any kind.
    pub fn skip(&mut self) {
        let mut depth = 0_usize;
        loop {
            self.blank();
            match self.rest.first() {
                None => return,
                Some(b'"') => {
                    if self.string().is_none() {
                        self.rest = &[];
                    }
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.rest = self.rest.get(1..).unwrap_or_default();
                }
                Some(b'}' | b']') if depth == 0 => return,
                Some(b'}' | b']') => {
                    depth -= 1;
                    self.rest = self.rest.get(1..).unwrap_or_default();
                }
                Some(b',' | b':') if depth == 0 => return,
                Some(b',' | b':') => self.rest = self.rest.get(1..).unwrap_or_default(),
                Some(_) => {
                    let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
                    let end = self.rest.iter().position(is_end).unwrap_or(self.rest.len());
                    self.rest = self.rest.get(end..).unwrap_or_default();
                }
            }
            if depth == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<(String, u64)> {
        let mut scanner = Scanner::new(text.as_bytes());
        assert!(scanner.object());
        let mut found = Vec::new();
        while let Some(name) = scanner.name() {
            let name = String::from_utf8_lossy(name).into_owned();
            let value = if name.starts_with('n') { scanner.number() } else { None };
            if value.is_none() && !name.starts_with('n') {
                scanner.skip();
            }
            found.push((name, value.unwrap_or_default()));
        }
        found
    }

    #[test]
    fn members_are_found_past_values_of_every_kind() {
        let text =
            r#" { "a" : {"x":[1,{"y":"}"}],"z":null} , "n":12,"s":"a\\\"}, b","t":true,"f":-1.5e3,"l":[],"n2":7}"#;
        let names: Vec<String> = members(text).iter().map(|(name, value)| format!("{name}{value}")).collect();
        assert_eq!(names, ["a0", "n12", "s0", "t0", "f0", "l0", "n27"]);
    }

    #[test]
    fn what_is_no_json_ends() {
        for text in ["{", "{\"", "{\"a\"", "{\"a\":", "{\"a\":\"", "{\"a\":{", "{\"n\":99999999999999999999}", "{]"] {
            members(text);
        }
        assert!(!Scanner::new(b"[]").object());
    }
}
