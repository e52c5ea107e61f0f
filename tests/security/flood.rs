//! Connections, bodies and requests of strangers: so many that nobody else was served.

use crate::support::database::{self, Kind};
use crate::support::node::{Place, TestNode};
use crate::support::on_both;
use crate::support::people::register;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long anything here may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(90);
const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
const PUBLIC: (&str, &str) = ("SOTTO_DEV__INSECURE", "true");
const PROXY: (&str, &str) = ("SOTTO_HTTP__TRUSTED_PROXIES", "127.0.0.1");

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Connects from 127.0.0.`last`, which is a network of its own.
async fn connect(to: SocketAddr, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends a request and reads one answer; none: the server closed without.
async fn ask(stream: &mut TcpStream, request: &str) -> Option<(u16, String)> {
    stream.write_all(request.as_bytes()).await.ok()?;
    answer(stream).await
}

async fn answer(stream: &mut TcpStream) -> Option<(u16, String)> {
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let came = timeout(PATIENCE, stream.read(&mut chunk)).await.expect("an answer or an end").ok()?;
        text.extend_from_slice(&chunk[..came]);
        let so_far = String::from_utf8_lossy(&text).to_ascii_lowercase();
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let is_whole = length.is_none_or(|length| body.len() >= length.parse::<usize>().unwrap());
            if is_whole || came == 0 {
                return Some((head.split(' ').nth(1)?.parse().ok()?, so_far));
            }
        }
        if came == 0 {
            return None;
        }
    }
}

/// Waits until the server closes.
async fn closed(stream: &mut TcpStream) {
    let mut chunk = [0; 4096];
    while let Ok(1..) = timeout(PATIENCE, stream.read(&mut chunk)).await.expect("the server closes") {}
}

/// Connects until one is let in again.
async fn let_in(to: SocketAddr, last: u8) {
    let again = async {
        while !matches!(ask(&mut connect(to, last).await, LIVEZ).await, Some((200, _))) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("there is room again");
}

fn upgrade(headers: &str) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sotto.v1.json\r\n{headers}\r\n"
    )
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

on_both! {
    async fn one_network_leaves_room_for_others(database) {
        let settings = [("SOTTO_HTTP__MAX_CONNECTIONS_PER_NETWORK", "8"), ("SOTTO_SOCKET__HELLO_TIMEOUT", "60")];
        let node = TestNode::with(database, &settings).await;
        let to = address(&node.url);
        // Sockets and idle connections count together.
        let mut held = Vec::new();
        for number in 0..8 {
            let mut stream = connect(to, 2).await;
            let request = if number % 2 == 0 { upgrade("") } else { LIVEZ.to_owned() };
            let (status, _) = ask(&mut stream, &request).await.unwrap();
            assert_eq!(status, if number % 2 == 0 { 101 } else { 200 });
            held.push(stream);
        }
        // Nothing is sent, so that the refusal is not lost in a reset.
        let (status, text) = answer(&mut connect(to, 2).await).await.unwrap();
        assert!(status == 429 && text.contains("\"rate_limited\"") && text.contains("retry-after: 5"), "{text}");
        assert_eq!(ask(&mut connect(to, 3).await, LIVEZ).await.unwrap().0, 200);
        drop(held.pop());
        let_in(to, 2).await;
        drop(held);
        for _ in 0..3 {
            let_in(to, 2).await;
        }
    }

    async fn behind_a_proxy_sockets_count_for_their_client_and_a_64_is_one(database) {
        let settings = [PUBLIC, PROXY, ("SOTTO_HTTP__MAX_CONNECTIONS_PER_NETWORK", "3"), ("SOTTO_SOCKET__HELLO_TIMEOUT", "60")];
        let node = TestNode::with(database, &settings).await;
        let to = address(&node.url);
        let mut held = Vec::new();
        for _ in 0..10 {
            let mut stream = connect(to, 1).await;
            assert_eq!(ask(&mut stream, LIVEZ).await.unwrap().0, 200, "the proxy itself is not counted");
            held.push(stream);
        }
        for host in 1..=4 {
            let mut stream = connect(to, 1).await;
            let (status, text) = ask(&mut stream, &upgrade(&format!("X-Forwarded-For: [2001:db8::{host}]:443\r\n"))).await.unwrap();
            assert_eq!(status, if host <= 3 { 101 } else { 429 }, "{text}");
            held.push(stream);
        }
        let mut stream = connect(to, 1).await;
        let other = upgrade("X-Forwarded-For: 2001:db8:0:1::1\r\n");
        assert_eq!(ask(&mut stream, &other).await.unwrap().0, 101);
    }

    async fn what_is_open_is_limited_by_network(database) {
        let settings = [
            PUBLIC,
            PROXY,
            ("SOTTO_LIMITS__SIGN_INS_PER_NETWORK_PER_MINUTE", "3"),
            ("SOTTO_LIMITS__REFRESHES_PER_NETWORK_PER_MINUTE", "3"),
            ("SOTTO_LIMITS__SOCKETS_PER_NETWORK_PER_MINUTE", "3"),
            ("SOTTO_LIMITS__PAGES_PER_NETWORK_PER_MINUTE", "3"),
        ];
        let node = TestNode::with(database, &settings).await;
        let to = address(&node.url);
        let unknown = format!("/v1/auth/links/{}/tokens", "00000000-0000-7000-8000-000000000000");
        let kinds: [&[String]; 4] = [
            &[post("/v1/auth/login", "{}"), post("/v1/auth/register", "{}"), post("/v1/auth/links", "{}"), post("/v1/auth/recover", "{}")],
            &[post("/v1/auth/refresh", "{\"refresh_token\":\"x\"}"), post(&unknown, "{}")],
            &[upgrade("")],
            &["GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()],
        ];
        for requests in kinds {
            for (number, request) in requests.iter().cycle().take(4.max(requests.len())).enumerate() {
                let (status, text) = ask(&mut connect(to, 2).await, request).await.unwrap();
                assert_eq!(status == 429, number >= 3, "{number}: {request}{text}");
                if status == 429 {
                    assert!(text.contains("retry-after: ") && text.contains("ratelimit: \"requests\";r=0"), "{text}");
                    assert!(text.contains("\"rate_limited\""), "{text}");
                }
            }
            // Others are not.
            let (status, _) = ask(&mut connect(to, 3).await, &requests[0]).await.unwrap();
            assert_ne!(status, 429);
        }
        // Those who look after the node still see it.
        let mut probe = connect(to, 2).await;
        for _ in 0..100 {
            assert_eq!(ask(&mut probe, LIVEZ).await.unwrap().0, 200);
        }
    }

    async fn bodies_of_strangers_share_a_room(database) {
        let node = TestNode::with(database, &[("SOTTO_HTTP__OPEN_BODIES", "262144"), ("SOTTO_HTTP__REQUEST_TIMEOUT", "60")]).await;
        let to = address(&node.url);
        let half = format!("{}{}", post("/v1/auth/login", &" ".repeat(200_000)).split_once("\r\n\r\n").unwrap().0, "\r\n\r\n");
        let part = " ".repeat(100_000);
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = connect(to, 2).await;
            stream.write_all(half.as_bytes()).await.unwrap();
            stream.write_all(part.as_bytes()).await.unwrap();
            held.push(stream);
        }
        // A third that fills the room: it or another of them is sent away, the rest is waited for.
        let mut third = connect(to, 3).await;
        third.write_all(half.as_bytes()).await.unwrap();
        third.write_all(part.as_bytes()).await.unwrap();
        held.push(third);
        let answers = held.iter_mut().map(|stream| Box::pin(answer(stream)));
        let (first, _, _) = futures::future::select_all(answers).await;
        let (status, text) = first.expect("an answer");
        assert!(status == 503 && text.contains("\"unavailable\"") && text.contains("retry-after: 1"), "{text}");
        drop(held);
        let whole = post("/v1/auth/login", &format!("{{}}{}", " ".repeat(200_000)));
        let again = async {
            while matches!(ask(&mut connect(to, 4).await, &whole).await, None | Some((503, _))) {}
        };
        timeout(PATIENCE, again).await.expect("the room is free again");
        let (status, _) = ask(&mut connect(to, 4).await, &post("/v1/auth/login", &" ".repeat(300_000))).await.unwrap();
        assert_eq!(status, 413);
    }

    async fn who_has_no_token_is_not_kept_long(database) {
        let node = TestNode::with(database, &[]).await;
        let to = address(&node.url);
        let alice = register(&node, "alice").await;
        let me = format!("GET /v1/auth/me HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", alice.tokens.access_token);
        let mut stranger = connect(to, 2).await;
        let mut known = connect(to, 2).await;
        assert_eq!(ask(&mut known, &me).await.unwrap().0, 200);
        assert_eq!(ask(&mut stranger, LIVEZ).await.unwrap().0, 200);
        closed(&mut stranger).await;
        assert_eq!(ask(&mut known, &me).await.expect("a connection that lives").0, 200);
    }
}

/// A node that may open few files.
async fn with_few_files(kind: Kind, files: usize, settings: &[(&str, &str)]) -> TestNode {
    let folder = Arc::new(tempfile::Builder::new().prefix("sotto-test").tempdir().unwrap());
    let url = database::fresh(kind, folder.path()).await;
    let prefix = ["prlimit".to_owned(), format!("--nofile={files}:{files}")];
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let place = Place { prefix: prefix.to_vec(), ..Place::default() };
    TestNode::at(place, kind, folder, url, settings, 0).await
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn operators_and_the_database_have_files(kind: Kind) {
    let admin = free_port();
    let admin_text = admin.to_string();
    let settings = [("SOTTO_HTTP__ADMIN_LISTEN", admin_text.as_str()), ("SOTTO_LIMITS__ENABLED", "false")];
    let node = with_few_files(kind, 400, &settings).await;
    let to = address(&node.url);
    let mut held = Vec::new();
    for _ in 0..350 {
        held.push(connect(to, 2).await);
    }
    for path in ["/readyz?verbose", "/metrics"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (status, text) = ask(&mut connect(admin, 2).await, &request).await.unwrap();
        assert_eq!(status, 200, "{text}");
    }
    // Those that were let in are closed without a word when they stay silent, the others were told why not.
    let mut refused = 0;
    for stream in &mut held {
        if let Some((status, text)) = answer(stream).await {
            assert!(status == 503 && text.contains("\"unavailable\"") && text.contains("retry-after: 5"), "{text}");
            refused += 1;
        }
    }
    assert!((1..=100).contains(&refused), "{refused} were refused");
    let_in(to, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_and_the_database_have_files_on_sqlite() {
    operators_and_the_database_have_files(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_and_the_database_have_files_on_postgres() {
    operators_and_the_database_have_files(Kind::Postgres).await;
}
