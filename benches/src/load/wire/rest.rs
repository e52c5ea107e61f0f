//! Sends by `POST /v1/messages` on one connection that is kept, one request at a time.

use std::collections::VecDeque;
use std::rc::Rc;

use super::json::Scanner;
use super::sotto::{Tails, code, number};
use super::{Event, Opening, Wire, WireError, http};
use crate::load::name::Name;

/// A message that waits for its turn.
struct Waiting {
    name: Name,
    size: usize,
    millis: u64,
}

/// The sending half of a device that sends by REST.
pub struct Rest {
    opening: Opening,
    tails: Tails,
    asked: Option<u32>,
    waiting: VecDeque<Waiting>,
}

impl Rest {
    /// Before the connection.
    pub fn new(opening: Opening) -> Self {
        Self { opening, tails: Tails::default(), asked: None, waiting: VecDeque::new() }
    }

    fn next(&mut self, out: &mut Vec<u8>) {
        if self.asked.is_some() {
            return;
        }
        let Some(Waiting { name, size, millis }) = self.waiting.pop_front() else { return };
        let tail = self.tails.get(&self.opening, size);
        let mut body = Vec::with_capacity(tail.len() + 80);
        body.extend_from_slice(br#"{"message_id":""#);
        body.extend_from_slice(&name.text(millis));
        body.extend_from_slice(br#"","client_seq":"#);
        number(&mut body, name.count.into());
        body.extend_from_slice(&tail);
        http::put(out, "POST", "/v1/messages", &self.opening.host, &self.opening.user.access_token, &body);
        self.asked = Some(name.count);
    }
}

impl Wire for Rest {
    fn open(&mut self, _: &mut Vec<u8>) {}

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> Result<usize, WireError> {
        let mut used = 0;
        while let Some(answer) = http::first(bytes.get(used..).unwrap_or_default())? {
            used += answer.length;
            let Some(count) = self.asked.take() else {
                return Err(WireError::Strange("an answer to nothing".to_owned()));
            };
            events.push(read(answer.status, answer.body, count));
            self.next(out);
        }
        Ok(used)
    }

    fn send(&mut self, name: Name, size: usize, millis: u64, out: &mut Vec<u8>) {
        self.waiting.push_back(Waiting { name, size, millis });
        self.next(out);
    }

    fn acknowledge(&mut self, _: u64, _: &mut Vec<u8>) {}

    fn close(&mut self, _: &mut Vec<u8>) {}
}

fn read(status: u16, body: &[u8], count: u32) -> Event {
    let (mut seq, mut is_duplicate, mut reason, mut retry_after_ms) = (None, false, &b""[..], None);
    let mut scanner = Scanner::new(body);
    if scanner.object() {
        while let Some(name) = scanner.name() {
            match name {
                b"seq" => seq = scanner.number(),
                b"duplicate" => is_duplicate = scanner.truth(),
                b"code" => reason = scanner.string().unwrap_or_default(),
                b"retry_after_ms" => retry_after_ms = scanner.number(),
                _ => scanner.skip(),
            }
        }
    }
    if (200..300).contains(&status) {
        return Event::Answered { count, seq, is_duplicate };
    }
    let code = if reason.is_empty() { format!("http_{status}").into() } else { code(reason) };
    Event::Refused { count: Some(count), code, retry_after_ms, is_unknown: status >= 500 }
}

/// Reads a backlog by `GET /v1/sync` and `POST /v1/sync/ack`, page by page.
pub struct Sync {
    host: Rc<str>,
    token: String,
    is_greeted: bool,
    /// A page was acknowledged, and whether there are more.
    acknowledged: Option<bool>,
}

/// Events of a page; the most that the contract allows.
const PAGE: &str = "/v1/sync?limit=500";

impl Sync {
    /// Before the connection.
    pub fn new(opening: &Opening) -> Self {
        let token = opening.user.access_token.clone();
        Self { host: Rc::clone(&opening.host), token, is_greeted: false, acknowledged: None }
    }
}

impl Wire for Sync {
    fn open(&mut self, out: &mut Vec<u8>) {
        http::put(out, "GET", PAGE, &self.host, &self.token, &[]);
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> Result<usize, WireError> {
        let Some(answer) = http::first(bytes)? else { return Ok(0) };
        if !(200..300).contains(&answer.status) {
            let code = String::from_utf8_lossy(answer.body).split("\"code\":\"").nth(1).map(str::to_owned);
            let code = code.and_then(|rest| rest.split('"').next().map(str::to_owned)).unwrap_or_default();
            return Err(WireError::Upgrade { status: answer.status.to_string(), code });
        }
        if !std::mem::replace(&mut self.is_greeted, true) {
            events.push(Event::Ready);
        }
        match self.acknowledged.take() {
            Some(true) => http::put(out, "GET", PAGE, &self.host, &self.token, &[]),
            Some(false) => events.push(Event::Drained),
            None => {
                let (cursor, has_more) = page(answer.body, events);
                let body = [br#"{"cursor":""#, cursor, br#""}"#].concat();
                http::put(out, "POST", "/v1/sync/ack", &self.host, &self.token, &body);
                self.acknowledged = Some(has_more);
            }
        }
        Ok(answer.length)
    }

    fn send(&mut self, _: Name, _: usize, _: u64, _: &mut Vec<u8>) {}

    fn acknowledge(&mut self, _: u64, _: &mut Vec<u8>) {}

    fn close(&mut self, _: &mut Vec<u8>) {}
}

/// The messages of a page, its cursor, and whether there are more.
fn page<'a>(body: &'a [u8], events: &mut Vec<Event>) -> (&'a [u8], bool) {
    let (mut cursor, mut has_more) = (&b""[..], false);
    let mut scanner = Scanner::new(body);
    if scanner.object() {
        while let Some(name) = scanner.name() {
            match name {
                b"events" if scanner.array() => {
                    while scanner.element() {
                        events.extend(event(&mut scanner));
                    }
                }
                b"cursor" => cursor = scanner.string().unwrap_or_default(),
                b"has_more" => has_more = scanner.truth(),
                _ => scanner.skip(),
            }
        }
    }
    (cursor, has_more)
}

/// An event of a page, if it is a message.
fn event(scanner: &mut Scanner<'_>) -> Option<Event> {
    let (mut kind, mut id, mut seq) = (&b""[..], &b""[..], None);
    if !scanner.object() {
        scanner.skip();
        return None;
    }
    while let Some(name) = scanner.name() {
        match name {
            b"t" => kind = scanner.string().unwrap_or_default(),
            b"d" if scanner.object() => {
                while let Some(name) = scanner.name() {
                    match name {
                        b"message_id" => id = scanner.string().unwrap_or_default(),
                        b"seq" => seq = scanner.number(),
                        _ => scanner.skip(),
                    }
                }
            }
            _ => scanner.skip(),
        }
    }
    // Pages are acknowledged by their cursor, so events have no number; nor is there a connection to have an order on.
    (kind == b"new_message").then(|| Event::Delivered { n: 0, name: Name::read(id), seq, after: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_refusals_are_told_apart() {
        let stored = read(201, br#"{"message_id":"x","seq":7,"duplicate":false}"#, 3);
        assert_eq!(stored, Event::Answered { count: 3, seq: Some(7), is_duplicate: false });
        let refused = read(503, br#"{"code":"unavailable","retry_after_ms":250}"#, 3);
        let (code, retry_after_ms) = ("unavailable".into(), Some(250));
        assert_eq!(refused, Event::Refused { count: Some(3), code, retry_after_ms, is_unknown: true });
        let code = "http_502".into();
        assert_eq!(
            read(502, b"<html>", 3),
            Event::Refused { count: Some(3), code, retry_after_ms: None, is_unknown: true }
        );
    }

    #[test]
    fn a_page_has_messages_cursor_and_more() {
        let name = Name { run: 1, sender: 2, count: 3 };
        let id = String::from_utf8(name.text(5).to_vec()).unwrap();
        let body = format!(
            r#"{{"events":[{{"t":"message_delivered","d":{{"up_to":3}}}},{{"t":"new_message","d":{{"message_id":"{id}","seq":9,"x":[{{}}]}}}}],"cursor":"abc","has_more":true,"epoch":"e"}}"#
        );
        let mut events = Vec::new();
        assert_eq!(page(body.as_bytes(), &mut events), (&b"abc"[..], true));
        assert_eq!(events, [Event::Delivered { n: 0, name: Some(name), seq: Some(9), after: None }]);
    }
}
