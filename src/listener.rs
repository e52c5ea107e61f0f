//! Where connections come in: plain HTTP goes to the actix-web application, WebSocket upgrades hand their stream over.
//!
//! actix-web's own server would keep two buffers of 8 KiB for as long as a WebSocket lives. The HTTP service below it
//! can give the stream away instead, so this file puts the two together. What follows from that: middleware does not
//! see upgrades, therefore request ids, handshake checks and refusals of upgrades are made here; and the server no
//! longer counts a connection once it is given away, so limits and draining of sockets belong to their owners.

pub mod gate;
mod line;
mod quota;
pub(crate) mod served;
mod upgrade;

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::io;
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_server::{Server, ServerHandle};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, apply_fn_factory, fn_service, map_config,
};
use actix_web::dev::AppConfig;
use tokio::net::TcpStream;

use self::gate::{Entered, Gate};
use self::line::{Line, Patience};
use self::served::{Answer, Served};
pub use self::upgrade::{UpgradeRequest, Upgrades};

/// How long a connection may take to close after its last answer.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The most worker threads that actix-server takes.
const MAX_WORKERS: usize = 512;

/// How the listener works.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Threads that serve connections, 1 to 512; values outside are brought inside.
    pub workers: usize,
    /// How long an idle HTTP connection stays open, once it has brought a valid token.
    pub keep_alive: Duration,
    /// What connections are held against; none: everybody comes in.
    pub gate: Option<Gate>,
    /// How long the head of a request may take.
    pub head_timeout: Duration,
    /// How long a peer may take to read some of what is written.
    pub write_timeout: Duration,
    /// How long a graceful stop waits for running requests, in whole seconds.
    pub stop_timeout: Duration,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            workers: 2,
            keep_alive: Duration::from_secs(75),
            gate: None,
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// What an accept loop needs to let go of its sockets, and more.
const LETS_GO: Duration = Duration::from_millis(20);

/// Stops a listener. Clones stop the same one.
#[derive(Debug, Clone)]
pub struct ListenerHandle {
    server: ServerHandle,
    /// The listening sockets, to close them while the server still holds them.
    doors: Arc<[TcpListener]>,
}

impl ListenerHandle {
    /// Accepts no connection any more: from now on they are refused by the kernel, so that clients go elsewhere at
    /// once. What is connected stays, and requests on it are served.
    pub async fn stop_accepting(&self) {
        // The accept loop must let go first: it would report the closed sockets as errors. The answer says that it was
        // told so, not that it has.
        self.server.pause().await;
        tokio::time::sleep(LETS_GO).await;
        for door in &*self.doors {
            if let Err(err) = socket2::SockRef::from(door).shutdown(Shutdown::Both)
                && err.kind() != io::ErrorKind::NotConnected
            {
                tracing::warn!(%err, "listening socket not closed");
            }
        }
    }

    /// Stops accepting, waits for running requests ([`ListenerSettings::stop_timeout`] at most) if `graceful`, and
    /// ends the workers. **Actors that live on workers end with them**: sockets are drained before.
    pub async fn stop(&self, graceful: bool) {
        self.stop_accepting().await;
        self.server.stop(graceful).await;
    }
}

/// Serves HTTP/1.1 on `listeners`, which are bound and listening already: upgrades go to `upgrades`, everything else
/// to the application that `app` makes, once for each worker and listener. The server runs while its future is
/// polled; it ends after [`ListenerHandle::stop`]. Signals are not handled here.
///
/// # Errors
/// There is no listener, or one cannot be used.
pub fn listen<F, I, S, B>(
    listeners: Vec<TcpListener>,
    settings: &ListenerSettings,
    app: F,
    upgrades: Upgrades,
) -> io::Result<(Server, ListenerHandle)>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    if listeners.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on"));
    }
    let doors = listeners.iter().map(TcpListener::try_clone).collect::<io::Result<Arc<[_]>>>()?;
    let upgrades = Arc::new(upgrades);
    let keep_alive = settings.keep_alive;
    let patience = Patience { head: settings.head_timeout, silence: keep_alive, write: settings.write_timeout };

    let mut builder = Server::build()
        .workers(settings.workers.clamp(1, MAX_WORKERS))
        .shutdown_timeout(settings.stop_timeout.as_secs())
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    for listener in listeners {
        let address = listener.local_addr()?;
        let (app, upgrades, stopping) = (app.clone(), Arc::clone(&upgrades), stopping.clone());
        let gate = settings.gate.clone();
        builder = builder.listen(address.to_string(), listener, move || {
            let (upgrades, stopping) = (Arc::clone(&upgrades), stopping.clone());
            let app = app().into_factory().map_err(|err| err.into().error_response());
            // The connection is to know what is served on it.
            let app = apply_fn_factory(map_config(app, |()| AppConfig::default()), |mut request: Request, app| {
                let served = request.conn_data::<Served>().cloned();
                let unfinished = served.map(|served| {
                    served.watch(&mut request);
                    served.begin()
                });
                let answer = app.call(request);
                async move {
                    let answer: Response<B> = answer.await?.into();
                    Ok(answer.map_body(|_, body| Answer::new(body, unfinished)))
                }
            });
            let http = HttpService::build()
                // Idle connections close when a graceful stop begins, instead of using up its time.
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .keep_alive(KeepAlive::Timeout(keep_alive))
                // The line times all heads: actix-http would answer one that waited while this process slept.
                .client_request_timeout(Duration::ZERO)
                .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                .local_addr(address)
                .on_connect_ext(|line: &Line, data| drop(data.insert(line.served().clone())))
                .upgrade(fn_service(move |(request, framed)| {
                    // On a task of its own: that of the connection is large, and if it lived on while what stays is
                    // allocated around it, it would leave a hole for as long as the socket is open.
                    actix_rt::spawn(Arc::clone(&upgrades).dispatch(request, framed));
                    ready(Ok::<_, Infallible>(()))
                }))
                .finish(app);
            let gate = gate.clone();
            fn_service(move |stream: TcpStream| {
                let peer = stream.peer_addr().ok();
                let entered = enter(gate.as_ref(), &stream);
                ready(entered.map_err(DispatchError::Io).map(|entered| {
                    if let Err(err) = stream.set_nodelay(true) {
                        tracing::debug!(%err, "small answers may wait");
                    }
                    (Line::new(stream, patience, entered), Protocol::Http1, peer)
                }))
            })
            .and_then(http)
        })?;
    }
    let server = builder.run();
    let handle = ListenerHandle { server: server.handle(), doors };
    Ok((server, handle))
}

/// Lets a connection in. One whose peer is gone already is not.
fn enter(gate: Option<&Gate>, stream: &TcpStream) -> io::Result<Option<Entered>> {
    gate.map(|gate| gate.enter(stream, stream.peer_addr()?.ip())).transpose()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use actix::Actor as _;
    use actix_http::header::{self, HeaderValue};
    use actix_web::{App, HttpRequest, HttpResponse, web};
    use sotto_actors::echo::Echo;
    use sotto_protocol::Problem;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    /// "hi" with a mask of zeros.
    const HI: &[u8] = b"\x81\x82\0\0\0\0hi";

    /// Starts a listener whose `/ws` echoes, and whose application answers every path with what it saw.
    fn start() -> (SocketAddr, ListenerHandle) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let app = || {
            App::new().default_service(web::to(async |request: HttpRequest, body: web::Bytes| {
                HttpResponse::Ok().body(format!("app {} {}", request.path(), body.len()))
            }))
        };
        let upgrades = Upgrades::new()
            .route("/ws", async |request: UpgradeRequest| {
                let subprotocol = request.offers("echo.v1").then_some("echo.v1");
                let extra = [(header::SERVER, HeaderValue::from_static("test"))];
                Echo::new(request.accept(subprotocol, &extra).unwrap(), 1000).start();
            })
            .route("/full", async |request: UpgradeRequest| {
                request.reject_with(Problem::unavailable("no room").retry_after(1500), &[]).await;
            });
        let settings = ListenerSettings { workers: 1, ..ListenerSettings::default() };
        let (server, handle) = listen(vec![listener], &settings, app, upgrades).unwrap();
        actix_rt::spawn(server);
        (address, handle)
    }

    fn handshake(path: &str, headers: &[(&str, &str)]) -> String {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request + "\r\n"
    }

    const GOOD: [(&str, &str); 4] = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];

    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends `request` and reads until the server closes.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = connect(address).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.expect("hangs").unwrap();
        answer
    }

    /// Reads until `tail` has come.
    async fn read_up_to(stream: &mut TcpStream, tail: &[u8]) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(tail) {
            let byte = timeout(Duration::from_secs(5), stream.read_u8()).await.expect("hangs").unwrap();
            answer.push(byte);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[actix_rt::test]
    async fn an_upgrade_is_accepted_and_a_frame_glued_to_it_is_not_lost() {
        let (address, _handle) = start();
        let mut stream = connect(address).await;
        let mut request = handshake("/ws?x=1", &GOOD).into_bytes();
        request.extend_from_slice(HI);
        stream.write_all(&request).await.unwrap();
        let answer = read_up_to(&mut stream, b"\x81\x02hi").await;
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
        assert!(answer.contains(&format!("sec-websocket-accept: {ACCEPT}\r\n")), "{answer}");
        assert!(answer.contains("x-request-id: ") && answer.contains("server: test\r\n"), "{answer}");
        assert!(!answer.contains("sec-websocket-protocol"), "{answer}");
        stream.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.unwrap();
        read_up_to(&mut stream, b"\x88\x02\x03\xe8").await;
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "the server closes first");
    }

    #[actix_rt::test]
    async fn a_subprotocol_is_chosen_among_several() {
        let (address, _handle) = start();
        let mut stream = connect(address).await;
        let offered = [GOOD.as_slice(), &[("Sec-WebSocket-Protocol", "other, echo.v1")]].concat();
        stream.write_all(handshake("/ws", &offered).as_bytes()).await.unwrap();
        let answer = read_up_to(&mut stream, b"\r\n\r\n").await;
        assert!(answer.contains("sec-websocket-protocol: echo.v1\r\n"), "{answer}");
    }

    #[actix_rt::test]
    async fn flawed_handshakes_are_refused() {
        let (address, _handle) = start();
        let with = |name: &str, value: &str| {
            let mut headers: Vec<(&str, &str)> = GOOD.into_iter().filter(|(known, _)| *known != name).collect();
            if !value.is_empty() {
                headers.push((name, value));
            }
            handshake("/ws", &headers)
        };
        for (request, status) in [
            (with("Sec-WebSocket-Version", "8"), "426 Upgrade Required"),
            (with("Sec-WebSocket-Version", ""), "426 Upgrade Required"),
            (with("Sec-WebSocket-Key", ""), "400 Bad Request"),
            (with("Sec-WebSocket-Key", "c2hvcnQ="), "400 Bad Request"),
            (with("Sec-WebSocket-Key", "not base64 at all !!!!!"), "400 Bad Request"),
            (with("Connection", "keep-alive"), "400 Bad Request"),
            (with("x", "").replacen("GET", "POST", 1), "405 Method Not Allowed"),
            (with("x", "").replacen("HTTP/1.1", "HTTP/1.0", 1), "400 Bad Request"),
        ] {
            let answer = ask(address, &request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}{answer}");
            assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
            assert!(answer.contains("connection: close\r\n") && answer.contains("x-request-id: "), "{answer}");
            assert_eq!(answer.contains("sec-websocket-version: 13\r\n"), status.starts_with("426"), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
            let problem: Problem = serde_json::from_str(body).unwrap();
            assert!(head.contains(&problem.request_id), "{answer}");
        }
    }

    #[actix_rt::test]
    async fn an_upgrade_elsewhere_is_404_and_a_refusal_says_when_to_come_back() {
        let (address, _handle) = start();
        let answer = ask(address, &handshake("/v1/messages", &GOOD)).await;
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        let answer = ask(address, "CONNECT example.org:443 HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        let answer = ask(address, &handshake("/full", &GOOD)).await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        assert!(answer.contains("retry-after: 2\r\n"), "{answer}");
    }

    #[actix_rt::test]
    async fn everything_else_reaches_the_application() {
        let (address, _handle) = start();
        for headers in [
            vec![("Connection", "close")],
            vec![("Connection", "Upgrade, HTTP2-Settings, close"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMA")],
        ] {
            let answer = ask(address, &handshake("/ws", &headers)).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("app /ws 0"), "{answer}");
        }
        // One that asks to upgrade to something else, with a body, on a connection that stays.
        let mut stream = connect(address).await;
        let request =
            handshake("/v1/messages", &[("Connection", "Upgrade"), ("Upgrade", "h2c"), ("Content-Length", "3")]);
        stream.write_all(format!("{request}abc").as_bytes()).await.unwrap();
        read_up_to(&mut stream, b"app /v1/messages 3").await;
    }

    #[actix_rt::test]
    async fn a_request_before_the_upgrade_is_answered_before_it() {
        let (address, _handle) = start();
        let mut stream = connect(address).await;
        let both = handshake("/first", &[]) + &handshake("/ws", &GOOD);
        stream.write_all(&[both.as_bytes(), HI].concat()).await.unwrap();
        let answer = read_up_to(&mut stream, b"\x81\x02hi").await;
        let first = answer.find("app /first 0").unwrap();
        assert!(first < answer.find("HTTP/1.1 101").unwrap(), "{answer}");
    }

    #[actix_rt::test]
    async fn after_stop_accepting_new_connections_are_refused_and_old_ones_live() {
        let (address, handle) = start();
        let mut stream = connect(address).await;
        stream.write_all(handshake("/ws", &GOOD).as_bytes()).await.unwrap();
        read_up_to(&mut stream, b"\r\n\r\n").await;
        handle.stop_accepting().await;
        let refused = timeout(Duration::from_secs(5), async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        refused.await.expect("still accepts");
        stream.write_all(HI).await.unwrap();
        read_up_to(&mut stream, b"\x81\x02hi").await;
        handle.stop(true).await;
    }
}
