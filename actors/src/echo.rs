//! The actor Echo: sends every message back to its sender. For trying out connections and conformance suites, and
//! the shortest example of an actor with a socket.
//!
//! *Owns:* one socket.
//! *When full:* it stops reading until what it owes has been written; a peer that takes nothing at all is cut.
//! *On death:* the connection closes.

use std::time::Duration;

use actix::{Actor, Context};
use tokio::net::TcpStream;

use crate::socket::{Incoming, SendError, Socket, SocketLimits, Upgraded};
use crate::socket_driver::{SocketOwner, SocketPatience, drive};

/// Bytes that may wait to be written before reading stops.
const HIGH_WATER: usize = 256 * 1024;

/// Room beside the payload for the header of a frame, in bytes.
const HEAD_ROOM: usize = 16;

const PATIENCE: SocketPatience = SocketPatience { close: Duration::from_secs(5), stall: Duration::from_secs(30) };

/// Echoes text and binary messages.
#[derive(Debug)]
pub struct Echo {
    socket: Socket,
}

impl Echo {
    /// An echo over an upgraded stream; `max_message` is the longest message in bytes.
    #[must_use]
    pub fn new(upgraded: Upgraded, max_message: usize) -> Self {
        let limits = SocketLimits {
            max_message,
            max_frame: max_message,
            // Reading stops at the mark, so at most one more message comes on top.
            max_queued: HIGH_WATER.saturating_add(max_message).saturating_add(HEAD_ROOM),
        };
        Self { socket: Socket::new(upgraded, limits) }
    }

    /// Neither error needs an answer: the queue cannot be full, since reading stopped before, and what comes in
    /// while we close is not owed an echo.
    fn answer(sent: Result<(), SendError>) {
        if let Err(reason) = sent {
            tracing::debug!(%reason, "message not echoed");
        }
    }
}

impl Actor for Echo {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        drive(ctx);
    }
}

impl SocketOwner for Echo {
    type Stream = TcpStream;

    fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn wants_input(&mut self) -> bool {
        self.socket.queued_bytes() < HIGH_WATER
    }

    fn patience(&self) -> SocketPatience {
        PATIENCE
    }

    fn received(&mut self, incoming: Incoming, _ctx: &mut Self::Context) {
        match incoming {
            Incoming::Text(payload) => Self::answer(self.socket.send_text(payload)),
            Incoming::Binary(payload) => Self::answer(self.socket.send_binary(payload)),
            Incoming::Ping(_) | Incoming::Pong(_) | Incoming::Close(_) => {}
            Incoming::Violation(violation) => tracing::debug!(%violation, "echo closed"),
            Incoming::End(end) => tracing::debug!(?end, "echo ended"),
        }
    }
}
