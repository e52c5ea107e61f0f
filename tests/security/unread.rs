//! Answers that nobody reads: they once kept a core busy and memory for ever, for anybody, without a token.

use crate::support::node::TestNode;
use crate::support::on_both;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A client with little room for what it is sent.
async fn connect(node: &TestNode) -> TcpStream {
    let address: SocketAddr = node.url.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

/// Sends the same request until 600 KB are sent or the server takes no more.
async fn flood(stream: &mut TcpStream, request: &str) {
    let all = request.repeat(600_000 / request.len());
    let _ = timeout(Duration::from_millis(500), stream.write_all(all.as_bytes())).await;
}

/// Waits until the server has closed, without reading what it sent.
async fn closed(stream: &TcpStream) {
    let begun = Instant::now();
    loop {
        // A reset shows as an error, an orderly end while bytes are unread in the state of the connection only.
        let is_reset = stream.take_error().unwrap().is_some();
        if is_reset || stream.try_write(b"\r\n").is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the server keeps a connection that reads nothing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the node has used of the processor.
fn busy(node: &TestNode) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

on_both! {
    async fn requests_whose_answers_nobody_reads_cost_little_and_end(database) {
        let settings = [("SOTTO_HTTP__WRITE_TIMEOUT", "4"), ("SOTTO_LIMITS__ENABLED", "false")];
        let node = TestNode::with(database, &settings).await;
        for request in [
            "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /nowhere HTTP/1.1\n\n",
            "POST /v1/auth/refresh HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        ] {
            let mut streams = Vec::new();
            for _ in 0..4 {
                let mut stream = connect(&node).await;
                flood(&mut stream, request).await;
                streams.push(stream);
            }
            let (begun, used, memory) = (Instant::now(), busy(&node), node.resident());
            for stream in &streams {
                closed(stream).await;
            }
            let (took, used) = (begun.elapsed(), busy(&node) - used);
            assert!(used * 3 < took + Duration::from_secs(1), "{request}: {used:?} of {took:?}");
            assert!(node.resident() < memory + (16 << 20), "{request}: {memory} bytes grew to {}", node.resident());
        }
        // Nobody else notices.
        let body = reqwest::get(format!("{}/livez", node.url)).await.unwrap();
        assert!(body.status().is_success());
    }
}
