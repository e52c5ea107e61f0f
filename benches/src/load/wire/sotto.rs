//! Sotto's own wire: JSON frames on a WebSocket, as `docs/protocol.md` has them.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;
use std::rc::Rc;

use sotto_client::protocol::problem::ErrorCode;

use super::json::Scanner;
use super::websocket::{self, Opcode};
use super::{Content, Event, Opening, Wire, WireError};
use crate::load::name::Name;
use crate::load::users::User;

/// Requests that are no messages are numbered from here, so that an answer's number tells which it is.
const OTHERS: u64 = 1 << 40;

/// The wire of one device.
pub struct Sotto {
    opening: Opening,
    is_upgraded: bool,
    /// The parts of a message that has not ended.
    parts: Vec<u8>,
    tails: Tails,
    others: u64,
    mask: u64,
}

impl Sotto {
    /// Before the connection.
    pub fn new(opening: Opening) -> Self {
        let mask = opening.seed | 1;
        Self { opening, is_upgraded: false, parts: Vec::new(), tails: Tails::default(), others: OTHERS, mask }
    }

    /// Another mask for every frame, as RFC 6455 wants it; xorshift is enough where nobody attacks.
    fn mask(&mut self) -> [u8; 4] {
        self.mask ^= self.mask << 13;
        self.mask ^= self.mask >> 7;
        self.mask ^= self.mask << 17;
        let [a, b, c, d, ..] = self.mask.to_ne_bytes();
        [a, b, c, d]
    }

    fn put(&mut self, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        let mask = self.mask();
        websocket::put(out, Opcode::Text, mask, fill);
    }

    fn other(&mut self) -> u64 {
        self.others += 1;
        self.others
    }
}

/// What follows the id and the count of a message, for each size that was sent.
#[derive(Default)]
pub struct Tails(Vec<(usize, Rc<[u8]>)>);

impl Tails {
    /// The one for a size.
    pub fn get(&mut self, opening: &Opening, size: usize) -> Rc<[u8]> {
        if let Some((_, tail)) = self.0.iter().find(|(of, _)| *of == size) {
            return Rc::clone(tail);
        }
        let others: &[Rc<User>] = match opening.content {
            Content::Envelopes => &opening.others,
            Content::Shared => &[],
        };
        let tail: Rc<[u8]> = tail(&opening.user, others, size).into_bytes().into();
        self.0.push((size, Rc::clone(&tail)));
        tail
    }
}

/// So many bytes as base64url: any text of the length, for "A" is six zero bits.
pub fn ciphertext(size: usize) -> String {
    "A".repeat((size * 8).div_ceil(6))
}

/// A message after its id and count, with an envelope for each of the others, or one shared ciphertext for none: `,"conversation_id":…}`.
fn tail(user: &User, others: &[Rc<User>], size: usize) -> String {
    let ciphertext = ciphertext(size);
    let mut text = format!(r#","conversation_id":"{}","kind":"text""#, user.conversation_id);
    if others.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, r#","ciphertext":"{ciphertext}"}}"#);
        return text;
    }
    text.push_str(r#","envelopes":["#);
    for (index, other) in others.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let (user, device) = (&other.user_id, &other.device_id);
        let _ = write!(
            text,
            r#"{comma}{{"user_id":"{user}","device_id":"{device}","type":1,"ciphertext":"{ciphertext}"}}"#
        );
    }
    text.push_str("]}");
    text
}

impl Wire for Sotto {
    fn open(&mut self, out: &mut Vec<u8>) {
        websocket::ask(out, &self.opening.host, "/v1/ws", "sotto.v1.json", &self.opening.user.access_token);
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> Result<usize, WireError> {
        let mut used = 0;
        if !self.is_upgraded {
            let Some(end) = websocket::answered(bytes)? else { return Ok(0) };
            self.is_upgraded = true;
            used = end;
        }
        while let Some(frame) = websocket::first(bytes.get(used..).unwrap_or_default())? {
            used += frame.length;
            match frame.opcode {
                Opcode::Text if frame.is_last => events.extend(read(frame.payload)?),
                Opcode::Text => self.parts = frame.payload.to_vec(),
                Opcode::Continuation => {
                    self.parts.extend_from_slice(frame.payload);
                    if frame.is_last {
                        events.extend(read(&std::mem::take(&mut self.parts))?);
                    }
                }
                Opcode::Ping => {
                    let mask = self.mask();
                    websocket::put(out, Opcode::Pong, mask, |out| out.extend_from_slice(frame.payload));
                }
                Opcode::Pong => {}
                Opcode::Close => {
                    let code = frame.payload.first_chunk::<2>().map_or(0, |code| u16::from_be_bytes(*code));
                    events.push(Event::Closed { code });
                    return Ok(bytes.len());
                }
                Opcode::Binary => return Err(WireError::Strange("a binary frame".to_owned())),
            }
        }
        Ok(used)
    }

    fn send(&mut self, name: Name, size: usize, millis: u64, out: &mut Vec<u8>) {
        let tail = self.tails.get(&self.opening, size);
        let (count, id) = (name.count, name.text(millis));
        self.put(out, |out| {
            // A count is its request's number, too.
            out.extend_from_slice(br#"{"t":"send_message","id":"#);
            number(out, count.into());
            out.extend_from_slice(br#","d":{"message_id":""#);
            out.extend_from_slice(&id);
            out.extend_from_slice(br#"","client_seq":"#);
            number(out, count.into());
            out.extend_from_slice(&tail);
            out.push(b'}');
        });
    }

    fn acknowledge(&mut self, n: u64, out: &mut Vec<u8>) {
        self.put(out, |out| {
            out.extend_from_slice(br#"{"t":"ack","d":{"n":"#);
            number(out, n);
            out.extend_from_slice(b"}}");
        });
    }

    fn typing(&mut self, is_started: bool, out: &mut Vec<u8>) {
        let state = if is_started { "started" } else { "stopped" };
        let conversation = self.opening.user.conversation_id.clone();
        self.put(out, |out| {
            // Writing to memory does not fail.
            let _ = write!(out, r#"{{"t":"typing","d":{{"conversation_id":"{conversation}","state":"{state}"}}}}"#);
        });
    }

    fn read(&mut self, seq: u64, out: &mut Vec<u8>) {
        let (id, conversation) = (self.other(), self.opening.user.conversation_id.clone());
        self.put(out, |out| {
            // Writing to memory does not fail.
            let _ = write!(
                out,
                r#"{{"t":"mark_read","id":{id},"d":{{"conversation_id":"{conversation}","up_to":{seq}}}}}"#
            );
        });
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let mask = self.mask();
        websocket::put(out, Opcode::Close, mask, |out| out.extend_from_slice(&1000_u16.to_be_bytes()));
    }
}

/// A number in decimal digits.
pub fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut rest = value;
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        start -= 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// The members of a frame that matter here, whichever frame it is.
#[derive(Default)]
struct Members<'a> {
    kind: &'a [u8],
    re: Option<u64>,
    n: Option<u64>,
    message_id: &'a [u8],
    seq: Option<u64>,
    after: Option<u64>,
    up_to: Option<u64>,
    code: &'a [u8],
    retry_after_ms: Option<u64>,
    is_duplicate: bool,
}

fn members(text: &[u8]) -> Option<Members<'_>> {
    let mut found = Members::default();
    let mut scanner = Scanner::new(text);
    if !scanner.object() {
        return None;
    }
    while let Some(name) = scanner.name() {
        match name {
            b"t" => found.kind = scanner.string()?,
            b"re" => found.re = scanner.number(),
            b"n" => found.n = scanner.number(),
            b"d" if scanner.object() => {
                while let Some(name) = scanner.name() {
                    match name {
                        b"message_id" => found.message_id = scanner.string().unwrap_or_default(),
                        b"seq" => found.seq = scanner.number(),
                        b"after_seq" => found.after = scanner.number(),
                        b"n" => found.up_to = scanner.number(),
                        b"code" => found.code = scanner.string().unwrap_or_default(),
                        b"retry_after_ms" => found.retry_after_ms = scanner.number(),
                        b"duplicate" => found.is_duplicate = scanner.truth(),
                        _ => scanner.skip(),
                    }
                }
            }
            _ => scanner.skip(),
        }
    }
    Some(found)
}

/// What a frame means, if anything.
fn read(text: &[u8]) -> Result<Option<Event>, WireError> {
    let Some(found) = members(text) else {
        return Err(WireError::Strange(format!("no frame: {}", String::from_utf8_lossy(text))));
    };
    let count = || found.re.filter(|re| *re < OTHERS).and_then(|re| u32::try_from(re).ok());
    Ok(match (found.kind, found.n) {
        (b"new_message", Some(n)) => {
            let name = Name::read(found.message_id);
            Some(Event::Delivered { n, name, seq: found.seq, after: found.after.or(Some(0)) })
        }
        (b"ok", _) => count().map(|count| Event::Answered { count, seq: found.seq, is_duplicate: found.is_duplicate }),
        (b"err", _) => {
            let code = code(found.code);
            let is_unknown = matches!(code.as_ref(), "unavailable" | "internal");
            Some(Event::Refused { count: count(), code, retry_after_ms: found.retry_after_ms, is_unknown })
        }
        (b"acked", _) => found.up_to.map(|n| Event::Acked { n }),
        (b"welcome", _) => Some(Event::Ready),
        (b"drained", _) => Some(Event::Drained),
        (_, Some(n)) => Some(Event::Noted { n }),
        _ => None,
    })
}

/// A code as a word that costs nothing for those that the contract knows.
pub fn code(text: &[u8]) -> Cow<'static, str> {
    const COMMON: [ErrorCode; 6] = [
        ErrorCode::Unavailable,
        ErrorCode::RateLimited,
        ErrorCode::Blocked,
        ErrorCode::Internal,
        ErrorCode::DeviceListMismatch,
        ErrorCode::ValidationFailed,
    ];
    let known = COMMON.into_iter().map(ErrorCode::as_str).find(|code| code.as_bytes() == text);
    known.map_or_else(|| Cow::Owned(String::from_utf8_lossy(text).into_owned()), Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Rc<User> {
        Rc::new(User {
            user_id: "u".into(),
            device_id: "d".into(),
            access_token: "secret".into(),
            conversation_id: "c".into(),
        })
    }

    fn wire(others: Vec<Rc<User>>) -> Sotto {
        Sotto::new(Opening {
            host: "h:1".into(),
            user: user(),
            others: others.into(),
            content: Content::Envelopes,
            seed: 5,
        })
    }

    fn frame(text: &str) -> Vec<u8> {
        let mut bytes = vec![0x81, 126];
        bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    fn events(texts: &[&str]) -> Vec<Event> {
        let (mut wire, mut out, mut events) = (wire(Vec::new()), Vec::new(), Vec::new());
        wire.is_upgraded = true;
        let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(text)).collect();
        assert_eq!(wire.receive(&bytes, &mut out, &mut events), Ok(bytes.len()));
        events
    }

    #[test]
    fn frames_become_events_whatever_the_order_of_their_members() {
        let name = Name { run: 7, sender: 3, count: 9 };
        let id = String::from_utf8(name.text(1).to_vec()).unwrap();
        let message = format!(
            r#"{{"t":"new_message","n":4,"d":{{"from":{{"user_id":"seq"}},"after_seq":11,"seq":12,"message_id":"{id}"}}}}"#
        );
        let found = events(&[
            r#"{"t":"welcome","d":{"pending":false}}"#,
            r#"{"t":"drained","d":{}}"#,
            &message,
            r#"{"d":{"duplicate":true,"seq":5},"re":2,"t":"ok"}"#,
            r#"{"t":"ok","re":1099511627777,"d":{}}"#,
            r#"{"t":"err","re":3,"d":{"code":"rate_limited","retry_after_ms":50}}"#,
            r#"{"t":"message_delivered","n":5,"d":{"up_to":3}}"#,
            r#"{"t":"acked","d":{"n":5}}"#,
            r#"{"t":"typing","d":{}}"#,
        ]);
        assert_eq!(
            found,
            [
                Event::Ready,
                Event::Drained,
                Event::Delivered { n: 4, name: Some(name), seq: Some(12), after: Some(11) },
                Event::Answered { count: 2, seq: Some(5), is_duplicate: true },
                Event::Refused {
                    count: Some(3),
                    code: "rate_limited".into(),
                    retry_after_ms: Some(50),
                    is_unknown: false
                },
                Event::Noted { n: 5 },
                Event::Acked { n: 5 },
            ]
        );
    }

    #[test]
    fn a_message_is_the_json_of_the_contract() {
        let mut out = Vec::new();
        for (others, key) in [(Vec::new(), "ciphertext"), (vec![user(), user()], "envelopes")] {
            out.clear();
            wire(others).send(Name { run: 1, sender: 1, count: 17 }, 256, 5, &mut out);
            let (mask, payload) = (out[4..8].to_vec(), &out[8..]);
            let text: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value["t"], "send_message");
            assert_eq!((value["id"].as_u64(), value["d"]["client_seq"].as_u64()), (Some(17), Some(17)));
            assert!(value["d"][key].is_array() || value["d"][key].as_str().unwrap().len() == 342, "{value}");
            assert!(Name::read(value["d"]["message_id"].as_str().unwrap().as_bytes()).is_some());
        }
    }

    #[test]
    fn numbers_are_decimal() {
        for value in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }
}
