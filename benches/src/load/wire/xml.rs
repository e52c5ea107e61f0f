//! A scanner for the XML of a stream: it finds whole elements and single attributes, and builds no tree.
//!
//! A stream (RFC 6120) has no comments, no document types and no processing instructions but its first line, so that
//! tags are all there is to look for.

use memchr::{memchr, memchr_iter, memchr2};

/// What stands next in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The stream's own first tag, or a line before it.
    Opening,
    /// A whole element.
    Element(Element<'a>),
    /// The stream's own last tag.
    Closing,
}

/// An element with everything in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    head: &'a [u8],
    content: &'a [u8],
}

/// The first piece and how many bytes it takes, blanks before it included; none: it is not all here.
pub fn first(bytes: &[u8]) -> Option<(Piece<'_>, usize)> {
    let start = memchr(b'<', bytes)?;
    let head = tag(bytes.get(start..)?)?;
    let after = start + head.len();
    if head.starts_with(b"<?") || (is_named(head, b"stream:stream") && !is_single(head)) {
        return Some((Piece::Opening, after));
    }
    if head.starts_with(b"</") {
        return Some((Piece::Closing, after));
    }
    if is_single(head) {
        return Some((Piece::Element(Element { head, content: &[] }), after));
    }
    let mut depth = 1_usize;
    let mut at = after;
    loop {
        let open = at + memchr(b'<', bytes.get(at..)?)?;
        let next = tag(bytes.get(open..)?)?;
        at = open + next.len();
        if next.starts_with(b"</") {
            depth -= 1;
        } else if !is_single(next) {
            depth += 1;
        }
        if depth == 0 {
            return Some((Piece::Element(Element { head, content: bytes.get(after..open)? }), at));
        }
    }
}

/// A tag from `<` to `>`. A value may have a `>` in it.
fn tag(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        at += memchr::memchr3(b'>', b'\'', b'"', bytes.get(at..)?)?;
        let found = *bytes.get(at)?;
        at += 1;
        if found == b'>' {
            return bytes.get(..at);
        }
        at += memchr(found, bytes.get(at..)?)? + 1;
    }
}

fn is_single(tag: &[u8]) -> bool {
    tag.ends_with(b"/>")
}

fn name(tag: &[u8]) -> &[u8] {
    let tag = tag.strip_prefix(b"<").unwrap_or(tag);
    let end = tag.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>'));
    tag.get(..end.unwrap_or(tag.len())).unwrap_or_default()
}

fn is_named(tag: &[u8], wanted: &[u8]) -> bool {
    name(tag) == wanted
}

impl<'a> Element<'a> {
    /// Its name, prefix included.
    pub fn name(self) -> &'a [u8] {
        name(self.head)
    }

    /// An attribute as it is written.
    pub fn attribute(self, wanted: &[u8]) -> Option<&'a [u8]> {
        let mut rest = self.head.get(1 + self.name().len()..)?;
        loop {
            let equals = memchr(b'=', rest)?;
            let (before, after) = rest.split_at_checked(equals)?;
            let open = memchr2(b'\'', b'"', after)?;
            let value = after.get(open + 1..)?;
            let end = memchr(*after.get(open)?, value)?;
            if before.trim_ascii() == wanted {
                return value.get(..end);
            }
            rest = value.get(end + 1..)?;
        }
    }

    /// The name of its first child.
    pub fn first_child(self) -> Option<&'a [u8]> {
        match first(self.content)? {
            (Piece::Element(child), _) => Some(child.name()),
            _ => None,
        }
    }

    /// Whether something of this name is anywhere in it.
    pub fn holds(self, wanted: &[u8]) -> bool {
        memchr_iter(b'<', self.content).filter_map(|at| self.content.get(at..)).any(|rest| is_named(rest, wanted))
    }
}

/// Text as it may stand in an attribute or between tags.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(text: &str) -> Element<'_> {
        let Some((Piece::Element(element), used)) = first(text.as_bytes()) else { panic!("{text}") };
        assert_eq!(used, text.len());
        element
    }

    #[test]
    fn an_element_ends_where_its_own_tag_ends() {
        let text = "\n<a x='1' y=\"it's > that\"><a><b/></a>text &lt;</a>";
        let found = element(text);
        assert_eq!(found.name(), b"a");
        assert_eq!(found.attribute(b"y"), Some(&b"it's > that"[..]));
        assert_eq!(found.attribute(b"x"), Some(&b"1"[..]));
        assert_eq!(found.attribute(b"that"), None);
        assert_eq!(found.first_child(), Some(&b"a"[..]));
        assert!(found.holds(b"b") && !found.holds(b"c") && !found.holds(b"text"));
        assert_eq!(element("<r xmlns='urn:xmpp:sm:3'/>").name(), b"r");
        assert_eq!(element("<r/>").attribute(b"h"), None);
    }

    #[test]
    fn what_is_not_all_here_is_left() {
        let text = "<message id='1'><body>a</body><x y='>'/></message>";
        for end in 0..text.len() {
            assert_eq!(first(&text.as_bytes()[..end]), None, "{}", &text[..end]);
        }
        assert!(first(text.as_bytes()).is_some());
    }

    #[test]
    fn a_stream_opens_and_closes() {
        let open = b"<?xml version='1.0'?><stream:stream id='1'><stream:features/></stream:stream>";
        let mut rest = &open[..];
        let mut pieces = Vec::new();
        while let Some((piece, used)) = first(rest) {
            pieces.push(piece);
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
        assert!(
            matches!(pieces[..], [Piece::Opening, Piece::Opening, Piece::Element(_), Piece::Closing]),
            "{pieces:?}"
        );
    }

    #[test]
    fn text_cannot_become_a_tag() {
        assert_eq!(escaped("a'<b>&\""), "a&apos;&lt;b&gt;&amp;&quot;");
    }
}
