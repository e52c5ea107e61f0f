//! A WebSocket client that does what no library lets it: broken frames, no pongs, no reading, a tiny window.

use super::wire::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Opcodes of RFC 6455.
pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// An upgraded connection, and nothing that answers by itself.
pub struct RawSocket {
    stream: TcpStream,
}

impl RawSocket {
    /// Upgrades; the kernel keeps `receive_buffer` bytes for it, or as much as it likes.
    pub async fn open(url: &str, receive_buffer: Option<u32>) -> Self {
        let address = url.strip_prefix("http://").expect("http://…").parse().expect("an address");
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).expect("a small window");
        }
        let mut stream = socket.connect(address).await.expect("the node listens");
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: sotto.v1.json\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer to the upgrade"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self { stream }
    }

    /// Upgrades and says hello; does not wait for anything.
    pub async fn hello(url: &str, token: &str, receive_buffer: Option<u32>) -> Self {
        let mut socket = Self::open(url, receive_buffer).await;
        socket.send(TEXT, format!(r#"{{"t":"hello","d":{{"token":"{token}","version":1}}}}"#).as_bytes()).await;
        socket
    }

    /// Sends one frame, masked with zeros.
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | u8::try_from(short).expect("short")),
            medium @ 126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(medium).expect("medium").to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend(u64::try_from(long).expect("long").to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame).await.expect("written");
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let length = match self.stream.read_u8().await.ok()? {
            126 => usize::from(self.stream.read_u16().await.ok()?),
            127 => usize::try_from(self.stream.read_u64().await.ok()?).ok()?,
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((first & 0x0f, payload))
    }

    /// The next text frame of a type, as JSON.
    pub async fn next_of(&mut self, t: &str) -> serde_json::Value {
        let wanted = async {
            loop {
                let (opcode, payload) = self.frame().await.unwrap_or_else(|| panic!("the end came before {t}"));
                if opcode == TEXT {
                    let value: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
                    if value["t"] == t {
                        return value;
                    }
                }
            }
        };
        timeout(PATIENCE, wanted).await.unwrap_or_else(|_| panic!("{t} does not come"))
    }

    /// Reads to the close frame and tells its code; `None`: the connection ended without one.
    pub async fn close_code(&mut self) -> Option<u16> {
        self.read_out().await.1
    }

    /// The same, and how many text frames came before it.
    pub async fn read_out(&mut self) -> (usize, Option<u16>) {
        let mut texts = 0;
        let end = async {
            while let Some((opcode, payload)) = self.frame().await {
                texts += usize::from(opcode == TEXT);
                if opcode == CLOSE {
                    return payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                }
            }
            None
        };
        let code = timeout(PATIENCE, end).await.expect("the end does not come");
        (texts, code)
    }
}
