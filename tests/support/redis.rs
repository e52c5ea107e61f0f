//! Redis processes of a test's own: one alone, or a primary and a replica that three sentinels watch.

use super::process::{free_port, signal};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One redis-server (or sentinel). It keeps nothing on disk: killed, it comes back empty. Dropped, it is gone.
pub struct RedisServer {
    child: Child,
    folder: TempDir,
    arguments: Vec<String>,
    /// The address that others reach it at.
    pub host: String,
    pub port: u16,
}

impl RedisServer {
    /// A server on a free port of the loopback interface.
    pub async fn start() -> Self {
        Self::on("127.0.0.1", &[]).await
    }

    /// A server that listens on the loopback interface and on this address of the machine.
    pub async fn on(host: &str, more: &[&str]) -> Self {
        let port = free_port();
        let mut arguments = listening(host, port);
        arguments.extend(["--save", "", "--appendonly", "no"].map(str::to_owned));
        arguments.extend(more.iter().map(|text| (*text).to_owned()));
        Self::launch(host, port, arguments, tempfile::tempdir().expect("a folder")).await
    }

    async fn launch(host: &str, port: u16, arguments: Vec<String>, folder: TempDir) -> Self {
        let child = spawn(&arguments, folder.path());
        let mut server = Self { child, folder, arguments, host: host.to_owned(), port };
        server.ready().await;
        server
    }

    async fn ready(&mut self) {
        let begun = Instant::now();
        while self.command(&["PING"]).await.ok().as_deref() != Some("PONG") {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(20), "redis-server does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// `redis://HOST:PORT`
    pub fn url(&self) -> String {
        format!("redis://{}:{}", self.host, self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, after a kill.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.arguments, self.folder.path());
        self.ready().await;
    }

    /// Forgets everything that is in it.
    pub async fn flush_all(&self) {
        assert_eq!(self.command(&["FLUSHALL"]).await.as_deref(), Ok("OK"));
    }

    /// The keys that match a pattern.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let answer = self.command(&["KEYS", pattern]).await.expect("an answer");
        answer.lines().map(str::to_owned).collect()
    }

    /// Sends one command. A list is answered as one line for each of its elements.
    ///
    /// # Errors
    /// What Redis said, or that it said nothing within two seconds.
    pub async fn command(&self, words: &[&str]) -> Result<String, String> {
        let answer = tokio::time::timeout(Duration::from_secs(2), exchange(self.port, words)).await;
        answer.map_err(|_| "no answer".to_owned())?
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listening(host: &str, port: u16) -> Vec<String> {
    let mut arguments: Vec<String> = ["--port", &port.to_string(), "--bind", "127.0.0.1"].map(str::to_owned).to_vec();
    if host != "127.0.0.1" {
        arguments.push(host.to_owned());
    }
    arguments.extend(["--protected-mode", "no"].map(str::to_owned));
    arguments
}

fn spawn(arguments: &[String], folder: &Path) -> Child {
    let mut command = Command::new("redis-server");
    command.args(arguments).arg("--dir").arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is on the PATH (scripts/redis installs it)")
}

/// A command and its answer in Redis's own protocol.
async fn exchange(port: u16, words: &[&str]) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(text.as_bytes()).await.map_err(|error| error.to_string())?;
    let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let read = stream.read(&mut buffer).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the connection ended".to_owned());
        }
        seen.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&seen);
        let mut lines = Vec::new();
        if let Some(rest) = element(&text, &mut lines) {
            assert!(rest.is_empty(), "one answer to one command");
            let answer = lines.join("\n");
            return if text.starts_with('-') { Err(answer) } else { Ok(answer) };
        }
    }
}

/// Takes one value off the text into lines; `None`: it has not come whole.
fn element<'a>(text: &'a str, lines: &mut Vec<String>) -> Option<&'a str> {
    let (head, mut rest) = text.split_once("\r\n")?;
    let (kind, value) = head.split_at_checked(1)?;
    match kind {
        "$" | "*" if value.starts_with('-') => lines.push(String::new()),
        "$" => {
            let length = value.parse().ok()?;
            lines.push(rest.get(..length)?.to_owned());
            rest = rest.get(length..)?.strip_prefix("\r\n")?;
        }
        "*" => {
            for _ in 0..value.parse::<usize>().ok()? {
                rest = element(rest, lines)?;
            }
        }
        _ => lines.push(value.to_owned()),
    }
    Some(rest)
}

/// What the sentinels call the server that they watch.
pub const SENTINEL_NAME: &str = "sotto";

/// A primary and its replica, watched by three sentinels that need a second to see that it is gone.
pub struct Sentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// All five processes, on the loopback interface.
    pub async fn start() -> Self {
        Self::on("127.0.0.1").await
    }

    /// All five processes, on this address of the machine.
    pub async fn on(host: &str) -> Self {
        let primary = RedisServer::on(host, &["--repl-diskless-sync-delay", "0"]).await;
        let port = primary.port.to_string();
        let replica = RedisServer::on(host, &["--repl-diskless-sync-delay", "0", "--replicaof", host, &port]).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
            let file = folder.path().join("sentinel.conf");
            let watched = format!("{SENTINEL_NAME} {host} {} 2", primary.port);
            let text = format!(
                "sentinel monitor {watched}\nsentinel down-after-milliseconds {SENTINEL_NAME} 1000\n\
                 sentinel failover-timeout {SENTINEL_NAME} 3000\nsentinel parallel-syncs {SENTINEL_NAME} 1\n"
            );
            std::fs::write(&file, text).expect("a file");
            let mut arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
            arguments.extend(listening(host, port));
            sentinels.push(RedisServer::launch(host, port, arguments, folder).await);
        }
        let set = Self { servers: vec![primary, replica], sentinels };
        let begun = Instant::now();
        // A failover needs a replica that is in step and two who agree.
        while !set.is_whole().await {
            assert!(begun.elapsed() < Duration::from_secs(30), "the sentinels do not find each other");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        set
    }

    async fn is_whole(&self) -> bool {
        for sentinel in &self.sentinels {
            let known = sentinel.command(&["INFO", "sentinel"]).await.unwrap_or_default();
            if !known.contains("slaves=1,sentinels=3") {
                return false;
            }
        }
        let Some(primary) = self.primary().await else { return false };
        let state = self.servers[primary].command(&["INFO", "replication"]).await.unwrap_or_default();
        state.contains("state=online")
    }

    /// `HOST:PORT` of each sentinel.
    pub fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| format!("{}:{}", sentinel.host, sentinel.port)).collect()
    }

    /// Ports of every process: what a partition must cut.
    pub fn ports(&self) -> Vec<u16> {
        self.servers.iter().chain(&self.sentinels).map(|server| server.port).collect()
    }

    /// Which of the two is the primary, by the first sentinel's word.
    async fn primary(&self) -> Option<usize> {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_NAME];
        let answer = self.sentinels[0].command(&question).await.ok()?;
        let port: u16 = answer.lines().nth(1)?.parse().ok()?;
        self.servers.iter().position(|server| server.port == port)
    }

    /// The primary of now.
    pub async fn current(&self) -> &RedisServer {
        &self.servers[self.primary().await.expect("a primary")]
    }

    /// kill -9 of the primary; returns when the sentinels have made the replica the primary, and how long that took.
    pub async fn failover(&mut self) -> Duration {
        let old = self.primary().await.expect("a primary");
        self.servers[old].kill();
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "the sentinels do not fail over");
            if let Some(new) = self.primary().await.filter(|new| *new != old) {
                let role = self.servers[new].command(&["ROLE"]).await.unwrap_or_default();
                if role.starts_with("master") {
                    return begun.elapsed();
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts whoever is dead again; the sentinels make it a replica. Returns when it is in step.
    pub async fn restore(&mut self) {
        for server in &mut self.servers {
            if server.child.try_wait().expect("a child").is_some() {
                server.restart().await;
            }
        }
        let begun = Instant::now();
        while !self.is_whole().await {
            assert!(begun.elapsed() < Duration::from_secs(60), "the old primary does not become a replica");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops, or wakes, every process at once.
    pub fn signal(&self, name: &str) {
        let pids: Vec<u32> = self.servers.iter().chain(&self.sentinels).map(RedisServer::pid).collect();
        signal(name, &pids);
    }
}
