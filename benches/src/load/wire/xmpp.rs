//! XMPP over plain TCP (RFC 6120, RFC 6121), for servers that are measured beside Sotto.
//!
//! What stands for `ok` is the answer of stream management (XEP-0198) to the request that follows each message: a
//! server counts a stanza as handled after its archive has it. A user's id is a bare JID and the access token is the
//! password; the first of the other members is written to.

use std::collections::VecDeque;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::sotto::{ciphertext, number};
use super::xml::{self, Element, Piece, escaped};
use super::{Event, Opening, Wire, WireError};
use crate::load::name::Name;

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
const MANAGEMENT: &str = "urn:xmpp:sm:3";

/// How far the sign-in is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The stream is open; its features tell how to sign in.
    Greeting,
    /// The password was sent.
    Proving,
    /// Signed in, and the stream opened anew.
    Again,
    /// A resource was asked for.
    Binding,
    /// Stream management was asked for.
    Enabling,
    /// Presence was sent; what waited comes.
    Reading,
    /// Everything comes as it happens.
    Live,
}

/// The wire of one device.
pub struct Xmpp {
    opening: Opening,
    stage: Stage,
    /// Stanzas that the server has not said it handled, the oldest first; none: it is no message.
    unhandled: VecDeque<Option<u32>>,
    /// Stanzas that the server has handled.
    handled: u32,
    /// Stanzas that came.
    came: u32,
    /// What follows the id of a message, for the last size that was sent.
    tail: (usize, Rc<[u8]>),
}

impl Xmpp {
    /// Before the connection.
    pub fn new(opening: Opening) -> Self {
        let tail = (0, Rc::from([]));
        Self { opening, stage: Stage::Greeting, unhandled: VecDeque::new(), handled: 0, came: 0, tail }
    }

    /// The name before the `@` and the domain behind it.
    fn name(&self) -> (&str, &str) {
        self.opening.user.user_id.split_once('@').unwrap_or((&self.opening.user.user_id, "localhost"))
    }

    fn tail(&mut self, size: usize) -> Rc<[u8]> {
        if self.tail.0 != size || self.tail.1.is_empty() {
            let to = self.opening.others.first().map_or_else(String::new, |other| escaped(&other.user_id));
            let body = ciphertext(size);
            let text = format!("' to='{to}'><body>{body}</body></message><r xmlns='{MANAGEMENT}'/>");
            self.tail = (size, text.into_bytes().into());
        }
        Rc::clone(&self.tail.1)
    }

    fn take(&mut self, element: Element<'_>, out: &mut Vec<u8>, events: &mut Vec<Event>) -> Result<(), WireError> {
        match element.name() {
            b"stream:error" => return Err(refused("stream", element)),
            b"failure" => return Err(refused("not-authorized", element)),
            b"failed" => return Err(refused("stream management", element)),
            b"r" => {
                put(out, "<a h='");
                number(out, self.came.into());
                put(out, &format!("' xmlns='{MANAGEMENT}'/>"));
            }
            b"a" => self.settle(element, events)?,
            b"message" => {
                self.came = self.came.wrapping_add(1);
                events.push(message(element));
            }
            b"presence" => self.came = self.came.wrapping_add(1),
            b"iq" if self.stage != Stage::Binding => self.came = self.came.wrapping_add(1),
            _ => self.sign_in(element, out, events)?,
        }
        Ok(())
    }

    /// The next step of the sign-in.
    fn sign_in(&mut self, element: Element<'_>, out: &mut Vec<u8>, events: &mut Vec<Event>) -> Result<(), WireError> {
        self.stage = match (self.stage, element.name()) {
            (Stage::Greeting, b"stream:features") if element.holds(b"mechanism") => {
                let (name, _) = self.name();
                let proof = STANDARD.encode(format!("\0{name}\0{}", self.opening.user.access_token));
                put(out, &format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{proof}</auth>"));
                Stage::Proving
            }
            (Stage::Proving, b"success") => {
                self.greet(out);
                Stage::Again
            }
            (Stage::Again, b"stream:features") if element.holds(b"bind") => {
                let resource = escaped(&self.opening.user.device_id);
                put(
                    out,
                    &format!(
                        "<iq type='set' id='bind'><bind xmlns='{BIND}'><resource>{resource}</resource></bind></iq>"
                    ),
                );
                Stage::Binding
            }
            (Stage::Binding, b"iq") if element.attribute(b"type") == Some(b"result") => {
                put(out, &format!("<enable xmlns='{MANAGEMENT}'/>"));
                events.push(Event::Ready);
                Stage::Enabling
            }
            (Stage::Enabling, b"enabled") => {
                put(out, &format!("<presence/><r xmlns='{MANAGEMENT}'/>"));
                self.unhandled.push_back(None);
                Stage::Reading
            }
            (stage, _) => {
                let name = String::from_utf8_lossy(element.name()).into_owned();
                return Err(WireError::Strange(format!("<{name}> while the sign-in is at {stage:?}")));
            }
        };
        Ok(())
    }

    /// The server has handled stanzas.
    fn settle(&mut self, element: Element<'_>, events: &mut Vec<Event>) -> Result<(), WireError> {
        let handled = element.attribute(b"h").and_then(|text| std::str::from_utf8(text).ok()?.parse::<u32>().ok());
        let Some(handled) = handled else { return Err(WireError::Strange("an <a> without h".to_owned())) };
        for _ in 0..handled.wrapping_sub(self.handled) {
            match self.unhandled.pop_front() {
                Some(Some(count)) => events.push(Event::Answered { count, seq: None, is_duplicate: false }),
                Some(None) => {}
                None => return Err(WireError::Strange("the server handled more than was sent".to_owned())),
            }
        }
        self.handled = handled;
        if self.stage == Stage::Reading {
            self.stage = Stage::Live;
            events.push(Event::Drained);
        }
        Ok(())
    }

    fn greet(&self, out: &mut Vec<u8>) {
        let (_, domain) = self.name();
        let domain = escaped(domain);
        put(
            out,
            &format!(
                "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' \
                 to='{domain}'>"
            ),
        );
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn refused(status: &str, element: Element<'_>) -> WireError {
    let condition = element.first_child().unwrap_or_default();
    WireError::Upgrade { status: status.to_owned(), code: String::from_utf8_lossy(condition).into_owned() }
}

fn message(element: Element<'_>) -> Event {
    let name = element.attribute(b"id").and_then(Name::read);
    if element.attribute(b"type") == Some(b"error") {
        // Its sender gets its own message back, and the reason behind it.
        return Event::Refused {
            count: name.map(|name| name.count),
            code: "message_error".into(),
            retry_after_ms: None,
            is_unknown: true,
        };
    }
    // Stream management acknowledges by itself, and the server confirms nothing: there is no event to acknowledge.
    Event::Delivered { n: 0, name, seq: None, after: None }
}

impl Wire for Xmpp {
    fn open(&mut self, out: &mut Vec<u8>) {
        self.greet(out);
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> Result<usize, WireError> {
        let mut used = 0;
        while let Some((piece, length)) = xml::first(bytes.get(used..).unwrap_or_default()) {
            used += length;
            match piece {
                Piece::Opening => {}
                Piece::Element(element) => self.take(element, out, events)?,
                Piece::Closing => {
                    events.push(Event::Closed { code: 0 });
                    return Ok(bytes.len());
                }
            }
        }
        Ok(used)
    }

    fn send(&mut self, name: Name, size: usize, millis: u64, out: &mut Vec<u8>) {
        let tail = self.tail(size);
        put(out, "<message type='chat' id='");
        out.extend_from_slice(&name.text(millis));
        out.extend_from_slice(&tail);
        self.unhandled.push_back(Some(name.count));
    }

    fn acknowledge(&mut self, _n: u64, _out: &mut Vec<u8>) {}

    fn close(&mut self, out: &mut Vec<u8>) {
        put(out, "</stream:stream>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::users::User;
    use crate::load::wire::Content;

    fn user(name: &str) -> Rc<User> {
        Rc::new(User {
            user_id: format!("{name}@example.org"),
            device_id: "load".into(),
            access_token: "secret".into(),
            conversation_id: "c".into(),
        })
    }

    fn wire() -> Xmpp {
        let others = [user("b'&")].into();
        Xmpp::new(Opening { host: "h:1".into(), user: user("a"), others, content: Content::Envelopes, seed: 5 })
    }

    /// What the wire answers to a text, and what it tells.
    fn tell(wire: &mut Xmpp, text: &str) -> (String, Vec<Event>) {
        let (mut out, mut events) = (Vec::new(), Vec::new());
        assert_eq!(wire.receive(text.as_bytes(), &mut out, &mut events), Ok(text.len()), "{text}");
        (String::from_utf8(out).unwrap(), events)
    }

    fn live() -> Xmpp {
        let mut wire = wire();
        let mut out = Vec::new();
        wire.open(&mut out);
        assert!(out.ends_with(b"to='example.org'>"));
        let stream = "<?xml version='1.0'?><stream:stream id='1' xmlns='jabber:client'>";
        let (out, _) = tell(
            &mut wire,
            &format!(
                "{stream}<stream:features><mechanisms><mechanism>PLAIN</mechanism></mechanisms></stream:features>"
            ),
        );
        assert!(out.contains(&STANDARD.encode("\0a\0secret")), "{out}");
        let (out, _) = tell(&mut wire, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        assert!(out.starts_with("<stream:stream"), "{out}");
        let (out, _) = tell(&mut wire, &format!("{stream}<stream:features><bind/></stream:features>"));
        assert!(out.contains("<resource>load</resource>"), "{out}");
        let (_, events) =
            tell(&mut wire, "<iq type='result' id='bind'><bind><jid>a@example.org/load</jid></bind></iq>");
        assert_eq!(events, [Event::Ready]);
        let (out, _) = tell(&mut wire, "<enabled xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(out, "<presence/><r xmlns='urn:xmpp:sm:3'/>");
        let (_, events) = tell(&mut wire, "<presence to='a@example.org/load'/><a h='1' xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(events, [Event::Drained]);
        wire
    }

    #[test]
    fn messages_are_answered_when_the_server_has_handled_them() {
        let mut wire = live();
        let mut out = Vec::new();
        for count in 1..=3 {
            wire.send(Name { run: 1, sender: 2, count }, 256, 5, &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("to='b&apos;&amp;@example.org'><body>AAAA"), "{text}");
        let answered = |count| Event::Answered { count, seq: None, is_duplicate: false };
        assert_eq!(tell(&mut wire, "<a h='2'/>").1, [answered(1)]);
        assert_eq!(tell(&mut wire, "<a h='4'/>").1, [answered(2), answered(3)]);
        assert_eq!(tell(&mut wire, "<a h='4'/>").1, []);
        let (mut out, mut events) = (Vec::new(), Vec::new());
        assert!(wire.receive(b"<a h='5'/>", &mut out, &mut events).is_err());
    }

    #[test]
    fn messages_come_with_their_names_and_are_counted_for_the_server() {
        let mut wire = live();
        let name = Name { run: 7, sender: 3, count: 9 };
        let id = String::from_utf8(name.text(1).to_vec()).unwrap();
        let text =
            format!("<message from='b' id='{id}' type='chat'><body>A</body></message><r xmlns='urn:xmpp:sm:3'/>");
        let (out, events) = tell(&mut wire, &text);
        assert_eq!(events, [Event::Delivered { n: 0, name: Some(name), seq: None, after: None }]);
        assert_eq!(out, "<a h='2' xmlns='urn:xmpp:sm:3'/>");
        let (_, events) = tell(&mut wire, &format!("<message id='{id}' type='error'><error/></message>"));
        assert!(matches!(events[..], [Event::Refused { count: Some(9), .. }]), "{events:?}");
        assert_eq!(tell(&mut wire, "</stream:stream>").1, [Event::Closed { code: 0 }]);
    }

    #[test]
    fn a_wrong_password_and_a_stream_error_end_it_with_their_condition() {
        for (text, condition) in [
            ("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>", "not-authorized"),
            ("<stream:error><conflict xmlns='x'/></stream:error>", "conflict"),
        ] {
            let (mut out, mut events) = (Vec::new(), Vec::new());
            let error = wire().receive(text.as_bytes(), &mut out, &mut events).unwrap_err();
            assert!(matches!(&error, WireError::Upgrade { code, .. } if code == condition), "{error}");
        }
    }
}
