//! A lean WebSocket connection: one allocation per frame, several frames per write.

use std::time::Duration;

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Small, because there may be thousands.
const BUFFER: usize = 4 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that has got its `welcome`.
pub struct Connection {
    stream: WebSocketStream<TcpStream>,
    unsent: bool,
}

impl Connection {
    /// Connects, signs in at the upgrade and waits for `welcome`.
    pub async fn open(address: &str, token: &str) -> Result<Self, String> {
        let opening = async {
            let mut request = format!("ws://{address}/v1/ws").into_client_request().map_err(text)?;
            let headers = request.headers_mut();
            headers.insert("sec-websocket-protocol", "sotto.v1.json".parse().map_err(text)?);
            headers.insert("authorization", format!("Bearer {token}").parse().map_err(text)?);
            let tcp = TcpStream::connect(address).await.map_err(text)?;
            tcp.set_nodelay(true).map_err(text)?;
            let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(16 * BUFFER);
            let (stream, _) = client_async_with_config(request, tcp, Some(config)).await.map_err(text)?;
            let mut connection = Self { stream, unsent: false };
            let first = connection.next().await?;
            if first.starts_with(r#"{"t":"welcome""#) { Ok(connection) } else { Err(first.to_string()) }
        };
        tokio::time::timeout(PATIENCE, opening).await.map_err(text)?
    }

    /// The next frame. May be dropped while it waits.
    pub async fn next(&mut self) -> Result<Utf8Bytes, String> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(frame))) => return Ok(frame),
                Some(Ok(Message::Close(frame))) => return Err(format!("closed by the server: {frame:?}")),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the connection ended".to_owned()),
            }
        }
    }

    /// The next frame if it is here already.
    pub fn next_now(&mut self) -> Option<Result<Utf8Bytes, String>> {
        self.next().now_or_never()
    }

    /// Puts a frame into the next write.
    pub async fn put(&mut self, frame: String) -> Result<(), String> {
        self.unsent = true;
        self.stream.feed(Message::text(frame)).await.map_err(text)
    }

    /// Writes what was put.
    pub async fn flush(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.unsent) {
            self.stream.flush().await.map_err(text)?;
        }
        Ok(())
    }

    /// Closes in order.
    pub async fn close(mut self) {
        // It has served.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.close(None)).await;
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
