//! A connection that is cut when a request's head does not come to its end.
//!
//! actix-http times the silence between requests. As soon as one byte of a later head has come it times nothing any more,
//! and would wait for ever; the first head of a connection it would answer with a bare 408 even if the whole of it had come
//! while this process could not look (stopped, or starved). So heads are timed here: what can be read is read before
//! anybody is late, and who is late is cut without an answer, which every client takes for "repeat it".

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// So much later than actix-http, which ends what is silent in order.
const BEHIND: Duration = Duration::from_secs(1);

/// Which requests of a connection are with the application, which has time limits of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Served(Rc<Cell<Requests>>);

#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    begun: u64,
    ended: u64,
}

impl Served {
    /// One more, until what comes back is dropped.
    pub(super) fn begin(&self) -> impl Drop + use<> {
        struct One(Served);
        impl Drop for One {
            fn drop(&mut self) {
                self.0.change(|requests| requests.ended += 1);
            }
        }
        self.change(|requests| requests.begun += 1);
        One(self.clone())
    }

    fn change(&self, work: impl FnOnce(&mut Requests)) {
        let mut requests = self.0.get();
        work(&mut requests);
        self.0.set(requests);
    }

    fn begun(&self) -> u64 {
        self.0.get().begun
    }

    fn none(&self) -> bool {
        self.0.get().begun == self.0.get().ended
    }
}

/// The stream of a connection for as long as HTTP is spoken on it.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    served: Served,
    head_timeout: Duration,
    keep_alive: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer is that of a head which is on its way, behind so many others; else that of the silence.
    head: Option<u64>,
    /// Something came with a request or while it was served: its body, or the beginning of the next head.
    came: bool,
    /// The peer does not take what is written: it waits for nothing of its own.
    is_full: bool,
}

impl Line {
    pub(super) fn new(stream: TcpStream, head_timeout: Duration, keep_alive: Duration) -> Self {
        Self {
            stream,
            served: Served::default(),
            head_timeout,
            keep_alive: keep_alive.saturating_add(BEHIND),
            timer: Some(Box::pin(sleep(head_timeout))),
            head: Some(0),
            came: false,
            is_full: false,
        }
    }

    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn heard(&mut self) {
        let head = Some(self.served.begun());
        if !self.served.none() {
            self.came = true;
        } else if self.timer.is_none() || self.head != head {
            (self.timer, self.head) = (Some(Box::pin(sleep(self.head_timeout))), head);
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
            self.timer = Some(Box::pin(sleep(self.keep_alive)));
        }
        let late = self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready());
        late && !self.is_full
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, into) {
            Poll::Ready(Ok(())) if into.filled().len() > before => {
                self.heard();
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.is_late(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            other => other,
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.is_full = written.is_pending();
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        let mut line = Line::new(listener.accept().await.unwrap().0, HEAD, SILENCE);
        line.keep_alive = SILENCE;
        (line, peer)
    }

    /// Reads once; how long nothing came.
    async fn silence(line: &mut Line) -> Option<Duration> {
        let begun = tokio::time::Instant::now();
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
        assert!(line.read(&mut [0; 100]).await.unwrap() > 0);
        assert!(silence(&mut line).await.is_none());
        drop(served);
        assert!(silence(&mut line).await.unwrap() >= SILENCE);
    }
}
