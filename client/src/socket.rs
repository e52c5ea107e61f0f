//! One WebSocket connection, as it is: frames up, frames down, nothing done by itself.
//!
//! Tests and load tools use it directly: they decide when to acknowledge, when to read, and what to
//! send. Whoever wants a connection that heals itself takes [`crate::Client::connect`].

use crate::error::{Error, Result};
use crate::rest::{install_crypto_provider, is_no_answer};
use futures::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sotto_protocol::event::Event;
use sotto_protocol::frame::{Ack, Frame, Hello, RawFrame, Welcome};
use sotto_protocol::{ErrorCode, Problem, limits};
use std::fmt;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closing handshake may take.
const CLOSING: Duration = Duration::from_secs(1);
/// Small, because load tools hold thousands of connections.
const BUFFER: usize = 8 * 1024;

/// How to sign in on a socket.
#[derive(Clone, Default)]
pub enum SignIn {
    /// Not at all: the caller sends `hello` or something else.
    #[default]
    None,
    /// With `hello` as the first frame.
    Hello(String),
    /// With an `Authorization` header at the upgrade.
    Header(String),
}

/// How to open a socket.
#[derive(Clone)]
pub struct SocketOptions {
    /// How to sign in.
    pub sign_in: SignIn,
    /// The device's count of attempts to connect, for `hello`.
    pub attempt: Option<i64>,
    /// Name and version of the program, for the server's log.
    pub client: Option<String>,
    /// The subprotocol to offer; `None` offers none, which the server must refuse.
    pub subprotocol: Option<String>,
    /// An `Origin`, as browsers send it.
    pub origin: Option<String>,
    /// How long opening and `welcome` may take, each.
    pub timeout: Duration,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            sign_in: SignIn::None,
            attempt: None,
            client: Some(concat!("sotto-client/", env!("CARGO_PKG_VERSION")).to_owned()),
            subprotocol: Some(limits::SUBPROTOCOL.to_owned()),
            origin: None,
            timeout: TIMEOUT,
        }
    }
}

impl SocketOptions {
    /// Signs in with `hello`.
    #[must_use]
    pub fn hello(token: impl Into<String>) -> Self {
        Self { sign_in: SignIn::Hello(token.into()), ..Self::default() }
    }

    /// Signs in with an `Authorization` header.
    #[must_use]
    pub fn header(token: impl Into<String>) -> Self {
        Self { sign_in: SignIn::Header(token.into()), ..Self::default() }
    }

    /// Says which attempt of the device this is.
    #[must_use]
    pub fn attempt(mut self, attempt: i64) -> Self {
        self.attempt = Some(attempt);
        self
    }
}

impl fmt::Debug for SocketOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SocketOptions").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// A frame of the server whose `d` is still text.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerFrame {
    /// The type.
    pub t: String,
    /// The server's own request id, if it ever has one.
    pub id: Option<u64>,
    /// The request that this answers.
    pub re: Option<u64>,
    /// The number of a durable event.
    pub n: Option<u64>,
    /// The content, as JSON text.
    pub d: String,
}

impl ServerFrame {
    fn read(text: &str) -> Result<Self> {
        let raw: RawFrame<'_> = serde_json::from_str(text).map_err(Error::protocol)?;
        let d = raw.data().to_owned();
        Ok(Self { t: raw.t.into_owned(), id: raw.id, re: raw.re, n: raw.n, d })
    }

    /// The content as a type.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it is something else.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.d).map_err(|error| Error::Protocol(format!("{}: {error}", self.t)))
    }

    /// The durable event that the frame is; `None` for others and for unknown ones.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the type is known and the content is not that type's.
    pub fn event(&self) -> Result<Option<Event>> {
        Ok(Some(match self.t.as_str() {
            "new_message" => Event::NewMessage(self.data()?),
            "message_delivered" => Event::MessageDelivered(self.data()?),
            "message_read_update" => Event::MessageReadUpdate(self.data()?),
            "conversation_changed" => Event::ConversationChanged(self.data()?),
            "devices_changed" => Event::DevicesChanged(self.data()?),
            "device_updated" => Event::DeviceUpdated(self.data()?),
            "device_expiring" => Event::DeviceExpiring(self.data()?),
            "account_deletion" => Event::AccountDeletion(self.data()?),
            "phone_changed" => Event::PhoneChanged(self.data()?),
            "keys_low" => Event::KeysLow(self.data()?),
            "history_pruned" => Event::HistoryPruned(self.data()?),
            _ => return Ok(None),
        }))
    }

    /// The answer to a request: the content of `ok`, or the problem of `err`.
    ///
    /// # Errors
    /// [`Error::Problem`] for `err`, [`Error::Protocol`] for a frame that is neither.
    pub fn answer<T: DeserializeOwned>(&self) -> Result<T> {
        match self.t.as_str() {
            "ok" | "welcome" => self.data(),
            "err" => Err(self.data::<Problem>()?.into()),
            other => Err(Error::Protocol(format!("{other} is no answer"))),
        }
    }
}

impl fmt::Debug for ServerFrame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.d.len();
        formatter
            .debug_struct("ServerFrame")
            .field("t", &self.t)
            .field("re", &self.re)
            .field("n", &self.n)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A frame of the protocol.
    Frame(ServerFrame),
    /// A WebSocket ping or pong, answered by itself at the next read or write.
    Alive,
    /// The connection is at its end.
    Closed {
        /// The close code; `None` when it broke without a close frame.
        code: Option<u16>,
        /// The close frame's text, or what broke.
        reason: String,
    },
}

/// An open WebSocket connection.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last_id: u64,
    response: Response,
    /// The close frame that came, until the end of the stream is told.
    ending: Option<(u16, String)>,
}

impl Socket {
    /// Opens a connection to the server at `base` (`http…` or `ws…`) and, unless the options say
    /// otherwise, sends `hello`; does not wait for `welcome`.
    ///
    /// # Errors
    /// [`Error::Problem`] when the upgrade is refused, [`Error::Transport`], [`Error::Timeout`].
    pub async fn open(base: &str, options: &SocketOptions) -> Result<Self> {
        install_crypto_provider();
        let base = base.trim_end_matches('/');
        let url = match base.strip_prefix("http") {
            Some(rest) => format!("ws{rest}/v1/ws"),
            None => format!("{base}/v1/ws"),
        };
        let mut request = url.into_client_request().map_err(|error| Error::Usage(error.to_string()))?;
        let mut header = |name: &'static str, value: &str| {
            let value =
                HeaderValue::try_from(value).map_err(|_| Error::Usage(format!("{name} cannot have this value")))?;
            request.headers_mut().insert(HeaderName::from_static(name), value);
            Ok::<_, Error>(())
        };
        if let Some(subprotocol) = &options.subprotocol {
            header("sec-websocket-protocol", subprotocol)?;
        }
        if let Some(origin) = &options.origin {
            header("origin", origin)?;
        }
        if let SignIn::Header(token) = &options.sign_in {
            header("authorization", &format!("Bearer {token}"))?;
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_message_size(Some(4 * limits::MAX_FRAME));
        let opening = connect_async_with_config(request, Some(config), true);
        let (stream, response) =
            tokio::time::timeout(options.timeout, opening).await.map_err(|_| Error::Timeout)?.map_err(refused)?;
        let mut socket = Self { stream, last_id: 0, response, ending: None };
        if let SignIn::Hello(token) = &options.sign_in {
            let hello =
                Hello { token: token.clone(), version: 1, client: options.client.clone(), attempt: options.attempt };
            socket.send("hello", &hello).await?;
        }
        Ok(socket)
    }

    /// Opens a connection and waits for `welcome`.
    ///
    /// # Errors
    /// As [`Socket::open`], and [`Error::Closed`] when the server closes instead.
    pub async fn connect(base: &str, options: &SocketOptions) -> Result<(Self, Welcome)> {
        let mut socket = Self::open(base, options).await?;
        let welcome = tokio::time::timeout(options.timeout, socket.welcome()).await.map_err(|_| Error::Timeout)??;
        Ok((socket, welcome))
    }

    async fn welcome(&mut self) -> Result<Welcome> {
        loop {
            match self.next().await? {
                Incoming::Frame(frame) => return frame.answer(),
                Incoming::Alive => {}
                Incoming::Closed { code, reason } => return Err(Error::Closed { code, reason }),
            }
        }
    }

    /// The server's answer to the upgrade.
    #[must_use]
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// Sends a frame without an id.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection is broken.
    pub async fn send<D: Serialize + Sync>(&mut self, t: &str, d: &D) -> Result<()> {
        let text = Frame::new(t, d).to_text();
        self.send_text(text).await
    }

    /// Sends a frame with the next id, and tells the id.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection is broken.
    pub async fn request<D: Serialize + Sync>(&mut self, t: &str, d: &D) -> Result<u64> {
        let id = self.next_id();
        let text = Frame::new(t, d).numbered(id).to_text();
        self.send_text(text).await?;
        Ok(id)
    }

    /// The next id that no request of this connection has had.
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Acknowledges every durable event up to `n`.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection is broken.
    pub async fn ack(&mut self, n: u64) -> Result<()> {
        self.send("ack", &Ack { n }).await
    }

    /// Sends any text at all.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection is broken.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<()> {
        self.send_raw(Message::text(text.into())).await
    }

    /// Sends a binary frame, which the server must refuse.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection is broken.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.send_raw(Message::binary(bytes)).await
    }

    /// Sends a WebSocket ping.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection is broken.
    pub async fn ping(&mut self) -> Result<()> {
        self.send_raw(Message::Ping(Vec::new().into())).await
    }

    async fn send_raw(&mut self, message: Message) -> Result<()> {
        self.stream.send(message).await.map_err(broken)
    }

    /// What comes next. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a frame that is not the protocol's. The end of the connection is not
    /// an error but [`Incoming::Closed`].
    pub async fn next(&mut self) -> Result<Incoming> {
        if self.ending.is_none() {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return ServerFrame::read(text.as_str()).map(Incoming::Frame),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(Incoming::Alive),
                Some(Ok(Message::Close(Some(frame)))) => {
                    self.ending = Some((frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(Message::Close(None))) | None => {
                    return Ok(Incoming::Closed { code: None, reason: String::new() });
                }
                Some(Ok(_)) => return Err(Error::Protocol("a binary frame".to_owned())),
                Some(Err(error)) => return Ok(Incoming::Closed { code: None, reason: error.to_string() }),
            }
        }
        // The answer to the close frame goes out with the next read.
        let rest = async { while let Some(Ok(_)) = self.stream.next().await {} };
        drop(tokio::time::timeout(CLOSING, rest).await);
        let (code, reason) = self.ending.clone().unwrap_or_default();
        Ok(Incoming::Closed { code: Some(code), reason })
    }

    /// The next frame, passing over pings.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end, [`Error::Protocol`] for what is no frame.
    pub async fn next_frame(&mut self) -> Result<ServerFrame> {
        loop {
            match self.next().await? {
                Incoming::Frame(frame) => return Ok(frame),
                Incoming::Alive => {}
                Incoming::Closed { code, reason } => return Err(Error::Closed { code, reason }),
            }
        }
    }

    /// The next frame, at most `wait` long.
    ///
    /// # Errors
    /// [`Error::Timeout`], and as [`Socket::next_frame`].
    pub async fn next_frame_within(&mut self, wait: Duration) -> Result<ServerFrame> {
        tokio::time::timeout(wait, self.next_frame()).await.map_err(|_| Error::Timeout)?
    }

    /// Reads until the end and tells the close code.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the end does not come within `wait`.
    pub async fn closed_within(&mut self, wait: Duration) -> Result<Option<u16>> {
        let end = async {
            loop {
                if let Ok(Incoming::Closed { code, .. }) = self.next().await {
                    return code;
                }
            }
        };
        tokio::time::timeout(wait, end).await.map_err(|_| Error::Timeout)
    }

    /// Closes in order and waits shortly for the server's answer.
    pub async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        let closing = async {
            if self.stream.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.stream.next().await {}
            }
        };
        // A peer that does not answer is left alone.
        drop(tokio::time::timeout(CLOSING, closing).await);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Socket(..)")
    }
}

fn broken(error: tungstenite::Error) -> Error {
    Error::Transport(error.to_string())
}

fn refused(error: tungstenite::Error) -> Error {
    let tungstenite::Error::Http(response) = error else { return broken(error) };
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok())
        .map(|seconds| seconds.saturating_mul(1000));
    let body = response.body().as_deref().unwrap_or_default();
    let mut problem = match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem,
        Err(_) if is_no_answer(status) => Problem::new(ErrorCode::Unavailable, format!("HTTP status {status}")),
        Err(_) => return Error::Protocol(format!("the upgrade was answered with {status}")),
    };
    problem.retry_after_ms = problem.retry_after_ms.or(retry_after);
    problem.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_and_unknown_ones_kept() {
        let frame = ServerFrame::read(r#"{"t":"ok","re":3,"d":{"n":7}}"#).unwrap();
        assert_eq!((frame.re, frame.n), (Some(3), None));
        assert_eq!(frame.answer::<Ack>().unwrap().n, 7);
        let unknown = ServerFrame::read(r#"{"t":"later","n":9}"#).unwrap();
        assert_eq!(unknown.n, Some(9));
        assert!(unknown.event().unwrap().is_none());
        assert!(ServerFrame::read("[]").is_err());
        assert!(!format!("{:?}", SocketOptions::hello("secret")).contains("secret"));
    }
}
