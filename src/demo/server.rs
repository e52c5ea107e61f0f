//! The server of the demo: this program again, as a child that never outlives it.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use sotto_schema::{Store, StoreSettings};

use super::error::expect;
use super::story::Story;
use super::{DemoError, within};

/// The name of the server's data folder in the temporary one.
const DATA: &str = "server";
const LOG: &str = "server.log";
/// How much of the log is shown when something fails.
const TAIL: usize = 8;

/// What differs from production, and why.
const SETTINGS: &[&str] = &[
    // The codes of text messages go to a file, where the demo reads them as a telephone would get them.
    "sms.sender=outbox",
    // A person sends 20 messages a minute at most; the demo sends that in a moment.
    "limits.messages_per_minute=10000",
    "limits.requests_per_minute=10000",
];

/// A running server and how to run it again.
pub(super) struct Server {
    /// `http://127.0.0.1:PORT`.
    pub(super) url: String,
    /// The server's data folder.
    pub(super) data: PathBuf,
    program: PathBuf,
    keep: bool,
    process: Option<Process>,
}

impl Server {
    /// Starts a server in a folder, on a port that is free.
    pub(super) async fn start(story: &mut Story, folder: &Path, keep: bool) -> Result<Self, DemoError> {
        let failed = |error| DemoError::files("cannot find this program", error);
        let program = env::current_exe().map_err(failed)?;
        let data = folder.join(DATA);
        fs::create_dir(&data).map_err(|error| DemoError::files("cannot make the data folder", error))?;
        let mut server = Self { url: String::new(), data, program, keep, process: None };
        story.scene("The server");
        let began = Instant::now();
        server.run("127.0.0.1:0").await?;
        story.server(format!(
            "`sotto serve` runs as process {} on {}, ready after {} ms; no setting but the ones below",
            server.pid(),
            server.url,
            began.elapsed().as_millis()
        ));
        story.server(format!("SQLite, keys and log in {}", server.data.display()));
        story.server(
            "text messages go to a file instead of a gateway; limits as in production, except messages and requests \
             per minute, which the demo would exceed in a moment",
        );
        story.flush();
        Ok(server)
    }

    /// Starts the server again where it was before.
    pub(super) async fn restart(&mut self) -> Result<(), DemoError> {
        let address = self.url.trim_start_matches("http://").to_owned();
        let before = self.url.clone();
        self.run(&address).await?;
        expect(self.url == before, || format!("the server was at {before} and is at {} now", self.url))
    }

    async fn run(&mut self, address: &str) -> Result<(), DemoError> {
        let log = self.data.join(LOG);
        let mut child = match self.command(&self.program, address, &log).spawn() {
            // The file was replaced, by a build perhaps; what this process runs is still there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.command(Path::new("/proc/self/exe"), address, &log).spawn()
            }
            spawned => spawned,
        }
        .map_err(|error| DemoError::files("cannot start the server", error))?;
        let stdout = child.stdout.take();
        // From here on it is killed with this value, whatever happens.
        self.process = Some(Process { sentinel: Sentinel::watch(&child), child });
        let first_line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            if let Some(stdout) = stdout {
                BufReader::new(stdout).read_line(&mut line)?;
            }
            Ok(line)
        });
        let line = within("the server is ready", first_line).await?;
        let line = line.unwrap_or_else(|error| Err(io::Error::other(error)));
        let line = line.map_err(|error| DemoError::files("the server says nothing", error))?;
        let url = line.trim().strip_prefix("listening on ");
        let url = url.ok_or_else(|| DemoError::Broken(format!("the server ended at its start, saying {line:?}")))?;
        self.url = url.to_owned();
        Ok(())
    }

    fn command(&self, program: &Path, address: &str, log: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", address, "--data-dir"]).arg(&self.data);
        for setting in SETTINGS {
            command.args(["--set", setting]);
        }
        if self.keep {
            command.args(["--set", "auth.access_ttl=86400"]);
        }
        // Whatever the terminal's settings are, this server has its own.
        for (name, _) in crate::config::environment().iter().filter(|(name, _)| name.starts_with("SOTTO_")) {
            command.env_remove(name);
        }
        let log = OpenOptions::new().append(true).create(true).open(log);
        let log = log.map_or_else(|_| Stdio::null(), Stdio::from);
        // A group of its own: Ctrl-C at the terminal is for the demo, which then stops the server in order.
        command.arg0("sotto").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
        command
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, |process| process.child.id())
    }

    /// Ends it with SIGKILL: no drain, no flush, no goodbye.
    pub(super) fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Asks it to end, as an operator would, and waits until it has.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let asked = Command::new("kill").arg("-TERM").arg(process.child.id().to_string()).status();
        asked.map_err(|error| DemoError::files("cannot ask the server to stop", error))?;
        let ended = within("the server drains and ends", async {
            loop {
                if let Some(status) = process.child.try_wait()? {
                    return Ok(status);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let status = ended.await?.map_err(|error| DemoError::files("cannot wait for the server", error))?;
        expect(status.success(), || format!("the server ended with {status}"))
    }

    /// The memory it has at present, in bytes.
    pub(super) fn resident(&self) -> Option<u64> {
        let pid = self.pid().to_string();
        let kib = match fs::read_to_string(format!("/proc/{pid}/status")) {
            Ok(status) => status.lines().find_map(|line| line.strip_prefix("VmRSS:")).map(str::to_owned),
            Err(_) => {
                let ps = Command::new("ps").args(["-o", "rss=", "-p", &pid]).output().ok();
                ps.and_then(|ps| String::from_utf8(ps.stdout).ok())
            }
        };
        kib?.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// The file of its database.
    pub(super) fn database(&self) -> PathBuf {
        self.data.join("sotto.db")
    }

    /// Its database, opened beside it.
    pub(super) async fn store(&self) -> Result<Store, DemoError> {
        let url = format!("sqlite:{}", self.database().display());
        Ok(Store::open(&url, &StoreSettings { read_connections: 1, ..StoreSettings::default() }).await?)
    }

    /// The code that was sent to a number last.
    pub(super) fn last_code(&self, phone: &str) -> Result<String, DemoError> {
        let path = self.data.join("outbox.jsonl");
        let text = fs::read_to_string(&path).map_err(|error| DemoError::files("cannot read the outbox", error))?;
        let mut lines = text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let last = lines.find(|line| line.get("to").and_then(|to| to.as_str()) == Some(phone));
        let code = last.and_then(|line| line.get("code")?.as_str().map(str::to_owned));
        code.ok_or_else(|| DemoError::Broken(format!("no text message came to {phone}")))
    }
}

/// The last lines of the server's log.
pub(super) fn log_tail(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join(DATA).join(LOG)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(TAIL)).copied().collect::<Vec<_>>().join("\n")
}

/// A child that ends with its owner.
struct Process {
    child: Child,
    #[allow(dead_code, reason = "held for its end")]
    sentinel: Option<Sentinel>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as good. The sentinel goes after it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shell that waits for the demo's end, even by SIGKILL, and then ends the server: nobody else could.
struct Sentinel(Child);

impl Sentinel {
    fn watch(child: &Child) -> Option<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "read -r nothing; kill -KILL \"$1\"", "sotto-demo-sentinel", &child.id().to_string()]);
        // The pipe is closed by the end of this process, and by nothing else.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        // Without a shell the demo works all the same.
        shell.spawn().ok().map(Self)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
