//! Below HTTP's libraries: half requests, slow ones, two at once, heads without end, and upgrades that are none.

use super::room::{BOUND, Room, check, unchanged};
use crate::support::on_both;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The contract's time for a request's head and body, and some for a busy machine.
const CUT_WITHIN: Duration = Duration::from_secs(15);

fn address(room: &Room) -> String {
    room.node.url.strip_prefix("http://").unwrap().to_owned()
}

async fn connect(room: &Room) -> TcpStream {
    TcpStream::connect(address(room)).await.unwrap()
}

/// Sends bytes and reads until the server closes, or answers and waits for more.
async fn ask(room: &Room, bytes: &[u8]) -> String {
    let mut stream = connect(room).await;
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    read(&mut stream, Duration::from_millis(1500)).await
}

/// What comes until the end, or until nothing comes for a while.
async fn read(stream: &mut TcpStream, patience: Duration) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 8192];
    while let Ok(Ok(bytes @ 1..)) = timeout(patience, stream.read(&mut chunk)).await {
        text.extend_from_slice(&chunk[..bytes]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads until the server closes and tells how long that took.
async fn cut(stream: &mut TcpStream, asked: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut text = Vec::new();
    let end = timeout(CUT_WITHIN, stream.read_to_end(&mut text)).await;
    assert!(end.is_ok(), "{asked}: the server waits for ever");
    (String::from_utf8_lossy(&text).into_owned(), begun.elapsed())
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The problem in an answer.
fn problem(answer: &str, asked: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{asked}: {answer:?}"));
    assert!(head.to_ascii_lowercase().contains("content-type: application/problem+json"), "{asked}: {answer}");
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{asked}: {answer}"));
    check(&problem, asked);
    assert_eq!(problem["status"], u64::from(status(answer)), "{asked}: {answer}");
    problem
}

const UPGRADE: [(&str, &str); 6] = [
    ("Host", "test"),
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "sotto.v1.json"),
];

/// A handshake with a header replaced, or left out where there is no value.
fn handshake(line: &str, name: &str, value: Option<&str>, more: &str) -> String {
    let mut request = format!("{line}\r\n{more}");
    for (known, usual) in UPGRADE {
        let value = if known == name { value } else { Some(usual) };
        request.extend(value.map(|value| format!("{known}: {value}\r\n")));
    }
    request + "\r\n"
}

const GET: &str = "GET /v1/ws HTTP/1.1";

on_both! {
    async fn handshakes_that_are_none_are_problems(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let cases = [
            (handshake(GET, "Sec-WebSocket-Version", Some("12"), ""), 426, "unsupported_version"),
            (handshake(GET, "Sec-WebSocket-Version", None, ""), 426, "unsupported_version"),
            (handshake(GET, "Sec-WebSocket-Version", Some("13, 8"), ""), 426, "unsupported_version"),
            (handshake(GET, "Sec-WebSocket-Key", None, ""), 400, "invalid_frame"),
            (handshake(GET, "Sec-WebSocket-Key", Some(""), ""), 400, "invalid_frame"),
            (handshake(GET, "Sec-WebSocket-Key", Some("c2hvcnQ="), ""), 400, "invalid_frame"),
            (handshake(GET, "Sec-WebSocket-Key", Some("%%%"), ""), 400, "invalid_frame"),
            (handshake(GET, "", None, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400, "invalid_frame"),
            (handshake(GET, "Sec-WebSocket-Protocol", None, ""), 400, "invalid_frame"),
            (handshake(GET, "Sec-WebSocket-Protocol", Some("sotto.v2.json"), ""), 400, "invalid_frame"),
            (handshake(GET, "Sec-WebSocket-Protocol", Some("SOTTO.V1.JSON"), ""), 400, "invalid_frame"),
            (handshake(GET, "", None, "Origin: https://evil.example\r\n"), 403, "forbidden"),
            (handshake(GET, "", None, "Origin: null\r\n"), 403, "forbidden"),
            (handshake("POST /v1/ws HTTP/1.1", "", None, ""), 405, "method_not_allowed"),
            (handshake("DELETE /v1/ws HTTP/1.1", "", None, ""), 405, "method_not_allowed"),
            (handshake("GET /v1/auth/me HTTP/1.1", "", None, ""), 404, "not_found"),
            (handshake("GET /v1/ws/ HTTP/1.1", "", None, ""), 404, "not_found"),
            (handshake(GET, "Upgrade", None, ""), 426, "invalid_frame"),
            (handshake(GET, "Upgrade", Some("h2c"), ""), 426, "invalid_frame"),
        ];
        for (request, status, code) in cases {
            let answer = ask(&room, request.as_bytes()).await;
            let problem = problem(&answer, &request);
            assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status), Some(code)), "{request}{answer}");
        }
        let told = ask(&room, handshake(GET, "Sec-WebSocket-Version", Some("12"), "").as_bytes()).await.to_ascii_lowercase();
        assert!(told.contains("sec-websocket-version: 13"), "{told}");
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn two_authorizations_are_none(database) {
        let room = Room::open(database).await;
        let (alice, bob) = (&room.alice.tokens.access_token, &room.bob.tokens.access_token);
        let two = format!("Authorization: Bearer {alice}\r\nAuthorization: Bearer {bob}\r\n");
        let answer = ask(&room, format!("GET /v1/auth/me HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{two}\r\n").as_bytes()).await;
        assert_eq!(problem(&answer, "two tokens")["code"], "unauthenticated");
        // The socket opens and waits for hello: it belongs to neither.
        let mut stream = connect(&room).await;
        stream.write_all(handshake(GET, "", None, &two).as_bytes()).await.unwrap();
        let opened = read(&mut stream, Duration::from_secs(1)).await;
        assert!(opened.starts_with("HTTP/1.1 101") && !opened.contains("welcome"), "{opened}");
        let one = format!("Authorization: Bearer {alice}\r\n");
        let opened = ask(&room, handshake(GET, "", None, &one).as_bytes()).await;
        assert!(opened.starts_with("HTTP/1.1 101") && opened.contains("welcome"), "{opened}");
        room.close().await;
    }

    async fn garbage_is_refused_and_the_connection_closed(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let token = &room.alice.tokens.access_token;
        let put = |headers: &str, body: &str| {
            format!("PUT /v1/keys HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n{headers}\r\n{body}")
        };
        let long = "a".repeat(100_000);
        let malformed = [
            "\r\n\r\n\r\nnonsense\r\n\r\n".to_owned(),
            "GET\r\n\r\n".to_owned(),
            "GET / HTTP/9.9\r\n\r\n".to_owned(),
            "GET /\u{0} HTTP/1.1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost test\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{0}\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".to_owned(),
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".repeat(30),
            put("Content-Length: x\r\n", "{}"),
            put("Content-Length: -1\r\n", "{}"),
            put("Content-Length: +2\r\n", "{}"),
            put("Content-Length: 99999999999999999999\r\n", "{}"),
            put("Content-Length: 2\r\nContent-Length: 3\r\n", "{}x"),
            put("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            put("Transfer-Encoding: nonsense\r\n", "{}"),
            put("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"),
            put("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ];
        for request in malformed {
            let answer = ask(&room, request.as_bytes()).await;
            assert!((400..500).contains(&status(&answer)), "{request:?}: {answer:?}");
        }
        let heads = [
            format!("GET /v1/auth/me HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "b".repeat(200 * 1024)),
            format!("GET /v1/auth/me HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(40_000)),
            format!("GET /{long}{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            handshake(GET, "", None, &format!("Cookie: {long}{long}\r\n")),
        ];
        for request in heads {
            let answer = ask(&room, request.as_bytes()).await;
            let answer: String = answer.chars().take(200).collect();
            // The kernel may lose the answer when the rest of the head is not read any more.
            assert!(answer.is_empty() || (400..500).contains(&status(&answer)), "{answer:?}");
        }
        // Chunks beyond the limit are not collected.
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(65_536)).repeat(17);
        let answer = ask(&room, put("Transfer-Encoding: chunked\r\n", &chunk).as_bytes()).await;
        assert_eq!(problem(&answer, "many chunks")["code"], "payload_too_large");
        let answer = ask(&room, put("Content-Length: 1000000000\r\n", "{").as_bytes()).await;
        assert_eq!(problem(&answer, "a large promise")["code"], "payload_too_large");
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn half_requests_and_slow_ones_are_cut(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let token = &room.alice.tokens.access_token;
        let head = format!("POST /v1/conversations HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        let half_head = async {
            let mut stream = connect(&room).await;
            stream.write_all(b"GET /v1/auth/me HTTP/1.1\r\nHost: te").await.unwrap();
            let (answer, took) = cut(&mut stream, "half a head").await;
            assert!(took > Duration::from_secs(5), "{took:?}");
            assert!(answer.is_empty(), "{answer}");
        };
        let nothing = async {
            let mut stream = connect(&room).await;
            cut(&mut stream, "silence").await;
        };
        let slow_head = async {
            let stream = connect(&room).await;
            let (mut reader, mut writer) = stream.into_split();
            let drip = async {
                for byte in b"GET /v1/auth/me HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
                    if writer.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(300)).await;
                }
            };
            let mut text = Vec::new();
            tokio::select! {
                () = drip => {}
                end = timeout(CUT_WITHIN, reader.read_to_end(&mut text)) => assert!(end.is_ok(), "a slow head is waited for"),
            }
        };
        let half_body = async {
            let mut stream = connect(&room).await;
            let members = format!("{{\"type\":\"direct\",\"members\":[\"{}\"]", room.carol.user_id);
            let request = format!("{head}Content-Length: {}\r\n\r\n{members}", members.len() + 1);
            stream.write_all(request.as_bytes()).await.unwrap();
            let (answer, _) = cut(&mut stream, "half a body").await;
            assert_eq!(problem(&answer, "half a body")["status"], 408);
        };
        let half_chunks = async {
            let mut stream = connect(&room).await;
            stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{\"\r\n").as_bytes()).await.unwrap();
            let (answer, _) = cut(&mut stream, "half of its chunks").await;
            assert_eq!(problem(&answer, "half of its chunks")["status"], 408);
        };
        // Whoever answers before the body has come does not wait for it either.
        let unwanted = async {
            for line in ["POST /v1/conversations", "POST /nowhere", "PATCH /v1/auth/me", "GET /livez"] {
                let mut stream = connect(&room).await;
                let request = format!("{line} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{\"\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let (answer, took) = cut(&mut stream, line).await;
                assert!(status(&answer) >= 200 && took < Duration::from_secs(8), "{line}: {took:?} {answer}");
            }
        };
        let slow_body = async {
            let mut stream = connect(&room).await;
            stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let drip = async {
                while writer.write_all(b"1\r\n \r\n").await.is_ok() {
                    sleep(Duration::from_millis(300)).await;
                }
            };
            let mut text = Vec::new();
            tokio::select! {
                () = drip => {}
                end = timeout(CUT_WITHIN, reader.read_to_end(&mut text)) => assert!(end.is_ok(), "a slow body is waited for"),
            }
        };
        let gone = async {
            for cut_at in [1, 20, 60, head.len() - 1, head.len()] {
                let mut stream = connect(&room).await;
                stream.write_all(&head.as_bytes()[..cut_at]).await.unwrap();
                drop(stream);
            }
        };
        let second_head = async {
            let mut stream = connect(&room).await;
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
            assert_eq!(status(&read(&mut stream, Duration::from_secs(1)).await), 200);
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: te").await.unwrap();
            cut(&mut stream, "half a head after a whole one").await;
        };
        tokio::join!(second_head, half_head, nothing, slow_head, half_body, half_chunks, unwanted, slow_body, gone);
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn garbage_behind_an_upgrade_ends_that_connection_only(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let upgrade = handshake(GET, "", None, "");
        let get = "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";
        let tails: [&[u8]; 6] = [
            get.as_bytes(),
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x81\x05hello",
            b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
            b"\x8b\x80\0\0\0\0",
            b"\x01\x80\0\0\0\0\x01\x80\0\0\0\0",
        ];
        for tail in tails {
            let mut stream = connect(&room).await;
            stream.write_all(&[upgrade.as_bytes(), tail].concat()).await.unwrap();
            let mut text = Vec::new();
            let end = timeout(BOUND, stream.read_to_end(&mut text)).await;
            assert!(end.is_ok(), "{tail:?}: the server waits for ever");
            let text = String::from_utf8_lossy(&text);
            assert!(text.starts_with("HTTP/1.1 101"), "{tail:?}: {text}");
        }
        // Two requests and a refused upgrade at once are answered in their order.
        let bad = handshake(GET, "Sec-WebSocket-Version", Some("12"), "");
        let answer = ask(&room, format!("{get}{get}{bad}").as_bytes()).await;
        let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|part| &part[..3]).collect();
        assert_eq!(statuses, ["200", "200", "426"], "{answer}");
        unchanged(&before, &room.view().await);
        room.close().await;
    }
}
