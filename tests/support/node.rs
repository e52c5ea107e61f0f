//! A node as a process of its own, that can be killed like one.

use super::database::{self, Kind};
use sotto_client::protocol::{DeviceId, VerificationId};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::{NamedTempFile, TempDir};

/// Where a node runs: on the loopback interface, unless something else is said.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address that it listens on.
    pub address: IpAddr,
    /// A command that runs the one which follows it, as `ip netns exec NAME`.
    pub prefix: Vec<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: Vec::new() }
    }
}

/// A running node. Dropped, it is killed and its folder removed.
pub struct TestNode {
    child: Child,
    pub folder: Arc<TempDir>,
    pub store_url: String,
    pub kind: Kind,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    settings: Vec<(String, String)>,
    place: Place,
    /// The node writes to it itself: what it logged before it answered is there when the answer is.
    log: NamedTempFile,
    /// What a test expects to stand in the log at level WARN or above.
    expected: Vec<&'static str>,
}

impl TestNode {
    /// A node on a fresh database, limits off, codes in an outbox.
    pub async fn start(kind: Kind) -> Self {
        Self::with(kind, &[("SOTTO_LIMITS__ENABLED", "false")]).await
    }

    /// A node on a fresh database with settings of one's own (environment variables).
    pub async fn with(kind: Kind, settings: &[(&str, &str)]) -> Self {
        let folder = Arc::new(tempfile::Builder::new().prefix("sotto-test").tempdir().expect("a folder"));
        let store_url = database::fresh(kind, folder.path()).await;
        Self::on(kind, folder, store_url, settings, 0).await
    }

    /// A node on a database and folder that exist.
    pub async fn on(kind: Kind, folder: Arc<TempDir>, store_url: String, settings: &[(&str, &str)], port: u16) -> Self {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self::at(Place::default(), kind, folder, store_url, settings, port).await
    }

    /// A node at a place of its own, on a database and folder that exist.
    pub async fn at(
        place: Place,
        kind: Kind,
        folder: Arc<TempDir>,
        store_url: String,
        settings: Vec<(String, String)>,
        port: u16,
    ) -> Self {
        let (child, url, log) = launch(folder.path(), &store_url, &settings, &place, port).await;
        Self { child, folder, store_url, kind, url, settings, place, log, expected: Vec::new() }
    }

    /// Another node of the same database and folder: what a second process would be.
    pub async fn sibling(&self) -> Self {
        let settings: Vec<(&str, &str)> =
            self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Self::on(self.kind, Arc::clone(&self.folder), self.store_url.clone(), &settings, 0).await
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().expect("the node was running");
        self.child.wait().expect("a dead child");
    }

    /// SIGTERM, and the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "the node does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the killed node again on the same port, folder and database.
    pub async fn restart(&mut self) {
        let port = self.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let (child, url, log) = launch(self.folder.path(), &self.store_url, &self.settings, &self.place, port).await;
        (self.child, self.url, self.log) = (child, url, log);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the node has logged.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Announces a line of the log: others at WARN or above fail the test.
    pub fn expect_log(&mut self, part: &'static str) {
        self.expected.push(part);
    }

    /// The code that was sent for a verification, as a phone would show it: the newest to this number.
    pub fn code_for(&self, phone: &str) -> String {
        let outbox = std::fs::read_to_string(self.folder.path().join("outbox.jsonl")).expect("the outbox");
        let line = outbox.lines().rev().find(|line| line.contains(phone)).expect("a message to this number");
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON lines");
        value["code"].as_str().expect("a code").to_owned()
    }

    /// Resident memory of the node in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a live node");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the node at {} ----\n{}", self.url, self.log());
            return;
        }
        let log = self.log();
        let surprises: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(" ERROR ") || line.contains("panicked"))
            .filter(|line| !self.expected.iter().any(|part| line.contains(part)))
            .collect();
        assert!(
            surprises.is_empty(),
            "the node logged errors that the test did not announce:\n{}",
            surprises.join("\n")
        );
    }
}

/// Where the test program was built, `sotto` was too.
fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sotto"))
}

async fn launch(
    folder: &Path,
    store_url: &str,
    settings: &[(String, String)],
    place: &Place,
    port: u16,
) -> (Child, String, NamedTempFile) {
    // The program that a bug can be planted in lies beside the other.
    let is_planted = settings.iter().any(|(key, _)| key == "PLANTED_BUG");
    let program = if is_planted { program().with_file_name("sotto-planted") } else { program() };
    let program = program.display().to_string();
    let mut words = place.prefix.iter().cloned().chain([program, "serve".to_owned()]);
    let mut command = Command::new(words.next().expect("a program"));
    let log = NamedTempFile::with_prefix("sotto-test-log").expect("a file for the log");
    command
        .args(words)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("SOTTO_HTTP__LISTEN", SocketAddr::new(place.address, port).to_string())
        .env("SOTTO_DATA__DIR", folder)
        .env("SOTTO_STORE__URL", store_url)
        .env("SOTTO_SMS__SENDER", "outbox")
        // All that a test asks for comes from one address, unless it says another.
        .env("SOTTO_LIMITS__CODES_PER_HOST_PER_HOUR", "1000")
        .env("SOTTO_LIMITS__CODES_PER_REGION_PER_HOUR", "1000")
        .env("SOTTO_CHALLENGE__KIND", "none")
        .env("SOTTO_LOG__LEVEL", "info")
        .envs(settings.iter().map(|(key, value)| (key.as_str(), value.as_str())))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.reopen().expect("a file for the log"));
    let mut child = command.spawn().expect("the server starts");
    let stdout = child.stdout.take().expect("stdout");
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        let _ = lines.read_line(&mut line);
        let _ = sender.send(line);
        let _ = lines.read_to_string(&mut String::new());
    });
    let line = tokio::time::timeout(Duration::from_secs(30), receiver).await;
    let line = line.ok().and_then(Result::ok).unwrap_or_default();
    let url = line.trim().strip_prefix("listening on ");
    let url = url.unwrap_or_else(|| panic!("the node did not start:\n{}", read(&log)));
    (child, url.to_owned(), log)
}

fn read(log: &NamedTempFile) -> String {
    String::from_utf8_lossy(&std::fs::read(log).expect("the log")).into_owned()
}

/// Ids are text in logs and URLs; tests write them often.
pub fn text(id: impl Into<uuid::Uuid>) -> String {
    id.into().to_string()
}

#[allow(dead_code, reason = "ids that tests name")]
pub type Ids = (VerificationId, DeviceId);
