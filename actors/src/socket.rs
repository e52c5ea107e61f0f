//! The bytes of a WebSocket, server side (RFC 6455). The only file that reads and writes a socket.
//!
//! A [`Socket`] owns an upgraded stream. It turns bytes into whole messages and messages into frames, answers pings,
//! leads both kinds of closing handshake, and keeps what a slow peer has not taken yet, up to a bound.
//!
//! *Owns:* the stream, the half-read message, the frames that wait to be written.
//! *When full:* a send answers [`SendError::QueueFull`]; the owner decides, usually by [`Socket::cut`].
//! *On death:* dropping it closes TCP.
//!
//! Why not a stock codec: an idle connection must cost next to nothing, so there is no buffer per connection. Bytes
//! are read into a [`Scratch`] that all sockets of a thread share, and a connection holds memory only while a frame
//! or a message is half read or half written. Stock codecs also check UTF-8 too late, or answer 1002 where 1007 is due.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How much is read from a socket in one go, in bytes.
const SCRATCH_BYTES: usize = 16 * 1024;

/// A message buffer grows by at least this much, in bytes, so that long frames are not copied too often; it never
/// grows to the length that a frame merely announces.
const GROWTH: usize = 64 * 1024;

/// From this many queued bytes on a send writes at once instead of leaving it to the next flush. Below it the frames
/// of one turn travel in one system call.
const WRITE_AT_ONCE: usize = 64 * 1024;

/// Slices handed to one vectored write.
const MAX_SLICES: usize = 64;

/// Answers to pings that may wait at the same time. Beyond it only the newest ping is answered (RFC 6455, 5.5.3).
const MAX_PONGS: usize = 32;

/// After the last frame, what the peer still sends is read and thrown away up to this many bytes: closing TCP over
/// unread bytes resets the connection and may take our close frame with it.
const MAX_DRAINED: usize = 64 * 1024 * 1024;

/// Longest payload of a control frame, in bytes (RFC 6455, 5.5).
const MAX_CONTROL: usize = 125;

/// Longest header of a frame that a client sends: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;

/// What a socket may hold in memory for its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketLimits {
    /// Longest message in bytes, all its fragments together; a longer one closes with 1009.
    pub max_message: usize,
    /// Longest single data frame in bytes; a longer one closes with 1009 as soon as its header is read.
    pub max_frame: usize,
    /// Bytes, headers included, that may wait to be written. A send beyond it is refused.
    pub max_queued: usize,
}

/// What [`Socket::poll_recv`] reports. Text, Binary, Ping and Pong may come any number of times; Close or Violation
/// comes at most once; End is the last, and repeats if one goes on asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message, checked to be UTF-8.
    Text(Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// A ping. The pong is queued already; it is reported as a sign of life.
    Ping(Bytes),
    /// A pong, asked for or not.
    Pong(Bytes),
    /// The peer's close frame. If the peer began, our answer is queued already; go on polling until End.
    Close(CloseFrame),
    /// The peer broke the protocol or a limit. The close frame that says so is queued; go on polling until End.
    Violation(Violation),
    /// The connection is over: drop the socket.
    End(End),
}

/// A close frame of the peer (RFC 6455, 5.5.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloseFrame {
    /// Its code, one that may be sent (7.4); none if the frame was empty.
    pub code: Option<u16>,
    /// Its reason, at most 123 bytes. Written by the peer: not for logs without care.
    pub reason: String,
}

/// What a peer did wrong; the close code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// The framing rules are broken: 1002. The text names the rule.
    #[error("{0}")]
    Protocol(&'static str),
    /// A text message or a close reason is not UTF-8: 1007.
    #[error("text is not valid UTF-8")]
    Utf8,
    /// A frame or a message is longer than its limit: 1009.
    #[error("message too big")]
    TooBig,
}

impl Violation {
    /// The close code that is sent for it (RFC 6455, 7.4.1).
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Utf8 => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both close frames were exchanged.
    Closed,
    /// We closed because of what the peer did.
    Violated(Violation),
    /// The peer went away without a close frame.
    Dropped,
    /// The peer did not finish the closing handshake in the time it had.
    Abandoned,
    /// Reading or writing failed.
    Failed(io::ErrorKind),
}

/// Why a message was not taken for sending. Nothing of it has been queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The peer does not read fast enough: the frame does not fit beside what waits.
    #[error("{queued} bytes wait to be written, and at most {limit} may")]
    QueueFull {
        /// Bytes that wait.
        queued: usize,
        /// Bytes that may wait.
        limit: usize,
    },
    /// A close frame has been sent or received, or the connection is over.
    #[error("the socket is closing")]
    Closing,
}

/// The buffer that sockets of one thread read into.
#[derive(Debug)]
pub struct Scratch(Box<[u8]>);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// A buffer of 16 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self(vec![0; SCRATCH_BYTES].into_boxed_slice())
    }

    /// Lends this thread's buffer to `work`. A nested call gets a buffer of its own.
    pub fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        SCRATCH.with(|shared| match shared.try_borrow_mut() {
            Ok(mut scratch) => work(&mut scratch),
            Err(_) => work(&mut Self::new()),
        })
    }
}

/// The kind of a frame (RFC 6455, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn parse(first: u8) -> Result<Self, Violation> {
        match first & 0x0f {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xa => Ok(Self::Pong),
            _ => Err(Violation::Protocol("reserved opcode")),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A whole message, as the decoder hands it out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Message {
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    Close(CloseFrame),
}

/// A frame whose header is complete and whose payload is being read.
#[derive(Debug, Clone, Copy)]
struct FrameBody {
    opcode: Opcode,
    last: bool,
    /// Payload bytes that have not come yet.
    remaining: usize,
    /// The mask, turned so that its first byte belongs to the next payload byte.
    mask: [u8; 4],
}

/// Bytes in, messages out. It holds memory only while a message is half read.
#[derive(Debug)]
struct Decoder {
    max_message: usize,
    max_frame: usize,
    /// The header being read, `head_len` bytes of it.
    head: [u8; MAX_HEAD],
    head_len: usize,
    frame: Option<FrameBody>,
    /// Kind of the message being assembled, Text or Binary.
    kind: Option<Opcode>,
    /// What has come of that message, unmasked.
    data: Vec<u8>,
    /// How much of `data` is known to be UTF-8; at most three bytes of an unfinished character lie behind it.
    checked: usize,
    /// Payload of the control frame being read. Apart from `data`: it may come between fragments.
    control: Vec<u8>,
}

impl Decoder {
    fn new(max_message: usize, max_frame: usize) -> Self {
        Self {
            max_message,
            max_frame,
            head: [0; MAX_HEAD],
            head_len: 0,
            frame: None,
            kind: None,
            data: Vec::new(),
            checked: 0,
            control: Vec::new(),
        }
    }

    /// Reads `input` up to the end of the next message and tells how many bytes that took; without a message all of
    /// it was taken. After an error the decoder must not be used again.
    fn decode(&mut self, input: &[u8]) -> Result<(usize, Option<Message>), Violation> {
        let mut rest = input;
        loop {
            let begun = match self.frame.take() {
                Some(frame) => Some(frame),
                None => self.read_head(&mut rest)?,
            };
            let Some(mut frame) = begun else {
                return Ok((input.len(), None));
            };
            let (chunk, tail) = rest.split_at(frame.remaining.min(rest.len()));
            rest = tail;
            self.append(&mut frame, chunk)?;
            if frame.remaining > 0 {
                self.frame = Some(frame);
                return Ok((input.len(), None));
            }
            if let Some(message) = self.finish(frame)? {
                return Ok((input.len() - rest.len(), Some(message)));
            }
        }
    }

    /// Takes header bytes from `rest` (RFC 6455, 5.2). The first two are judged as soon as they are there.
    fn read_head(&mut self, rest: &mut &[u8]) -> Result<Option<FrameBody>, Violation> {
        if !self.fill_head(rest, 2) {
            return Ok(None);
        }
        let [first, second, ..] = self.head;
        let opcode = Opcode::parse(first)?;
        let last = first & 0x80 != 0;
        let short_length = second & 0x7f;
        if first & 0x70 != 0 {
            return Err(Violation::Protocol("reserved bit set"));
        }
        if second & 0x80 == 0 {
            return Err(Violation::Protocol("frame not masked"));
        }
        if opcode.is_control() {
            if !last {
                return Err(Violation::Protocol("fragmented control frame"));
            }
            if usize::from(short_length) > MAX_CONTROL {
                return Err(Violation::Protocol("control frame too long"));
            }
        } else if opcode == Opcode::Continuation {
            if self.kind.is_none() {
                return Err(Violation::Protocol("continuation of nothing"));
            }
        } else if self.kind.is_some() {
            return Err(Violation::Protocol("new message inside a message"));
        }

        let head_bytes = match short_length {
            126 => 8,
            127 => 14,
            _ => 6,
        };
        if !self.fill_head(rest, head_bytes) {
            return Ok(None);
        }
        // A length in more bytes than it needs is accepted: nothing depends on it, and some senders do it.
        let (length, mask) = match short_length {
            126 => {
                let [_, _, a, b, c, d, e, f, ..] = self.head;
                (u64::from(u16::from_be_bytes([a, b])), [c, d, e, f])
            }
            127 => {
                let [_, _, a, b, c, d, e, f, g, h, i, j, k, l] = self.head;
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), [i, j, k, l])
            }
            short => {
                let [_, _, a, b, c, d, ..] = self.head;
                (u64::from(short), [a, b, c, d])
            }
        };
        if length >> 63 != 0 {
            return Err(Violation::Protocol("length with its highest bit set"));
        }
        let remaining = usize::try_from(length).map_err(|_| Violation::TooBig)?;
        if !opcode.is_control() {
            let room = self.max_message.saturating_sub(self.data.len());
            if remaining > self.max_frame || remaining > room {
                return Err(Violation::TooBig);
            }
            if opcode != Opcode::Continuation {
                self.kind = Some(opcode);
            }
        }
        self.head_len = 0;
        Ok(Some(FrameBody { opcode, last, remaining, mask }))
    }

    /// Moves bytes into the header until it has `need` of them; false if there were too few.
    fn fill_head(&mut self, rest: &mut &[u8], need: usize) -> bool {
        let missing = need.saturating_sub(self.head_len);
        let (chunk, tail) = rest.split_at(missing.min(rest.len()));
        let end = self.head_len + chunk.len();
        if let Some(slot) = self.head.get_mut(self.head_len..end) {
            slot.copy_from_slice(chunk);
        }
        self.head_len = end;
        *rest = tail;
        end >= need
    }

    fn append(&mut self, frame: &mut FrameBody, chunk: &[u8]) -> Result<(), Violation> {
        let buffer = if frame.opcode.is_control() { &mut self.control } else { &mut self.data };
        let start = buffer.len();
        if buffer.capacity() - start < chunk.len() {
            // Doubling, but never beyond the frame's end: a message in one piece gets exactly its size.
            let wanted = chunk.len().max(start).max(GROWTH);
            buffer.reserve_exact(frame.remaining.min(wanted));
        }
        buffer.extend_from_slice(chunk);
        if let Some(fresh) = buffer.get_mut(start..) {
            unmask(fresh, frame.mask);
        }
        frame.mask.rotate_left(chunk.len() % 4);
        frame.remaining -= chunk.len();
        if !frame.opcode.is_control() && self.kind == Some(Opcode::Text) {
            self.check_utf8()?;
        }
        Ok(())
    }

    /// Checks what is new in `data` (RFC 6455, 8.1): fails with the first byte that cannot belong to any character.
    fn check_utf8(&mut self) -> Result<(), Violation> {
        let fresh = self.data.get(self.checked..).unwrap_or_default();
        match std::str::from_utf8(fresh) {
            Ok(_) => self.checked = self.data.len(),
            Err(err) if err.error_len().is_none() => self.checked += err.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }

    fn finish(&mut self, frame: FrameBody) -> Result<Option<Message>, Violation> {
        match frame.opcode {
            Opcode::Ping => Ok(Some(Message::Ping(mem::take(&mut self.control).into()))),
            Opcode::Pong => Ok(Some(Message::Pong(mem::take(&mut self.control).into()))),
            Opcode::Close => parse_close(&mem::take(&mut self.control)).map(|frame| Some(Message::Close(frame))),
            Opcode::Continuation | Opcode::Text | Opcode::Binary if !frame.last => Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => self.finish_message().map(Some),
        }
    }

    fn finish_message(&mut self) -> Result<Message, Violation> {
        let is_text = self.kind.take() == Some(Opcode::Text);
        let mut data = mem::take(&mut self.data);
        let checked = mem::take(&mut self.checked);
        if is_text && checked != data.len() {
            return Err(Violation::Utf8);
        }
        data.shrink_to_fit();
        let payload = Bytes::from(data);
        Ok(if is_text { Message::Text(payload) } else { Message::Binary(payload) })
    }
}

/// Reads the payload of a close frame (RFC 6455, 5.5.1 and 7.4).
fn parse_close(payload: &[u8]) -> Result<CloseFrame, Violation> {
    match payload {
        [] => Ok(CloseFrame::default()),
        [_] => Err(Violation::Protocol("close frame of one byte")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Violation::Protocol("close code that must not be sent"));
            }
            let reason = std::str::from_utf8(reason).map_err(|_| Violation::Utf8)?;
            Ok(CloseFrame { code: Some(code), reason: reason.to_owned() })
        }
    }
}

/// Is this a code that an endpoint may put into a close frame (RFC 6455, 7.4, and the registry for 1012 to 1014)?
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Takes the mask off, or puts it on (RFC 6455, 5.3). The first byte meets the mask's first byte.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (blocks, tail) = bytes.as_chunks_mut::<8>();
    for block in blocks {
        *block = (u64::from_ne_bytes(*block) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// A stream whose handshake is in order, and the answer that its client waits for.
#[derive(Debug)]
pub struct Upgraded<S = TcpStream> {
    /// The stream.
    pub stream: S,
    /// What was read beyond the handshake: a client may send its first frames together with it, and they must not be
    /// lost.
    pub unread: BytesMut,
    /// The response 101 (RFC 6455, 4.2.2), to be written before any frame. Empty: it was written already.
    pub answer: Bytes,
}

/// A frame that waits to be written, or what goes before all frames and has no head. The payload is shared with every
/// other socket that it goes to.
#[derive(Debug)]
struct Outgoing {
    head: [u8; 10],
    head_len: u8,
    is_pong: bool,
    payload: Bytes,
}

impl Outgoing {
    /// One unfragmented, unmasked frame (RFC 6455, 5.1 and 5.2).
    fn new(opcode: Opcode, payload: Bytes) -> Self {
        let first = 0x80 | opcode.bits();
        let length = payload.len();
        let (head, head_len) = if let Ok(short) = u8::try_from(length)
            && usize::from(short) <= MAX_CONTROL
        {
            ([first, short, 0, 0, 0, 0, 0, 0, 0, 0], 2)
        } else if let Ok(medium) = u16::try_from(length) {
            let [a, b] = medium.to_be_bytes();
            ([first, 126, a, b, 0, 0, 0, 0, 0, 0], 4)
        } else {
            let long = u64::try_from(length).unwrap_or(u64::MAX);
            let [a, b, c, d, e, f, g, h] = long.to_be_bytes();
            ([first, 127, a, b, c, d, e, f, g, h], 10)
        };
        Self { head, head_len, is_pong: opcode == Opcode::Pong, payload }
    }

    /// The answer to the handshake.
    fn answer(payload: Bytes) -> Self {
        Self { head: [0; 10], head_len: 0, is_pong: false, payload }
    }

    fn is_answer(&self) -> bool {
        self.head_len == 0
    }

    fn head(&self) -> &[u8] {
        self.head.get(..usize::from(self.head_len)).unwrap_or_default()
    }

    fn len(&self) -> usize {
        usize::from(self.head_len) + self.payload.len()
    }
}

/// Where a connection stands (RFC 6455, 7).
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Messages go both ways.
    Open,
    /// Our close frame is queued or sent, the peer's has not come. What the peer sent before it is still reported.
    AwaitingClose,
    /// No frame will be read any more. Write the rest, shut our half of TCP, then read to the end without looking.
    Finishing { end: End, shut: bool, drained: usize },
    /// Nothing will happen any more.
    Over(End),
}

/// A WebSocket over an upgraded stream, server side.
///
/// It is driven by polling: [`poll_recv`](Self::poll_recv) for what comes, [`poll_flush`](Self::poll_flush) for what
/// goes. Sends only queue (unless much waits already), so **every turn that may have sent or received something
/// ends with `poll_flush`**; this also gathers the frames of one turn into one system call.
/// [`SocketDriver`](crate::socket_driver::SocketDriver) does all this for an actor.
#[derive(Debug)]
pub struct Socket<S = TcpStream> {
    stream: S,
    decoder: Decoder,
    /// Bytes that came with the handshake or behind the last message, not decoded yet.
    unread: BytesMut,
    queue: VecDeque<Outgoing>,
    /// Bytes of the queue's first frame that are written already.
    front_written: usize,
    /// Bytes in the queue that are not written yet.
    queued: usize,
    max_queued: usize,
    /// Pongs in the queue.
    pongs: usize,
    /// Answer to the newest ping, while too many pongs wait.
    late_pong: Option<Box<Bytes>>,
    /// Bytes handed to the kernel since the handshake.
    bytes_out: u64,
    stalled_since: Option<Instant>,
    /// Whoever flushed last: woken when there is something to do again. A frame may be queued by another future of the
    /// same task, after the one that writes has had its turn.
    driver: Option<Waker>,
    /// The answer to the handshake waits for the first frame.
    is_held: bool,
    phase: Phase,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes a stream, and answers the handshake with the next flush.
    pub fn new(upgraded: Upgraded<S>, limits: SocketLimits) -> Self {
        let Upgraded { stream, unread, answer } = upgraded;
        let mut socket = Self {
            stream,
            decoder: Decoder::new(limits.max_message, limits.max_frame),
            // An empty buffer still holds the memory it was cut from.
            unread: if unread.is_empty() { BytesMut::new() } else { unread },
            queue: VecDeque::new(),
            front_written: 0,
            queued: 0,
            max_queued: limits.max_queued,
            pongs: 0,
            late_pong: None,
            bytes_out: 0,
            stalled_since: None,
            driver: None,
            is_held: false,
            phase: Phase::Open,
        };
        if !answer.is_empty() {
            socket.push(Outgoing::answer(answer));
        }
        socket
    }

    /// Keeps the answer to the handshake back until there is a frame to send: for an owner that will soon have one. They
    /// travel together then, and the client wakes up once.
    #[must_use]
    pub fn held(mut self) -> Self {
        self.is_held = true;
        self
    }

    /// The stream below, to ask for its addresses.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Changes how long a message and a frame may be, in bytes, from the next frame on (as when a client has signed
    /// in and may send more).
    pub fn set_max_message(&mut self, max_message: usize, max_frame: usize) {
        self.decoder.max_message = max_message;
        self.decoder.max_frame = max_frame;
    }

    /// The next thing that came. Pending means that the task is woken when more comes.
    ///
    /// It goes on being polled after Close and Violation: it then writes what is queued, shuts our half of TCP first
    /// (RFC 6455, 7.1.1) and reads to the end, so that no reset swallows our close frame. How long that may take is
    /// the owner's business: [`abandon`](Self::abandon) ends it.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Incoming> {
        loop {
            match self.phase {
                Phase::Open | Phase::AwaitingClose => {}
                Phase::Finishing { end, shut, drained } => return self.poll_finish(cx, scratch, end, shut, drained),
                Phase::Over(end) => return Poll::Ready(Incoming::End(end)),
            }

            if !self.unread.is_empty() {
                let decoded = self.decoder.decode(&self.unread);
                if let Ok((used, _)) = &decoded {
                    self.unread.advance(*used);
                }
                if self.unread.is_empty() {
                    self.unread = BytesMut::new();
                }
                match decoded {
                    Ok((_, Some(message))) => return Poll::Ready(self.receive(message)),
                    Ok((_, None)) => {}
                    Err(violation) => return Poll::Ready(self.fail(violation)),
                }
            }

            let mut buffer = ReadBuf::new(&mut scratch.0);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(err)) => {
                    self.end(End::Failed(err.kind()));
                    continue;
                }
                Poll::Ready(Ok(())) => {}
            }
            let input = buffer.filled();
            if input.is_empty() {
                self.end(End::Dropped);
                continue;
            }
            match self.decoder.decode(input) {
                Ok((used, Some(message))) => {
                    self.unread.extend_from_slice(input.get(used..).unwrap_or_default());
                    return Poll::Ready(self.receive(message));
                }
                Ok((_, None)) => {}
                Err(violation) => return Poll::Ready(self.fail(violation)),
            }
        }
    }

    /// Queues a text message. The caller vouches that it is UTF-8. The payload is not copied.
    ///
    /// # Errors
    /// [`SendError::QueueFull`] when the peer does not keep up, [`SendError::Closing`] after a close frame.
    pub fn send_text(&mut self, payload: Bytes) -> Result<(), SendError> {
        self.send(Opcode::Text, payload)
    }

    /// Queues a binary message. The payload is not copied.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub fn send_binary(&mut self, payload: Bytes) -> Result<(), SendError> {
        self.send(Opcode::Binary, payload)
    }

    /// Queues a ping. Of a longer payload only the first 125 bytes are sent.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub fn send_ping(&mut self, mut payload: Bytes) -> Result<(), SendError> {
        payload.truncate(MAX_CONTROL);
        self.send(Opcode::Ping, payload)
    }

    /// Begins the closing handshake behind what is queued; what the peer sent before it noticed is still reported.
    /// Without effect when the socket is closing already. Of a longer reason only the first 123 bytes are sent.
    pub fn start_close(&mut self, code: u16, reason: &str) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        self.look_again();
        self.push_close(Some(code), reason);
        self.phase = Phase::AwaitingClose;
    }

    /// Lets whoever drives the socket look again: something was queued, or its owner wants to read what it did not
    /// before. Once per flush: the waker is taken here and given again by the next one.
    pub fn look_again(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Begins the closing handshake and forgets what is queued, but for a frame that is half written and the answer to
    /// the handshake: for a peer that does not read. Without effect on the phase when the socket is closing already.
    pub fn cut(&mut self, code: u16, reason: &str) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let stays = self.front_written > 0 || self.queue.front().is_some_and(Outgoing::is_answer);
        self.queue.truncate(usize::from(stays));
        self.queued = self.queue.front().map_or(0, |front| front.len().saturating_sub(self.front_written));
        self.pongs = self.queue.iter().filter(|frame| frame.is_pong).count();
        self.late_pong = None;
        self.start_close(code, reason);
    }

    /// Gives up: the next `poll_recv` reports the end. For a peer that does not finish the closing handshake in time.
    pub fn abandon(&mut self) {
        let end = match self.phase {
            Phase::Open | Phase::AwaitingClose | Phase::Finishing { end: End::Closed, .. } => End::Abandoned,
            Phase::Finishing { end, .. } | Phase::Over(end) => end,
        };
        self.look_again();
        self.end(end);
    }

    /// Writes what is queued. Ready: nothing waits, or the answer to the handshake is [held](Self::held). Pending: the peer
    /// is slow, the task is woken when there is room. A failure shows as the end at the next `poll_recv`.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let written_before = self.bytes_out;
        if !self.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
        loop {
            if self.is_held || matches!(self.phase, Phase::Over(_)) {
                return Poll::Ready(());
            }
            if self.queue.is_empty() {
                return self.poll_flushed(cx);
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut used = 0;
            let mut skip = self.front_written;
            let parts = self.queue.iter().flat_map(|frame| [frame.head(), frame.payload.as_ref()]);
            for (slot, part) in slices.iter_mut().zip(parts) {
                let fresh = part.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                *slot = IoSlice::new(fresh);
                used += 1;
            }
            let ready = slices.get(..used).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write_vectored(cx, ready) {
                Poll::Ready(Ok(0)) => self.end(End::Failed(io::ErrorKind::WriteZero)),
                Poll::Ready(Ok(count)) => self.written(count),
                Poll::Ready(Err(err)) => self.end(End::Failed(err.kind())),
                Poll::Pending => {
                    if self.stalled_since.is_none() || self.bytes_out != written_before {
                        self.stalled_since = Some(Instant::now());
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Bytes, headers included, that wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued
    }

    /// Since when the peer has taken nothing although something waits; none while writing goes well. To be trusted
    /// after a flush.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    /// Has closing begun, on whichever side, or is the connection over? Then nothing can be sent.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        !matches!(self.phase, Phase::Open)
    }

    /// Is the connection over, so that only the end remains to be reported?
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    fn receive(&mut self, message: Message) -> Incoming {
        match message {
            Message::Text(payload) => Incoming::Text(payload),
            Message::Binary(payload) => Incoming::Binary(payload),
            Message::Pong(payload) => Incoming::Pong(payload),
            Message::Ping(payload) => {
                if matches!(self.phase, Phase::Open) {
                    self.push_pong(payload.clone());
                }
                Incoming::Ping(payload)
            }
            Message::Close(frame) => {
                if matches!(self.phase, Phase::Open) {
                    self.push_close(frame.code, "");
                }
                self.finish(End::Closed);
                Incoming::Close(frame)
            }
        }
    }

    fn fail(&mut self, violation: Violation) -> Incoming {
        if matches!(self.phase, Phase::Open) {
            self.push_close(Some(violation.code()), &violation.to_string());
        }
        self.finish(End::Violated(violation));
        Incoming::Violation(violation)
    }

    /// From here on nothing is decoded.
    fn finish(&mut self, end: End) {
        self.phase = Phase::Finishing { end, shut: false, drained: 0 };
        self.forget_input();
    }

    fn end(&mut self, end: End) {
        self.phase = Phase::Over(end);
        self.forget_input();
        self.queue = VecDeque::new();
        self.front_written = 0;
        self.queued = 0;
        self.pongs = 0;
        self.late_pong = None;
        self.stalled_since = None;
    }

    fn forget_input(&mut self) {
        self.unread = BytesMut::new();
        self.decoder = Decoder::new(self.decoder.max_message, self.decoder.max_frame);
    }

    /// The last part of closing: write the rest, shut our half, read the peer's to its end.
    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        end: End,
        mut shut: bool,
        mut drained: usize,
    ) -> Poll<Incoming> {
        if !shut && self.poll_flush(cx).is_ready() {
            if let Phase::Over(end) = self.phase {
                return Poll::Ready(Incoming::End(end));
            }
            // An error here means that the peer is gone already; reading will tell.
            shut = Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
        }
        loop {
            let mut buffer = ReadBuf::new(&mut scratch.0);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
            let count = buffer.filled().len();
            drained = drained.saturating_add(count);
            match read {
                Poll::Pending => {
                    self.phase = Phase::Finishing { end, shut, drained };
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if count > 0 && drained <= MAX_DRAINED => {}
                Poll::Ready(_) => {
                    self.end(end);
                    return Poll::Ready(Incoming::End(end));
                }
            }
        }
    }

    fn send(&mut self, opcode: Opcode, payload: Bytes) -> Result<(), SendError> {
        if !matches!(self.phase, Phase::Open) {
            return Err(SendError::Closing);
        }
        self.look_again();
        let frame = Outgoing::new(opcode, payload);
        let bound = self.max_queued.saturating_sub(frame.len());
        let fits = frame.len() <= self.max_queued;
        if fits && self.queued > bound {
            self.write_now();
        }
        if !fits || self.queued > bound {
            return Err(SendError::QueueFull { queued: self.queued, limit: self.max_queued });
        }
        self.push(frame);
        if self.queued >= WRITE_AT_ONCE {
            self.write_now();
        }
        Ok(())
    }

    /// Writes without asking to be woken; the flush at the end of the turn does that.
    fn write_now(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        let _ = self.poll_flush(&mut nobody);
    }

    fn push(&mut self, frame: Outgoing) {
        self.is_held = false;
        self.queued += frame.len();
        self.queue.push_back(frame);
    }

    /// A close frame is not held to the bound of the queue: there is one at most.
    fn push_close(&mut self, code: Option<u16>, reason: &str) {
        let mut payload = Vec::new();
        if let Some(code) = code {
            let fitting = reason.get(..reason.floor_char_boundary(MAX_CONTROL - 2)).unwrap_or_default();
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(fitting.as_bytes());
        }
        self.push(Outgoing::new(Opcode::Close, payload.into()));
    }

    /// Pongs are not held to the bound of the queue, but to a number of their own.
    fn push_pong(&mut self, payload: Bytes) {
        if self.pongs >= MAX_PONGS {
            self.late_pong = Some(Box::new(payload));
            return;
        }
        self.pongs += 1;
        self.push(Outgoing::new(Opcode::Pong, payload));
    }

    fn written(&mut self, count: usize) {
        self.bytes_out = self.bytes_out.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.queued = self.queued.saturating_sub(count);
        self.front_written += count;
        while let Some(front) = self.queue.front()
            && front.len() <= self.front_written
        {
            self.front_written -= front.len();
            self.pongs -= usize::from(front.is_pong);
            self.queue.pop_front();
        }
        // Not behind a close frame, which is the last frame of all.
        if matches!(self.phase, Phase::Open)
            && self.pongs < MAX_PONGS
            && let Some(payload) = self.late_pong.take()
        {
            self.push_pong(*payload);
        }
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.queue = VecDeque::new();
        self.stalled_since = None;
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(err)) => {
                self.end(End::Failed(err.kind()));
                Poll::Ready(())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::time::Duration;

    use futures::FutureExt as _;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const LIMITS: SocketLimits = SocketLimits { max_message: 1 << 20, max_frame: 1 << 20, max_queued: 4 << 20 };

    const TEXT: u8 = 0x81;
    const BINARY: u8 = 0x82;
    const CLOSE: u8 = 0x88;
    const PING: u8 = 0x89;
    const PONG: u8 = 0x8a;

    /// A masked frame, as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = head(first, payload.len());
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// The header of a masked frame, up to the mask.
    fn head(first: u8, length: usize) -> Vec<u8> {
        match length {
            0..126 => vec![first, 0x80 | u8::try_from(length).unwrap()],
            126..65536 => [&[first, 0xfe], u16::try_from(length).unwrap().to_be_bytes().as_slice()].concat(),
            _ => [&[first, 0xff], u64::try_from(length).unwrap().to_be_bytes().as_slice()].concat(),
        }
    }

    fn close(code: u16, reason: &str) -> Vec<u8> {
        frame(CLOSE, &[code.to_be_bytes().as_slice(), reason.as_bytes()].concat())
    }

    /// Cuts what a server sent into frames: first byte and payload.
    fn parse_server(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let [first, length, rest @ ..] = bytes {
            let (length, rest) = match length {
                126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
                127 => (usize::try_from(u64::from_be_bytes(rest[..8].try_into().unwrap())).unwrap(), &rest[8..]),
                short => (usize::from(*short), rest),
            };
            frames.push((*first, rest[..length].to_vec()));
            bytes = &rest[length..];
        }
        assert!(bytes.is_empty(), "half a frame at the end");
        frames
    }

    fn block<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("hangs") })
    }

    async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Incoming {
        poll_fn(|cx| {
            let incoming = Scratch::with(|scratch| socket.poll_recv(cx, scratch));
            let _ = socket.poll_flush(cx);
            incoming
        })
        .await
    }

    async fn flushed<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) {
        poll_fn(|cx| socket.poll_flush(cx)).await;
    }

    /// Echoes until the end.
    async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>) -> (Vec<Incoming>, End) {
        let mut seen = Vec::new();
        loop {
            let incoming = next(&mut socket).await;
            match &incoming {
                Incoming::Text(payload) => socket.send_text(payload.clone()).unwrap(),
                Incoming::Binary(payload) => socket.send_binary(payload.clone()).unwrap(),
                Incoming::End(end) => return (seen, *end),
                _ => {}
            }
            flushed(&mut socket).await;
            seen.push(incoming);
        }
    }

    fn socket_pair(buffer: usize, limits: SocketLimits) -> (DuplexStream, Socket<DuplexStream>) {
        let (client, server) = tokio::io::duplex(buffer);
        (client, Socket::new(answered(server), limits))
    }

    fn answered<S>(stream: S) -> Upgraded<S> {
        Upgraded { stream, unread: BytesMut::new(), answer: Bytes::new() }
    }

    struct Outcome {
        seen: Vec<Incoming>,
        answers: Vec<(u8, Vec<u8>)>,
        end: End,
    }

    /// Sends `input` in pieces of `piece` bytes to an echo and collects what comes back until the server shuts its
    /// half, or until the input is at its end if the server has no reason to.
    fn converse(input: &[u8], piece: usize, limits: SocketLimits) -> Outcome {
        let (client, socket) = socket_pair(64 * 1024, limits);
        let (mut reader, mut writer) = tokio::io::split(client);
        block(async move {
            let talk = async move {
                for chunk in input.chunks(piece) {
                    if writer.write_all(chunk).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                let _ = writer.shutdown().await;
            };
            let listen = async move {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).await.unwrap();
                bytes
            };
            let ((seen, end), (), bytes) = tokio::join!(echo(socket), talk, listen);
            Outcome { seen, answers: parse_server(&bytes), end }
        })
    }

    /// The answers to `input`, which must be the same at once and byte by byte.
    fn answers(input: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let at_once = converse(input, usize::MAX, LIMITS);
        for piece in [1, 7] {
            let in_pieces = converse(input, piece, LIMITS);
            assert_eq!(at_once.answers, in_pieces.answers, "pieces of {piece}");
            assert_eq!(at_once.end, in_pieces.end, "pieces of {piece}");
        }
        at_once.answers
    }

    fn close_code(answers: &[(u8, Vec<u8>)]) -> Option<u16> {
        match answers.last() {
            Some((CLOSE, payload)) => Some(u16::from_be_bytes([payload[0], payload[1]])),
            _ => None,
        }
    }

    /// `input` is refused with `code`, and `answered` messages were echoed before.
    #[track_caller]
    fn assert_refused(input: &[u8], code: u16, answered: usize) {
        let answers = answers(input);
        assert_eq!(close_code(&answers), Some(code));
        assert_eq!(answers.len(), answered + 1, "{answers:?}");
    }

    #[test]
    fn an_idle_socket_is_small() {
        assert!(size_of::<Socket<TcpStream>>() <= 400, "{}", size_of::<Socket<TcpStream>>());
        let (mut client, mut socket) = socket_pair(1024, LIMITS);
        block(async {
            client.write_all(&[frame(TEXT, b"a"), frame(PING, b"b"), frame(TEXT, b"c")].concat()).await.unwrap();
            for _ in 0..3 {
                let incoming = next(&mut socket).await;
                if let Incoming::Text(payload) = incoming {
                    socket.send_text(payload).unwrap();
                }
            }
            flushed(&mut socket).await;
        });
        assert_eq!(socket.unread.capacity(), 0);
        assert_eq!(socket.decoder.data.capacity() + socket.decoder.control.capacity(), 0);
        assert_eq!(socket.queue.capacity(), 0);
        assert_eq!(socket.queued_bytes(), 0);
    }

    #[test]
    fn a_held_answer_goes_with_the_first_frame_and_before_it() {
        let opened = |buffer| {
            let (client, server) = tokio::io::duplex(buffer);
            let upgraded = Upgraded { answer: Bytes::from_static(b"HTTP/1.1 101\r\n\r\n"), ..answered(server) };
            (client, Socket::new(upgraded, LIMITS))
        };
        block(async {
            let mut read = [0; 64];
            let (mut client, mut socket) = opened(64);
            flushed(&mut socket).await;
            let count = client.read(&mut read).await.unwrap();
            assert_eq!(&read[..count], b"HTTP/1.1 101\r\n\r\n", "what is not held goes at once");

            let (mut client, socket) = opened(64);
            let mut socket = socket.held();
            flushed(&mut socket).await;
            assert!(client.read(&mut read).now_or_never().is_none());
            socket.send_text("welcome".into()).unwrap();
            flushed(&mut socket).await;
            let count = client.read(&mut read).await.unwrap();
            assert_eq!(&read[..count], b"HTTP/1.1 101\r\n\r\n\x81\x07welcome");

            // A peer that is cut off still learns that it was connected.
            let (mut client, socket) = opened(64);
            let mut socket = socket.held();
            socket.send_text("welcome".into()).unwrap();
            socket.cut(4420, "");
            flushed(&mut socket).await;
            let count = client.read(&mut read).await.unwrap();
            assert_eq!(&read[..count], b"HTTP/1.1 101\r\n\r\n\x88\x02\x11\x44");
        });
    }

    #[test]
    fn frames_glued_to_the_handshake_come_first() {
        let (mut client, server) = tokio::io::duplex(1024);
        let glued = [frame(TEXT, b"one"), frame(TEXT, b"two"), frame(TEXT, b"three")[..4].to_vec()].concat();
        let upgraded = Upgraded { unread: BytesMut::from(glued.as_slice()), ..answered(server) };
        let mut socket = Socket::new(upgraded, LIMITS);
        block(async {
            assert_eq!(next(&mut socket).await, Incoming::Text("one".into()));
            assert_eq!(next(&mut socket).await, Incoming::Text("two".into()));
            client.write_all(&frame(TEXT, b"three")[4..]).await.unwrap();
            assert_eq!(next(&mut socket).await, Incoming::Text("three".into()));
        });
    }

    #[test]
    fn a_payload_is_sent_without_a_copy() {
        let (_client, mut socket) = socket_pair(1024, LIMITS);
        let payload = Bytes::from(vec![b'x'; 1000]);
        socket.send_text(payload.clone()).unwrap();
        assert_eq!(socket.queue[0].payload.as_ptr(), payload.as_ptr());
    }

    #[test]
    fn a_message_holds_no_more_memory_than_it_has_bytes() {
        let mut decoder = Decoder::new(1 << 20, 1 << 20);
        let whole = frame(BINARY, &[7; 300_000]);
        decoder.decode(&whole[..10]).unwrap();
        assert!(decoder.data.capacity() <= GROWTH, "memory for what is only announced");
        decoder.decode(&whole[10..100_000]).unwrap();
        assert!(decoder.data.capacity() <= 200_000);
        let (_, message) = decoder.decode(&whole[100_000..]).unwrap();
        assert_eq!(message, Some(Message::Binary(vec![7; 300_000].into())));
        assert_eq!(decoder.data.capacity(), 0);
    }

    #[test]
    fn the_mask_fits_at_every_offset() {
        for length in 0..40 {
            for cut in 0..=length {
                let payload: Vec<u8> = (0..length).collect();
                let bytes = frame(BINARY, &payload);
                let mut decoder = Decoder::new(100, 100);
                let (front, back) = bytes.split_at(6 + usize::from(cut));
                let first = decoder.decode(front).unwrap().1;
                let second = decoder.decode(back).unwrap().1;
                assert_eq!(first.or(second), Some(Message::Binary(payload.into())));
            }
        }
    }

    // The categories of the Autobahn test suite. Every case also runs in pieces of one and of seven bytes.

    #[test]
    fn autobahn_1_payload_sizes() {
        for length in [0, 1, 125, 126, 127, 128, 65535, 65536] {
            let payload = vec![b'*'; length];
            for first in [TEXT, BINARY] {
                let input = [frame(first, &payload), close(1000, "")].concat();
                let expected = vec![(first, payload.clone()), (CLOSE, vec![0x03, 0xe8])];
                assert_eq!(answers(&input), expected, "{length} bytes");
            }
        }
    }

    #[test]
    fn autobahn_2_pings() {
        for payload in [&b""[..], b"Hello", &[0x00, 0xff, 0xfe, 0xfd], &[0xfe; 125]] {
            let input = [frame(PING, payload), close(1000, "")].concat();
            assert_eq!(answers(&input), vec![(PONG, payload.to_vec()), (CLOSE, vec![0x03, 0xe8])]);
        }
        assert_refused(&frame(PING, &[0xfe; 126]), 1002, 0);
        let unsolicited = [frame(PONG, b"p"), frame(PING, b"q"), close(1000, "")].concat();
        assert_eq!(answers(&unsolicited), vec![(PONG, b"q".to_vec()), (CLOSE, vec![0x03, 0xe8])]);
        let ten: Vec<u8> = (0..10).flat_map(|number| frame(PING, &[number])).chain(close(1000, "")).collect();
        let pongs: Vec<_> = answers(&ten).into_iter().filter(|(first, _)| *first == PONG).collect();
        assert_eq!(pongs, (0..10).map(|number| (PONG, vec![number])).collect::<Vec<_>>());
    }

    #[test]
    fn autobahn_3_reserved_bits() {
        for bits in 1..8 {
            for first in [TEXT, BINARY, CLOSE, PING] {
                let input = [frame(TEXT, b"before"), frame(first | (bits << 4), b""), frame(PING, b"")].concat();
                assert_refused(&input, 1002, 1);
            }
        }
    }

    #[test]
    fn autobahn_4_opcodes() {
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            let input = [frame(TEXT, b"before"), frame(0x80 | opcode, b"x"), frame(PING, b"")].concat();
            assert_refused(&input, 1002, 1);
        }
    }

    #[test]
    fn autobahn_5_fragmentation() {
        assert_refused(&[frame(0x09, b"a"), frame(0x80, b"b")].concat(), 1002, 0);
        assert_refused(&[frame(0x0a, b"a"), frame(0x80, b"b")].concat(), 1002, 0);
        assert_refused(&[frame(0x80, b"nothing to continue"), frame(TEXT, b"x")].concat(), 1002, 0);
        assert_refused(&[frame(0x00, b"nothing to continue"), frame(TEXT, b"x")].concat(), 1002, 0);
        assert_refused(&[frame(0x01, b"a"), frame(TEXT, b"b")].concat(), 1002, 0);
        assert_refused(&[frame(0x01, b"a"), frame(0x80, b"b"), frame(0x80, b"c")].concat(), 1002, 1);

        let input = [
            frame(0x01, b"one "),
            frame(PING, b"first"),
            frame(0x00, b""),
            frame(0x00, b"two "),
            frame(PING, b"second"),
            frame(0x80, b"three"),
            frame(0x02, b""),
            frame(0x80, b""),
            close(1000, ""),
        ]
        .concat();
        let expected = vec![
            (PONG, b"first".to_vec()),
            (PONG, b"second".to_vec()),
            (TEXT, b"one two three".to_vec()),
            (BINARY, Vec::new()),
            (CLOSE, vec![0x03, 0xe8]),
        ];
        assert_eq!(answers(&input), expected);
    }

    const VALID: &[&[u8]] = &[
        "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
        "κόσμε".as_bytes(),
        b"\x00",
        b"\x7f",
        b"\xc2\x80",
        b"\xdf\xbf",
        b"\xe0\xa0\x80",
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbd",
        b"\xef\xbf\xbf",
        b"\xf0\x90\x80\x80",
        b"\xf4\x8f\xbf\xbf",
    ];

    const INVALID: &[&[u8]] = &[
        b"\xce\xba\xed\xa0\x80edited",
        b"\x80",
        b"\xbf",
        b"\x80\xbf",
        b"\xc0 ",
        b"\xe0 ",
        b"\xf0 ",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        // Unfinished at the end of the message.
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
    ];

    #[test]
    fn autobahn_6_utf8() {
        for payload in VALID {
            for cut in 0..=payload.len() {
                let (front, back) = payload.split_at(cut);
                let input = [frame(0x01, front), frame(PING, b"!"), frame(0x80, back), close(1000, "")].concat();
                assert_eq!(answers(&input)[1], (TEXT, payload.to_vec()));
            }
        }
        for payload in INVALID {
            assert_refused(&frame(TEXT, payload), 1007, 0);
            let (front, back) = payload.split_at(payload.len() / 2);
            assert_refused(&[frame(0x01, front), frame(0x00, b""), frame(0x80, back)].concat(), 1007, 0);
            // Binary messages may hold anything.
            let binary = [frame(BINARY, payload), close(1000, "")].concat();
            assert_eq!(answers(&binary)[0], (BINARY, payload.to_vec()));
        }
    }

    #[test]
    fn invalid_utf8_fails_at_its_first_byte() {
        for invalid in [&b"\xce\xba\xf4\x90"[..], b"\xed\xa0", b"\xff"] {
            // The frame is not whole, and not the last of its message.
            let mut decoder = Decoder::new(1000, 1000);
            decoder.decode(&frame(0x01, b"ok")).unwrap();
            let whole = frame(0x00, &[invalid, &[b'x'; 100]].concat());
            let (last, before) = whole[..6 + invalid.len()].split_last().unwrap();
            assert_eq!(decoder.decode(before).unwrap().1, None);
            assert_eq!(decoder.decode(&[*last]), Err(Violation::Utf8));
        }
    }

    #[test]
    fn autobahn_7_closing() {
        // What comes behind a close frame is not looked at.
        let input = [frame(TEXT, b"x"), close(1000, "bye"), frame(TEXT, b"late"), frame(PING, b"late")].concat();
        assert_eq!(answers(&input), vec![(TEXT, b"x".to_vec()), (CLOSE, vec![0x03, 0xe8])]);
        // In the middle of a message.
        let input = [frame(0x01, b"half"), close(1000, "")].concat();
        assert_eq!(answers(&input), vec![(CLOSE, vec![0x03, 0xe8])]);
        // No code: an empty answer.
        assert_eq!(answers(&frame(CLOSE, b"")), vec![(CLOSE, Vec::new())]);
        assert_refused(&frame(CLOSE, b"\x03"), 1002, 0);
        assert_refused(&close(1000, &"*".repeat(124)), 1002, 0);
        assert_eq!(close_code(&answers(&close(1000, &"*".repeat(123)))), Some(1000));
        assert_refused(&frame(CLOSE, b"\x03\xe8\xce\xba\xed\xa0\x80"), 1007, 0);
    }

    #[test]
    fn close_codes() {
        let mut valid: Vec<u16> = vec![1000, 1001, 1002, 1003, 3000, 3999, 4000, 4999];
        valid.extend(1007..=1014);
        for code in valid {
            let outcome = converse(&close(code, "why"), usize::MAX, LIMITS);
            assert_eq!(close_code(&outcome.answers), Some(code));
            assert_eq!(outcome.seen, vec![Incoming::Close(CloseFrame { code: Some(code), reason: "why".into() })]);
            assert_eq!(outcome.end, End::Closed);
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_refused(&close(code, ""), 1002, 0);
        }
    }

    #[test]
    fn unmasked_frames_are_refused() {
        assert_refused(b"\x81\x05Hello", 1002, 0);
        let outcome = converse(b"\x81\x05Hello", usize::MAX, LIMITS);
        assert_eq!(outcome.end, End::Violated(Violation::Protocol("frame not masked")));
    }

    #[test]
    fn what_is_too_big_is_refused_at_its_header() {
        let limits = SocketLimits { max_message: 1000, max_frame: 600, max_queued: 4096 };
        let refused = |input: &[u8]| close_code(&converse(input, usize::MAX, limits).answers);
        assert_eq!(refused(&[frame(TEXT, &[b'x'; 600]), close(1000, "")].concat()), Some(1000));
        assert_eq!(refused(&[head(TEXT, 601), vec![0; 4]].concat()), Some(1009));
        let fragments = [frame(0x01, &[b'x'; 600]), frame(0x00, &[b'x'; 400])].concat();
        assert_eq!(refused(&[&fragments[..], &frame(0x80, b""), &close(1000, "")].concat()), Some(1000));
        assert_eq!(refused(&[fragments, frame(0x80, b"x")].concat()), Some(1009));
        assert_eq!(refused(&[head(BINARY, usize::MAX >> 1), vec![0; 4]].concat()), Some(1009));
        assert_eq!(refused(&[vec![0x82, 0xff], vec![0xff; 8], vec![0; 4]].concat()), Some(1002));
    }

    #[test]
    fn sixteen_mebibytes_come_back() {
        let limits = SocketLimits { max_message: 16 << 20, max_frame: 16 << 20, max_queued: 17 << 20 };
        let payload: Vec<u8> = (0..16 << 20).map(|number: u32| number.to_le_bytes()[1]).collect();
        let outcome = converse(&[frame(BINARY, &payload), close(1000, "")].concat(), 100_000, limits);
        assert!(outcome.answers[0] == (BINARY, payload));
        assert_eq!(outcome.end, End::Closed);
    }

    #[test]
    fn a_peer_that_goes_away_is_noticed() {
        assert_eq!(converse(b"", usize::MAX, LIMITS).end, End::Dropped);
        assert_eq!(converse(&frame(TEXT, b"abc")[..5], usize::MAX, LIMITS).end, End::Dropped);
    }

    #[test]
    fn the_close_frame_arrives_before_the_end_although_the_peer_is_still_sending() {
        let (mut client, socket) = socket_pair(4096, SocketLimits { max_message: 100, max_frame: 100, ..LIMITS });
        block(async move {
            let talk = async move {
                client.write_all(&frame(BINARY, &[0; 50_000])).await.unwrap();
                let mut bytes = Vec::new();
                client.read_to_end(&mut bytes).await.unwrap();
                assert_eq!(close_code(&parse_server(&bytes)), Some(1009));
            };
            let (outcome, ()) = tokio::join!(echo(socket), talk);
            assert_eq!(outcome, (vec![Incoming::Violation(Violation::TooBig)], End::Violated(Violation::TooBig)));
        });
    }

    #[test]
    fn our_own_close_waits_for_the_answer_and_reports_what_came_before_it() {
        let (mut client, mut socket) = socket_pair(4096, LIMITS);
        block(async move {
            socket.send_text("last".into()).unwrap();
            socket.start_close(4000, &"ö".repeat(100));
            assert_eq!(socket.send_text("no".into()), Err(SendError::Closing));
            flushed(&mut socket).await;
            client.write_all(&[frame(TEXT, b"crossed"), close(4000, ""), frame(TEXT, b"late")].concat()).await.unwrap();
            assert_eq!(next(&mut socket).await, Incoming::Text("crossed".into()));
            assert!(matches!(next(&mut socket).await, Incoming::Close(CloseFrame { code: Some(4000), .. })));
            let talk = async move {
                let mut bytes = Vec::new();
                client.read_to_end(&mut bytes).await.unwrap();
                bytes
            };
            let (end, bytes) = tokio::join!(next(&mut socket), talk);
            assert_eq!(end, Incoming::End(End::Closed));
            let frames = parse_server(&bytes);
            assert_eq!(frames[0], (TEXT, b"last".to_vec()));
            assert_eq!(close_code(&frames), Some(4000));
            assert_eq!(std::str::from_utf8(&frames[1].1[2..]).unwrap(), "ö".repeat(61), "cut between characters");
            assert_eq!(frames.len(), 2);
        });
    }

    #[test]
    fn a_peer_that_never_reads_meets_a_bound() {
        let (mut client, mut socket) = socket_pair(64, SocketLimits { max_queued: 10_000, ..LIMITS });
        block(async move {
            let payload = Bytes::from(vec![b'x'; 1000]);
            let sent = (0..100).take_while(|_| socket.send_text(payload.clone()).is_ok()).count();
            // Nine frames of 1,004 bytes fit, and the tenth because 64 bytes are in the pipe by then.
            assert_eq!(sent, 10);
            assert!(matches!(socket.send_text(payload), Err(SendError::QueueFull { limit: 10_000, .. })));
            assert_eq!(poll_once(&mut socket).await, Poll::Pending);
            assert!(socket.stalled_since().is_some());
            assert!(socket.queued_bytes() <= 10_000);

            // A flood of pings does not grow the queue either.
            for number in 0..1000u16 {
                client.write_all(&frame(PING, &number.to_be_bytes())).await.unwrap();
                assert!(matches!(next(&mut socket).await, Incoming::Ping(_)));
            }
            assert!(socket.queued_bytes() <= 10_000 + MAX_PONGS * 127);

            socket.cut(4420, "slow consumer");
            assert!(socket.queued_bytes() < 1100, "only the half-written frame and the close frame are left");
            let mut bytes = vec![0; 1004 + 2 + 15];
            let (_, read) = tokio::join!(flushed(&mut socket), client.read_exact(&mut bytes));
            read.unwrap();
            assert_eq!(close_code(&parse_server(&bytes)), Some(4420));
            assert_eq!(socket.stalled_since(), None);

            socket.abandon();
            assert_eq!(next(&mut socket).await, Incoming::End(End::Abandoned));
        });
    }

    async fn poll_once(socket: &mut Socket<DuplexStream>) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(socket.poll_flush(cx))).await
    }

    #[test]
    fn the_newest_ping_is_answered_when_pings_pile_up() {
        let (mut client, mut socket) = socket_pair(16, LIMITS);
        block(async move {
            for number in 0..100 {
                client.write_all(&frame(PING, &[number])).await.unwrap();
                assert!(matches!(next(&mut socket).await, Incoming::Ping(_)));
            }
            socket.send_text("after".into()).unwrap();
            let mut bytes = Vec::new();
            while parse_whole(&bytes).iter().all(|(_, payload)| payload != &[99]) {
                let mut piece = [0; 16];
                let (_, count) = tokio::join!(poll_once(&mut socket), client.read(&mut piece));
                bytes.extend_from_slice(&piece[..count.unwrap()]);
            }
            let frames = parse_whole(&bytes);
            assert!(frames.iter().filter(|(first, _)| *first == PONG).count() < 50);
            assert!(frames.contains(&(TEXT, b"after".to_vec())));
        });
    }

    /// The whole frames at the beginning of `bytes`; all are short.
    fn parse_whole(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let [first, length, rest @ ..] = bytes {
            let Some(payload) = rest.get(..usize::from(*length)) else { break };
            frames.push((*first, payload.to_vec()));
            bytes = &rest[payload.len()..];
        }
        frames
    }

    #[test]
    fn many_small_frames_arrive_whole_and_in_order() {
        let (mut client, mut socket) = socket_pair(777, LIMITS);
        block(async move {
            for number in 0..5000u32 {
                socket.send_text(format!("{number}").into()).unwrap();
            }
            let talk = async move {
                let mut bytes = Vec::new();
                client.read_to_end(&mut bytes).await.unwrap();
                bytes
            };
            let send = async move {
                flushed(&mut socket).await;
                drop(socket);
            };
            let ((), bytes) = tokio::join!(send, talk);
            let numbers: Vec<_> = parse_server(&bytes).into_iter().map(|(_, payload)| payload).collect();
            assert_eq!(numbers, (0..5000).map(|number| format!("{number}").into_bytes()).collect::<Vec<_>>());
        });
    }

    /// One message and where it is cut into fragments, with pings between them.
    #[derive(Debug, Clone)]
    struct Plan {
        is_text: bool,
        text: String,
        cuts: Vec<prop::sample::Index>,
        ping: Option<Vec<u8>>,
    }

    impl Plan {
        fn encode(&self, bytes: &mut Vec<u8>, expected: &mut Vec<Message>) {
            let payload = self.text.as_bytes();
            let mut cuts: Vec<usize> = self.cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(payload.len());
            let mut start = 0;
            let mut first = if self.is_text { 0x01 } else { 0x02 };
            let count = cuts.len();
            for (number, end) in cuts.into_iter().enumerate() {
                let last = if number + 1 == count { 0x80 } else { 0x00 };
                bytes.extend(frame(first | last, &payload[start..end]));
                if last == 0
                    && let Some(ping) = &self.ping
                {
                    bytes.extend(frame(PING, ping));
                    expected.push(Message::Ping(ping.clone().into()));
                }
                first = 0x00;
                start = end;
            }
            let payload = Bytes::copy_from_slice(payload);
            expected.push(if self.is_text { Message::Text(payload) } else { Message::Binary(payload) });
        }
    }

    fn plan() -> impl Strategy<Value = Plan> {
        let short = prop::collection::vec(any::<char>(), 0..200);
        let text = prop_oneof![4 => short, 1 => prop::collection::vec(any::<char>(), 20_000..40_000)];
        let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..5);
        let ping = prop::option::of(prop::collection::vec(any::<u8>(), 0..=125));
        (any::<bool>(), text, cuts, ping).prop_map(|(is_text, text, cuts, ping)| Plan {
            is_text,
            text: text.into_iter().collect(),
            cuts,
            ping,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_chunking_yields_the_same_messages(
            plans in prop::collection::vec(plan(), 1..6),
            sizes in prop::collection::vec(1usize..3000, 1..20),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for plan in &plans {
                plan.encode(&mut bytes, &mut expected);
            }
            let mut decoder = Decoder::new(1 << 20, 1 << 20);
            let mut messages = Vec::new();
            let mut rest = bytes.as_slice();
            for size in sizes.into_iter().cycle() {
                let (mut chunk, tail) = rest.split_at(size.min(rest.len()));
                rest = tail;
                while !chunk.is_empty() {
                    let (used, message) = decoder.decode(chunk).unwrap();
                    chunk = &chunk[used..];
                    messages.extend(message);
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(messages == expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::new(1000, 1000);
            let mut rest = bytes.as_slice();
            while let Ok((used, Some(_))) = decoder.decode(rest) {
                rest = &rest[used..];
            }
        }
    }
}
