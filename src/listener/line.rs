//! The stream of a connection while HTTP is spoken on it: how long it may be silent, how much of it is read ahead, and how
//! long an answer may wait to be read.
//!
//! actix-http times the silence between requests. As soon as one byte of a later head has come it times nothing any more,
//! and would wait for ever; the first head of a connection it would answer with a bare 408 even if the whole of it had come
//! while this process could not look (stopped, or starved). So heads are timed here: what can be read is read before
//! anybody is late, and who is late is cut without an answer, which every client takes for "repeat it".
//!
//! actix-http also keeps reading while answers wait to be written, and its writes have no timeout. So this module reads
//! nothing while written bytes wait or requests are unfinished (see [`served`](super::served)), and closes the connection
//! of a peer that reads too little.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use sotto_actors::admission::Place;

use super::gate::Entered;
use super::quota::Quota;
use super::served::{Served, Wanted};

/// So much later than actix-http, which ends what is silent in order.
const BEHIND: Duration = Duration::from_secs(1);

/// Silence that is allowed on a connection without a valid token.
const STRANGERS_SILENCE: Duration = Duration::from_secs(10);

/// The same while few more connections can be admitted. A head may not take longer then either.
const SILENCE_UNDER_PRESSURE: Duration = Duration::from_secs(2);

/// Most bytes that are read before actix-http has looked at them.
const AT_ONCE: usize = 16 * 1024;

/// Most heads among them: so many requests of a connection can be unfinished.
const HEADS_AT_ONCE: usize = 16;

/// Most bytes of a chunked body that are read at once: the end of the body cannot be recognised here, and heads may
/// follow it.
const CHUNKED_AT_ONCE: usize = 1024;

/// Least number of waiting bytes that the peer must accept within the write timeout.
const LEAST_WRITTEN: usize = 4 * 1024;

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of a request.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) silence: Duration,
    /// For the peer to read [`LEAST_WRITTEN`] bytes.
    pub(super) write: Duration,
}

/// Counts the ends of heads: empty lines behind lines that are not empty. A body can contain such lines too; a head has
/// exactly one.
#[derive(Debug, Default)]
struct Heads {
    /// The present line has something on it.
    is_text: bool,
    /// The line before had.
    was_text: bool,
}

impl Heads {
    /// Takes bytes up to the end of the `left`th head. Returns their number, and how many heads are still left.
    fn take(&mut self, bytes: &[u8], mut left: usize) -> (usize, usize) {
        for (place, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' => {
                    let is_end = !self.is_text && self.was_text;
                    (self.was_text, self.is_text) = (self.is_text, false);
                    if is_end {
                        left = left.saturating_sub(1);
                        if left == 0 {
                            return (place + 1, 0);
                        }
                    }
                }
                b'\r' => {}
                _ => self.is_text = true,
            }
        }
        (bytes.len(), left)
    }
}

/// The stream of a connection for as long as HTTP is spoken on it.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    served: Served,
    patience: Patience,
    /// None: connections are not counted here, and all are treated alike.
    place: Option<Place>,
    /// None: as many bytes as it likes. A proxy's connection carries those of many.
    quota: Option<Quota>,
    /// Until more of the quota is free.
    pause: Option<Pin<Box<Sleep>>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer is that of a head which is on its way, behind so many others; else that of the silence.
    head: Option<u64>,
    /// Something came with a request or while it was served: its body, or the beginning of the next head.
    came: bool,
    /// Read from the stream, but behind the last head that may be given out.
    held: BytesMut,
    heads: Heads,
    /// What may still be given out before actix-http has looked at it: bytes, and heads.
    room: (usize, usize),
    /// Since when the peer does not take what is written, and how much it took of it. It waits for nothing of its own.
    stalled: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Line {
    pub(super) fn new(stream: TcpStream, patience: Patience, entered: Option<Entered>) -> Self {
        let served = Served::default();
        if entered.as_ref().is_some_and(|entered| entered.is_proxy) {
            served.vouch();
        }
        let mut line = Self {
            stream,
            served,
            patience: Patience { silence: patience.silence.saturating_add(BEHIND), ..patience },
            quota: entered.as_ref().filter(|entered| !entered.is_proxy).map(|_| Quota::new(Instant::now())),
            pause: None,
            place: entered.map(|entered| entered.place),
            timer: None,
            head: Some(0),
            came: false,
            held: BytesMut::new(),
            heads: Heads::default(),
            room: (AT_ONCE, HEADS_AT_ONCE),
            stalled: None,
        };
        line.timer = Some(Box::pin(sleep(line.head_time())));
        line
    }

    /// The connections that this one is counted with, if it is a stranger's.
    fn strangers_place(&self) -> Option<&Place> {
        self.place.as_ref().filter(|_| !self.served.is_known())
    }

    /// How long the next head may take.
    fn head_time(&self) -> Duration {
        let is_pressed = self.strangers_place().is_some_and(|place| place.connections().is_pressed());
        if is_pressed { self.patience.head.min(SILENCE_UNDER_PRESSURE) } else { self.patience.head }
    }

    /// How long the connection may be silent.
    fn silence(&self) -> Duration {
        let most = match self.strangers_place() {
            None => return self.patience.silence,
            Some(place) if place.connections().is_pressed() => SILENCE_UNDER_PRESSURE,
            Some(_) => STRANGERS_SILENCE,
        };
        self.patience.silence.min(most)
    }

    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// The stream, what was read from it that nobody has seen, and the connection's place.
    pub(super) fn into_parts(self) -> (TcpStream, BytesMut, Option<Place>) {
        (self.stream, self.held, self.place)
    }

    fn heard(&mut self) {
        let head = Some(self.served.begun());
        if !self.served.none() {
            self.came = true;
        } else if self.timer.is_none() || self.head != head {
            (self.timer, self.head) = (Some(Box::pin(sleep(self.head_time()))), head);
        }
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        if self.head.is_some_and(|head| head != self.served.begun()) {
            // It has come to its end. What came with it may have begun another.
            (self.timer, self.head, self.came) = (None, None, true);
        }
        if !self.served.none() {
            self.timer = None;
            return false;
        }
        if std::mem::take(&mut self.came) {
            self.timer = Some(Box::pin(sleep(self.silence())));
        }
        let late = self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready());
        late && self.stalled.is_none()
    }

    /// How much may be given out now; none: nothing before something changes.
    fn allowed(&self) -> Option<Allowed> {
        if self.stalled.is_some() {
            return None;
        }
        let (bytes, heads) = self.room;
        if self.served.none() {
            return Some(Allowed { bytes, heads: Some(heads) });
        }
        let most = match self.served.wanted()? {
            Wanted::Exactly(missing) => usize::try_from(missing).unwrap_or(usize::MAX),
            Wanted::Chunks => CHUNKED_AT_ONCE,
        };
        Some(Allowed { bytes: bytes.min(most), heads: None })
    }

    /// How many bytes the quota allows; none: it is used up, and the task is woken when more is free.
    fn quota(&mut self, context: &mut Context<'_>) -> Option<usize> {
        let Some(quota) = &mut self.quota else {
            return Some(usize::MAX);
        };
        loop {
            match quota.room(Instant::now) {
                Ok(bytes) => return Some(bytes),
                Err(wait) => {
                    let pause = self.pause.insert(Box::pin(sleep(wait)));
                    if pause.as_mut().poll(context).is_pending() {
                        return None;
                    }
                }
            }
        }
    }

    /// Reads what was held, or else from the stream.
    fn fill(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        let most = most.min(into.remaining());
        if !self.held.is_empty() {
            let part = self.held.split_to(most.min(self.held.len()));
            into.put_slice(&part);
            if self.held.is_empty() {
                self.held = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        if most == into.remaining() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let mut part = ReadBuf::new(into.initialize_unfilled_to(most));
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut part);
        let came = part.filled().len();
        into.advance(came);
        polled
    }

    /// Counts what was read into `into` behind `before`, and takes back what is too much of it.
    fn gave(&mut self, into: &mut ReadBuf<'_>, before: usize, allowed: Allowed) {
        let came = into.filled().get(before..).unwrap_or_default();
        let taken = match allowed.heads {
            Some(heads) => {
                let (taken, left) = self.heads.take(came, heads);
                self.room.1 = left;
                taken
            }
            None => came.len(),
        };
        if let Some(rest @ [_, ..]) = came.get(taken..) {
            let mut held = BytesMut::with_capacity(rest.len() + self.held.len());
            held.extend_from_slice(rest);
            held.extend_from_slice(&self.held);
            self.held = held;
            into.set_filled(before + taken);
        }
        self.room.0 = self.room.0.saturating_sub(taken);
        if let Some(quota) = &mut self.quota {
            quota.take(taken);
        }
    }

    /// Bytes were written, or nothing is left to be.
    fn wrote(&mut self, is_all: bool, bytes: usize) {
        let is_enough = match &mut self.stalled {
            None => return,
            Some((_, taken)) => {
                *taken += bytes;
                is_all || *taken >= LEAST_WRITTEN
            }
        };
        if is_enough {
            self.stalled = None;
            // Silence counts from now, a head that is on its way from its beginning.
            self.came |= self.head != Some(self.served.begun());
            self.served.wake();
        }
    }
}

/// What may be given out.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    bytes: usize,
    /// None: no heads are expected.
    heads: Option<usize>,
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(allowed) = self.allowed() else {
            self.served.wait(context.waker());
            if !self.served.none() {
                // Nobody is late who is served.
                self.timer = None;
            }
            return Poll::Pending;
        };
        if allowed.bytes == 0 || allowed.heads == Some(0) {
            // It looks at what it has, and comes back.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(quota) = self.quota(context) else {
            return Poll::Pending;
        };
        let before = into.filled().len();
        match self.fill(context, into, allowed.bytes.min(quota)) {
            Poll::Ready(Ok(())) if into.filled().len() > before => {
                self.gave(into, before, allowed);
                self.heard();
                self.served.came();
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.is_late(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            other => other,
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.room = (AT_ONCE, HEADS_AT_ONCE);
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(Ok(written)) => {
                self.wrote(false, written);
                Poll::Ready(Ok(written))
            }
            Poll::Pending => {
                let patience = self.patience.write;
                let (timer, _) = self.stalled.get_or_insert_with(|| (Box::pin(sleep(patience)), 0));
                match timer.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Poll::Pending => Poll::Pending,
                }
            }
            failed => failed,
        }
    }

    /// actix-http flushes whenever it has looked at what was read and has written all that it had to.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.room = (AT_ONCE, HEADS_AT_ONCE);
        self.wrote(true, 0);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const HEAD: Duration = Duration::from_millis(100);
    const SILENCE: Duration = Duration::from_millis(400);

    async fn pair() -> (Line, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let patience = Patience { head: HEAD, silence: SILENCE, write: SILENCE };
        let mut line = Line::new(listener.accept().await.unwrap().0, patience, None);
        line.patience.silence = SILENCE;
        (line, peer)
    }

    /// Whether reading waits for something else than bytes.
    fn is_gated(line: &mut Line) -> bool {
        let mut space = [0; 100];
        let mut context = Context::from_waker(std::task::Waker::noop());
        let polled = Pin::new(&mut *line).poll_read(&mut context, &mut ReadBuf::new(&mut space));
        polled.is_pending()
    }

    #[test]
    fn heads_are_counted_by_their_ends() {
        let ends = |bytes: &[u8]| {
            let (_, left) = Heads::default().take(bytes, 100);
            100 - left
        };
        assert_eq!(ends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n"), 2);
        assert_eq!(ends(b"GET / HTTP/1.1\n\nGET / HTTP/1.1\n\r\n"), 2);
        assert_eq!(ends(b"\r\n\r\n\r\n\n\n"), 0, "empty lines before a head are none");
        assert_eq!(ends(b"GET / HTTP/1.1\r\nHost: a\r\n\r"), 0);
        let mut heads = Heads::default();
        assert_eq!(heads.take(b"a\r\n\r", 1), (4, 1));
        assert_eq!(heads.take(b"\nb\n\nc", 2), (4, 0), "a head may end in another read");
    }

    #[tokio::test]
    async fn no_more_heads_are_given_out_than_may_be_unfinished() {
        let (mut line, mut peer) = pair().await;
        let head = b"GET / HTTP/1.1\r\n\r\n";
        peer.write_all(&head.repeat(40)).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut rounds = Vec::new();
        loop {
            let mut space = [0; 4096];
            let came = line.read(&mut space).await.unwrap();
            if came == 0 {
                break;
            }
            rounds.push(came / head.len());
            assert_eq!(came % head.len(), 0);
            if rounds.iter().sum::<usize>().is_multiple_of(HEADS_AT_ONCE) {
                assert!(is_gated(&mut line), "it must be looked at first");
                line.flush().await.unwrap();
            }
        }
        assert_eq!(rounds.iter().sum::<usize>(), 40);
        assert!(rounds.iter().all(|heads| *heads <= HEADS_AT_ONCE), "{rounds:?}");
    }

    #[tokio::test]
    async fn what_nobody_reads_closes_reading_and_then_ends_the_connection() {
        let (mut line, mut peer) = pair().await;
        let rubbish = vec![0; 1 << 16];
        let full = tokio::time::timeout(SILENCE / 8, async { while line.write_all(&rubbish).await.is_ok() {} });
        assert!(full.await.is_err());
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(is_gated(&mut line), "answers wait");
        let end = loop {
            if let Err(error) = line.write_all(&rubbish).await {
                break error;
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::TimedOut);
    }

    /// Reads once; how long nothing came.
    async fn silence(line: &mut Line) -> Option<Duration> {
        let begun = Instant::now();
        let end = tokio::time::timeout(SILENCE * 3, line.read(&mut [0; 100])).await.ok()?;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
        Some(begun.elapsed())
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_late_also_after_others() {
        let (mut line, mut peer) = pair().await;
        for _ in 0..2 {
            peer.write_all(b"GET").await.unwrap();
            assert!(line.read(&mut [0; 100]).await.unwrap() > 0);
            assert!(silence(&mut line).await.unwrap() < SILENCE);
            drop(line.served().begin());
        }
        // Quick ones leave no timer of theirs behind, only that of silence.
        assert!(silence(&mut line).await.unwrap() >= SILENCE);
    }

    #[tokio::test]
    async fn the_first_head_is_awaited_from_the_beginning() {
        let (mut line, _peer) = pair().await;
        assert!(silence(&mut line).await.unwrap() < SILENCE);
    }

    #[tokio::test]
    async fn what_has_come_is_read_before_anybody_is_late() {
        let (mut line, mut peer) = pair().await;
        peer.write_all(b"GET").await.unwrap();
        // As after a long sleep of the whole process.
        sleep(SILENCE).await;
        assert!(line.read(&mut [0; 100]).await.unwrap() > 0);
    }

    #[tokio::test]
    async fn nobody_is_late_while_he_is_served() {
        let (mut line, mut peer) = pair().await;
        peer.write_all(b"GET").await.unwrap();
        assert!(line.read(&mut [0; 100]).await.unwrap() > 0);
        let served = line.served().begin();
        assert!(silence(&mut line).await.is_none());
        peer.write_all(b"GET").await.unwrap();
        assert!(silence(&mut line).await.is_none(), "nothing is read ahead of him");
        drop(served);
        assert!(line.read(&mut [0; 100]).await.unwrap() > 0);
        assert!(silence(&mut line).await.unwrap() < SILENCE);
    }
}
