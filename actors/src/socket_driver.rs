//! How an actor drives its socket: one future in the actor's context that reads, writes and watches the time.
//!
//! An actor that owns a [`Socket`] implements [`SocketOwner`] and calls [`drive`] in `started`. Its messages may send
//! at any time: actix polls the futures of a context after each round of the mailbox, so what the handlers queued is
//! written at the end of the same turn, together, and no wake-up of one's own is needed.
//!
//! Such an actor ends its connection with [`Socket::start_close`], not by stopping itself, which would drop what is
//! queued; and it never uses `ctx.wait` (nor `AtomicResponse`, which does): actix polls nothing else meanwhile, so the
//! socket would stand still.
//!
//! *When full:* while [`SocketOwner::wants_input`] says no, nothing is read, and TCP slows the peer down.
//! *On death:* at the socket's end the owner is told once and stopped.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFuture, AsyncContext};
use sotto_protocol::close::SLOW_CONSUMER;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::socket::{Incoming, Scratch, Socket};

/// Messages that one socket may bring before others of its thread get their turn.
const MESSAGES_PER_TURN: usize = 8;

/// How long a driver waits for its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketPatience {
    /// For the end of the connection, once closing has begun.
    pub close: Duration,
    /// For the peer to take anything of what waits for it.
    pub stall: Duration,
}

/// An actor that owns a socket.
pub trait SocketOwner: Actor<Context = actix::Context<Self>> {
    /// The stream below the socket.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// The socket.
    fn socket(&mut self) -> &mut Socket<Self::Stream>;

    /// How long it waits for its peer.
    fn patience(&self) -> SocketPatience;

    /// Something came. After [`Incoming::End`] the driver stops the actor.
    fn received(&mut self, incoming: Incoming, ctx: &mut Self::Context);

    /// Should more be read now? Asked before every message; not asked once closing has begun. What changes the
    /// answer must happen in the actor's own turn or by writing, so that the driver sees it.
    fn wants_input(&mut self) -> bool {
        true
    }

    /// The peer has taken nothing for [`SocketPatience::stall`] although something waits: it is cut with 4420 after
    /// this call.
    fn stalled(&mut self, _ctx: &mut Self::Context) {}
}

/// Starts driving the actor's socket. Called once, in `started`.
pub fn drive<A: SocketOwner>(ctx: &mut actix::Context<A>) {
    ctx.spawn(SocketDriver { close_by: None, timer: None });
}

/// The future behind [`drive`]. It holds a timer only while it waits for a slow peer.
#[derive(Debug)]
pub struct SocketDriver {
    /// When closing must be over; none while the socket is open.
    close_by: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why reading paused.
enum Pause {
    /// Nothing has come.
    Idle,
    /// The owner does not want more.
    Refused,
    /// Others of this thread have waited long enough.
    Fair,
    /// The end has been reported.
    Ended,
}

impl SocketDriver {
    fn read<A: SocketOwner>(actor: &mut A, ctx: &mut A::Context, cx: &mut Context<'_>, budget: &mut usize) -> Pause {
        loop {
            if *budget == 0 {
                return Pause::Fair;
            }
            if !actor.socket().is_closing() && !actor.wants_input() {
                return Pause::Refused;
            }
            let Poll::Ready(incoming) = Scratch::with(|scratch| actor.socket().poll_recv(cx, scratch)) else {
                return Pause::Idle;
            };
            *budget -= 1;
            let ended = matches!(incoming, Incoming::End(_));
            actor.received(incoming, ctx);
            if ended {
                return Pause::Ended;
            }
        }
    }

    /// When to lose patience, if there is anything to wait for.
    fn deadline<A: SocketOwner>(&mut self, actor: &mut A) -> Option<Instant> {
        if actor.socket().is_closing() {
            return Some(*self.close_by.get_or_insert_with(|| Instant::now() + actor.patience().close));
        }
        actor.socket().stalled_since().map(|since| since + actor.patience().stall)
    }

    /// Is it time? If not, the task is woken when it is.
    fn is_overdue(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = deadline else {
            self.timer = None;
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl<A: SocketOwner> ActorFuture<A> for SocketDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, actor: &mut A, ctx: &mut A::Context, cx: &mut Context<'_>) -> Poll<()> {
        let mut budget = MESSAGES_PER_TURN;
        loop {
            let pause = Self::read(actor, ctx, cx, &mut budget);
            if matches!(pause, Pause::Ended) {
                ctx.stop();
                return Poll::Ready(());
            }
            // Readiness does not matter: what waits shows in the deadline, and a failure in the next read.
            let _ = actor.socket().poll_flush(cx);
            let has_more = match pause {
                Pause::Fair => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // Writing may have failed, or have made the room that was missing.
                Pause::Refused => actor.wants_input() || actor.socket().is_closing(),
                Pause::Idle | Pause::Ended => actor.socket().is_over(),
            };
            if has_more {
                continue;
            }
            let deadline = self.deadline(actor);
            if !self.is_overdue(deadline, cx) {
                return Poll::Pending;
            }
            self.timer = None;
            if actor.socket().is_closing() {
                actor.socket().abandon();
            } else {
                actor.stalled(ctx);
                actor.socket().cut(SLOW_CONSUMER, "slow consumer");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::net::Ipv4Addr;

    use actix::{Addr, Context, Handler, Message};
    use bytes::{Bytes, BytesMut};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::socket::{CloseFrame, End, SocketLimits, Upgraded};

    const MEBIBYTE: usize = 1 << 20;
    const LIMITS: SocketLimits = SocketLimits { max_message: 1000, max_frame: 1000, max_queued: 64 * MEBIBYTE };
    const QUICK: SocketPatience =
        SocketPatience { close: Duration::from_millis(200), stall: Duration::from_millis(200) };

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Send(Bytes);

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Close(u16);

    #[derive(Message)]
    #[rtype(result = "()")]
    struct MayRead(bool);

    /// Tells what it saw when it stops.
    struct Owner {
        socket: Socket,
        may_read: bool,
        stalled: bool,
        seen: Vec<Incoming>,
        report: Option<oneshot::Sender<(Vec<Incoming>, bool)>>,
    }

    impl Actor for Owner {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            drive(ctx);
        }

        fn stopped(&mut self, _ctx: &mut Self::Context) {
            let report = self.report.take().unwrap();
            let _ = report.send((std::mem::take(&mut self.seen), self.stalled));
        }
    }

    impl SocketOwner for Owner {
        type Stream = TcpStream;

        fn socket(&mut self) -> &mut Socket {
            &mut self.socket
        }

        fn patience(&self) -> SocketPatience {
            QUICK
        }

        fn received(&mut self, incoming: Incoming, _ctx: &mut Self::Context) {
            self.seen.push(incoming);
        }

        fn wants_input(&mut self) -> bool {
            self.may_read
        }

        fn stalled(&mut self, _ctx: &mut Self::Context) {
            self.stalled = true;
        }
    }

    impl Handler<Send> for Owner {
        type Result = ();

        fn handle(&mut self, message: Send, _ctx: &mut Self::Context) {
            self.socket.send_text(message.0).unwrap();
        }
    }

    impl Handler<Close> for Owner {
        type Result = ();

        fn handle(&mut self, message: Close, _ctx: &mut Self::Context) {
            self.socket.start_close(message.0, "");
        }
    }

    impl Handler<MayRead> for Owner {
        type Result = ();

        fn handle(&mut self, message: MayRead, _ctx: &mut Self::Context) {
            self.may_read = message.0;
        }
    }

    struct Rig {
        client: TcpStream,
        owner: Addr<Owner>,
        report: oneshot::Receiver<(Vec<Incoming>, bool)>,
    }

    async fn rig() -> Rig {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (report, outcome) = oneshot::channel();
        let upgraded = Upgraded { stream, unread: BytesMut::new(), answer: Bytes::new() };
        let socket = Socket::new(upgraded, LIMITS);
        let owner = Owner { socket, may_read: true, stalled: false, seen: Vec::new(), report: Some(report) };
        Rig { client, owner: owner.start(), report: outcome }
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(10), work).await.expect("hangs")
    }

    /// A text frame with a mask of zeros.
    fn text(payload: &[u8]) -> Vec<u8> {
        [&[0x81, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0], payload].concat()
    }

    const CLOSE_1000: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

    #[actix_rt::test]
    async fn what_a_handler_sends_is_written_without_further_ado() {
        let mut rig = rig().await;
        rig.owner.send(Send("one".into())).await.unwrap();
        rig.owner.send(Send("two".into())).await.unwrap();
        let mut bytes = [0; 10];
        soon(rig.client.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(&bytes, b"\x81\x03one\x81\x03two");
    }

    #[actix_rt::test]
    async fn a_burst_longer_than_a_turn_arrives_and_the_close_behind_it() {
        let mut rig = rig().await;
        let burst = [text(b"x").repeat(1000), CLOSE_1000.to_vec()].concat();
        rig.client.write_all(&burst).await.unwrap();
        let mut bytes = Vec::new();
        soon(rig.client.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(bytes, [0x88, 2, 0x03, 0xe8]);
        drop(rig.client);
        let (seen, _) = soon(rig.report).await.unwrap();
        assert_eq!(seen.len(), 1002);
        assert_eq!(seen[1000], Incoming::Close(CloseFrame { code: Some(1000), reason: String::new() }));
        assert_eq!(seen[1001], Incoming::End(End::Closed));
    }

    #[actix_rt::test]
    async fn nothing_is_read_while_the_owner_does_not_want_it() {
        let mut rig = rig().await;
        rig.owner.send(MayRead(false)).await.unwrap();
        rig.client.write_all(&[text(b"later"), CLOSE_1000.to_vec()].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.owner.send(Send("not yet".into())).await.unwrap();
        let mut bytes = [0; 9];
        soon(rig.client.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(&bytes[2..], b"not yet");
        rig.owner.send(MayRead(true)).await.unwrap();
        drop(rig.client);
        let (seen, _) = soon(rig.report).await.unwrap();
        assert_eq!(seen[0], Incoming::Text("later".into()));
    }

    #[actix_rt::test]
    async fn a_peer_that_never_reads_is_cut() {
        let rig = rig().await;
        let chunk = Bytes::from(vec![b'x'; MEBIBYTE]);
        for _ in 0..30 {
            rig.owner.send(Send(chunk.clone())).await.unwrap();
        }
        let (seen, stalled) = soon(rig.report).await.unwrap();
        assert!(stalled);
        assert_eq!(seen, vec![Incoming::End(End::Abandoned)]);
    }

    #[actix_rt::test]
    async fn a_slow_peer_is_not_cut_while_it_takes_something() {
        let mut rig = rig().await;
        let chunk = Bytes::from(vec![b'x'; MEBIBYTE]);
        for _ in 0..30 {
            rig.owner.send(Send(chunk.clone())).await.unwrap();
        }
        let mut bytes = vec![0; 2 * MEBIBYTE];
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            soon(rig.client.read_exact(&mut bytes)).await.unwrap();
        }
        assert!(rig.owner.connected());
    }

    #[actix_rt::test]
    async fn a_peer_that_does_not_answer_our_close_is_abandoned() {
        let rig = rig().await;
        rig.owner.send(Close(4000)).await.unwrap();
        let (seen, _) = soon(rig.report).await.unwrap();
        assert_eq!(seen, vec![Incoming::End(End::Abandoned)]);
        drop(rig.client);
    }

    #[actix_rt::test]
    async fn our_close_ends_when_the_peer_answers() {
        let mut rig = rig().await;
        rig.owner.send(Close(4000)).await.unwrap();
        let mut bytes = [0; 4];
        soon(rig.client.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(bytes, [0x88, 2, 0x0f, 0xa0]);
        rig.client.write_all(&CLOSE_1000).await.unwrap();
        assert_eq!(soon(rig.client.read(&mut bytes)).await.unwrap(), 0, "the server closes first");
        drop(rig.client);
        let (seen, _) = soon(rig.report).await.unwrap();
        assert_eq!(seen.last(), Some(&Incoming::End(End::Closed)));
    }
}
