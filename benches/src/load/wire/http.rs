//! As much of HTTP/1.1 as a client needs that keeps its connection: requests with a body, answers with a length.

use memchr::memmem;

use super::WireError;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
    /// Bytes of the whole answer.
    pub length: usize,
}

/// The most bytes of an answer's head.
const MAX_HEAD: usize = 64 * 1024;

/// Puts a request behind what waits to be written.
pub fn put(out: &mut Vec<u8>, method: &str, path: &str, host: &str, token: &str, body: &[u8]) {
    for part in [method, " ", path, " HTTP/1.1\r\nHost: ", host, "\r\nAuthorization: Bearer ", token] {
        out.extend_from_slice(part.as_bytes());
    }
    if method != "GET" {
        out.extend_from_slice(b"\r\nContent-Type: application/json\r\nContent-Length: ");
        super::sotto::number(out, crate::load::number::count(body.len()));
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// The first answer of what was read; none: it is not whole yet.
///
/// # Errors
/// When it is none, or has no length.
pub fn first(bytes: &[u8]) -> Result<Option<Answer<'_>>, WireError> {
    let strange = |reason: &str| Err(WireError::Strange(reason.to_owned()));
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { strange("an endless head of an answer") } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let Some(status) = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next()?.parse().ok()) else {
        return strange("no answer of HTTP/1.1");
    };
    let mut length = (status == 204).then_some(0);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
    }
    let Some(length) = length else { return strange("an answer without a length") };
    let whole = end + 4 + length;
    let Some(body) = bytes.get(end + 4..whole) else { return Ok(None) };
    Ok(Some(Answer { status, body, length: whole }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_when_it_is_whole() {
        let bytes = b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\nX: y\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n";
        let length = bytes.len() - 27;
        for end in 0..length {
            assert_eq!(first(&bytes[..end]), Ok(None), "{end} bytes");
        }
        let answer = first(bytes).unwrap().unwrap();
        assert_eq!((answer.status, answer.body, answer.length), (201, &b"hello"[..], length));
        assert_eq!(first(&bytes[length..]).unwrap().unwrap().status, 204);
        assert!(first(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(first(b"SMTP\r\n\r\n").is_err());
    }
}
