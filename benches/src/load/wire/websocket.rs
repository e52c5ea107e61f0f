//! The client's side of a WebSocket (RFC 6455), from bytes to frames, without a stream.
//!
//! Why not a stock codec: thousands of connections share one thread with one read buffer; a frame is masked where it
//! lies and looked at where it was read, so that nothing is allocated or copied for it. A generator that costs as
//! much as its server measures itself.

use super::WireError;

/// A frame's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next part of a fragmented message.
    Continuation,
    /// Text.
    Text,
    /// Binary.
    Binary,
    /// The end, with a code.
    Close,
    /// Wants a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

/// A frame in the bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its kind.
    pub opcode: Opcode,
    /// Whether it ends its message.
    pub is_last: bool,
    /// What it carries.
    pub payload: &'a [u8],
    /// Bytes of the whole frame.
    pub length: usize,
}

/// The most bytes of one frame that are taken; the contract's frames are far below it.
const MAX_PAYLOAD: u64 = 16 * 1024 * 1024;
/// Head of a frame between 126 bytes and 64 KiB: two bytes, two of length, four of mask.
const HEAD: usize = 8;
/// The most bytes of an answer to the upgrade.
const MAX_ANSWER: usize = 16 * 1024;

/// Asks for the upgrade.
pub fn ask(out: &mut Vec<u8>, host: &str, path: &str, protocol: &str, token: &str) {
    // The key is there against caches that answer in the server's place; there is none between.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: c290dG8tbG9hZC1ydW4hIQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    out.extend_from_slice(request.as_bytes());
}

/// The bytes of the answer to the upgrade, once it is whole.
///
/// # Errors
/// When it is not 101, with the status and the code of the problem, if it tells one.
pub fn answered(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        let is_long = bytes.len() > MAX_ANSWER;
        return if is_long { Err(WireError::Strange("an endless answer to the upgrade".to_owned())) } else { Ok(None) };
    };
    if bytes.starts_with(b"HTTP/1.1 101") {
        return Ok(Some(end + 4));
    }
    let text = String::from_utf8_lossy(bytes);
    let status = text.lines().next().unwrap_or_default().split(' ').nth(1).unwrap_or("no status").to_owned();
    let code = text.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned();
    Err(WireError::Upgrade { status, code })
}

/// Puts a masked frame behind what waits to be written; `fill` writes what it carries.
pub fn put(out: &mut Vec<u8>, opcode: Opcode, mask: [u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    fill(out);
    let length = out.len() - start - HEAD;
    let first = 0x80
        | match opcode {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        };
    let mut head = [0; 14];
    let head_length = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => {
            head = [first, 0x80 | short, mask[0], mask[1], mask[2], mask[3], 0, 0, 0, 0, 0, 0, 0, 0];
            6
        }
        (_, Ok(middle)) => {
            let [high, low] = middle.to_be_bytes();
            head = [first, 0xfe, high, low, mask[0], mask[1], mask[2], mask[3], 0, 0, 0, 0, 0, 0];
            8
        }
        _ => {
            let parts = [&[first, 0xff][..], &super::super::number::count(length).to_be_bytes(), &mask];
            for (place, byte) in head.iter_mut().zip(parts.into_iter().flatten()) {
                *place = *byte;
            }
            14
        }
    };
    let head = head.get(..head_length).unwrap_or_default();
    if head_length != HEAD {
        out.splice(start..start + HEAD, head.iter().copied());
    } else if let Some(place) = out.get_mut(start..start + HEAD) {
        place.copy_from_slice(head);
    }
    if let Some(payload) = out.get_mut(start + head_length..) {
        apply(payload, mask);
    }
}

fn apply(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// The first frame of what was read; none: it is not whole yet.
///
/// # Errors
/// When it is none that a server may send.
pub fn first(bytes: &[u8]) -> Result<Option<Frame<'_>>, WireError> {
    let strange = |reason: &str| Err(WireError::Strange(reason.to_owned()));
    let [head, size, rest @ ..] = bytes else { return Ok(None) };
    if head & 0x70 != 0 || size & 0x80 != 0 {
        return strange("a frame with bits that nobody agreed on");
    }
    let opcode = match head & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return strange("a frame of an unknown kind"),
    };
    let (length, head_length) = match size {
        126 => match rest {
            [high, low, ..] => (u64::from(u16::from_be_bytes([*high, *low])), 4),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (u64::from_be_bytes(*length), 10),
            None => return Ok(None),
        },
        short => (u64::from(*short), 2),
    };
    if length > MAX_PAYLOAD {
        return strange("a frame of more than 16 MiB");
    }
    let end = head_length + super::super::number::size(length);
    let Some(payload) = bytes.get(head_length..end) else { return Ok(None) };
    Ok(Some(Frame { opcode, is_last: head & 0x80 != 0, payload, length: end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmasked(frame: &[u8]) -> Vec<u8> {
        let (head, length) = match frame[1] & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
            127 => (10, usize::try_from(u64::from_be_bytes(frame[2..10].try_into().unwrap())).unwrap()),
            short => (2, usize::from(short)),
        };
        assert_eq!(frame[1] & 0x80, 0x80, "a client masks");
        assert_eq!(frame.len(), head + 4 + length);
        let mask = &frame[head..head + 4];
        frame[head + 4..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }

    #[test]
    fn frames_of_every_length_are_masked_whole() {
        for length in [0, 1, 7, 8, 125, 126, 127, 600, 65_535, 65_536, 70_001] {
            let payload: Vec<u8> = (0..length).map(|place| u8::try_from(place % 251).unwrap()).collect();
            let mut out = b"before".to_vec();
            put(&mut out, Opcode::Text, [1, 2, 3, 4], |out| out.extend_from_slice(&payload));
            assert_eq!(&out[..6], b"before");
            assert_eq!(out[6], 0x81);
            assert_eq!(unmasked(&out[6..]), payload, "{length} bytes");
        }
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let mut bytes = vec![0x81, 126, 1, 44];
        bytes.extend([b'x'; 300]);
        bytes.extend([0x89, 0]);
        for end in 0..304 {
            assert_eq!(first(&bytes[..end]), Ok(None), "{end} bytes");
        }
        let frame = first(&bytes).unwrap().unwrap();
        assert_eq!((frame.opcode, frame.is_last, frame.length, frame.payload.len()), (Opcode::Text, true, 304, 300));
        assert_eq!(first(&bytes[304..]).unwrap().unwrap().opcode, Opcode::Ping);
        assert!(first(&[0x81, 0x85]).is_err(), "a server does not mask");
        assert!(first(&[0xf1, 0]).is_err());
        assert!(first(&[0x83, 0]).is_err());
    }

    #[test]
    fn a_refused_upgrade_tells_status_and_code() {
        assert_eq!(answered(b"HTTP/1.1 101 Switching"), Ok(None));
        assert_eq!(answered(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\nrest"), Ok(Some(42)));
        let refused = answered(b"HTTP/1.1 401 Unauthorized\r\n\r\n{\"code\":\"unauthenticated\"}");
        assert_eq!(refused, Err(WireError::Upgrade { status: "401".into(), code: "unauthenticated".into() }));
    }
}
