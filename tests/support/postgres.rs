//! A PostgreSQL of a test's own, to kill and to start again.

use super::database;
use super::process::{children, free_port, run, signal};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server with its own data folder. Dropped, it is gone with all its processes.
pub struct PostgresServer {
    postmaster: Child,
    /// The folder with `data` and `log` in it, unless it is somebody else's.
    own: Option<TempDir>,
    folder: PathBuf,
    /// The address that others reach it at.
    pub host: String,
    pub port: u16,
}

impl PostgresServer {
    /// A server on a free port of the loopback interface.
    pub async fn start() -> Self {
        Self::on("127.0.0.1", None).await
    }

    /// A server on the loopback interface and on this address, which asks nobody for a password; its data is in a folder
    /// that exists and is empty, or in one of its own.
    pub async fn on(host: &str, folder: Option<&Path>) -> Self {
        Self::with_log(host, folder, None).await
    }

    /// The same, with its write-ahead log in another folder, as on a disk of its own.
    pub async fn with_log(host: &str, folder: Option<&Path>, log: Option<&Path>) -> Self {
        let own =
            folder.is_none().then(|| tempfile::Builder::new().prefix("sotto-postgres").tempdir().expect("a folder"));
        let folder = folder.map_or_else(|| own.as_ref().expect("one of the two").path().to_owned(), Path::to_owned);
        let data = folder.join("data");
        let template = template();
        run("cp", &["-a", &template.display().to_string(), &data.display().to_string()]).expect("a copy");
        give(&folder);
        if let Some(log) = log {
            give(log);
            let (from, to) = (data.join("pg_wal"), log.join("pg_wal"));
            run("cp", &["-a", &from.display().to_string(), &to.display().to_string()]).expect("a copy");
            std::fs::remove_dir_all(&from).expect("a folder of initdb's");
            std::os::unix::fs::symlink(&to, &from).expect("a link");
        }
        let entry = format!("host all all {host}/16 trust\n");
        append(&data.join("pg_hba.conf"), &entry);
        let port = free_port();
        let others = if host == "127.0.0.1" { String::new() } else { format!(",{host}") };
        let settings = format!(
            "listen_addresses = '127.0.0.1{others}'\nport = {port}\nunix_socket_directories = ''\nmax_connections = 200\n\
             fsync = on\nlogging_collector = off\nlog_min_duration_statement = 500\n"
        );
        append(&data.join("postgresql.conf"), &settings);
        let postmaster = spawn(&folder);
        let mut server = Self { postmaster, own, folder, host: host.to_owned(), port };
        server.ready().await;
        server
    }

    /// A server on what another one has left in a folder, on a port of its own.
    pub async fn resume(folder: &Path) -> Self {
        // Of one that may still run, on the disk that this is an image of.
        let _ = std::fs::remove_file(folder.join("data/postmaster.pid"));
        let port = free_port();
        append(&folder.join("data/postgresql.conf"), &format!("port = {port}\n"));
        let postmaster = spawn(folder);
        let mut server = Self { postmaster, own: None, folder: folder.to_owned(), host: "127.0.0.1".to_owned(), port };
        server.ready().await;
        server
    }

    async fn ready(&mut self) {
        let begun = Instant::now();
        while !self.answers().await {
            let is_alive = self.is_alive();
            assert!(
                is_alive && begun.elapsed() < Duration::from_secs(60),
                "PostgreSQL does not start:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn local_url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The URL of a database that nobody else uses.
    pub async fn database(&self, name: &str) -> String {
        let client = database::connect(&self.local_url()).await;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database of one's own");
        format!("postgres://postgres@{}:{}/{name}", self.host, self.port)
    }

    /// The postmaster and everybody whom it has started.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.postmaster.id()];
        pids.extend(children(self.postmaster.id()));
        pids
    }

    pub fn is_alive(&mut self) -> bool {
        self.postmaster.try_wait().expect("a child").is_none()
    }

    /// Whether it takes connections and answers them.
    pub async fn answers(&self) -> bool {
        let url = self.local_url();
        let question = async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.ok()?;
            tokio::spawn(connection);
            client.simple_query("SELECT 1").await.ok()
        };
        tokio::time::timeout(Duration::from_secs(2), question).await.is_ok_and(|answer| answer.is_some())
    }

    /// kill -9 of every process. The postmaster is held first, so that it starts nobody meanwhile.
    pub fn kill(&mut self) {
        if self.is_alive() {
            signal("STOP", &[self.postmaster.id()]);
            signal("KILL", &self.pids());
            let _ = self.postmaster.wait();
        }
    }

    /// Starts it again on the same data and port; returns when it has recovered and answers.
    pub async fn restart(&mut self) {
        self.postmaster = spawn(&self.folder);
        self.ready().await;
    }

    /// Stops every process, or lets all go on (`STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        signal(name, &self.pids());
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The folder with `data` and `log` in it.
    pub fn folder(&self) -> &Path {
        self.own.as_ref().map_or(&self.folder, |own| own.path())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn append(file: &Path, text: &str) {
    let old = std::fs::read_to_string(file).expect("a file of initdb's");
    // In place: the file stays its owner's.
    std::fs::write(file, old + text).expect("a file of initdb's");
}

fn spawn(folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut command = Command::new(binary("postgres"));
    command.arg("-D").arg(folder.join("data")).current_dir(folder).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a log")).stderr(log);
    unprivileged(&mut command);
    command.spawn().expect("PostgreSQL starts")
}

/// PostgreSQL refuses to run as root: then it is the user `postgres`, as in `scripts/postgres`.
fn user() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line =
        users.lines().find(|line| line.starts_with("postgres:")).expect("a user postgres, whom root stands aside for");
    let mut ids = line.split(':').skip(2).map(|id| id.parse().expect("a number"));
    ids.next().zip(ids.next())
}

fn unprivileged(command: &mut Command) {
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid);
    }
}

fn give(folder: &Path) {
    if let Some((uid, gid)) = user() {
        std::os::unix::fs::chown(folder, Some(uid), Some(gid)).expect("a folder of PostgreSQL's own");
    }
}

/// Distributions keep the server's programs off the PATH.
fn binary(name: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        folders.push(entry.path().join("bin"));
    }
    folders.sort();
    folders.reverse();
    folders.extend(["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: scripts/postgres installs PostgreSQL"))
}

/// A folder that `initdb` has filled, to copy from: made by the first who needs it, for this version and this user.
fn template() -> PathBuf {
    let version = run(&binary("postgres").display().to_string(), &["--version"]).expect("a version");
    let version: String = version.chars().filter(char::is_ascii_digit).collect();
    let owner = std::fs::metadata("/proc/self").expect("/proc").uid();
    let template = std::env::temp_dir().join(format!("sotto-postgres-template-{version}-{owner}"));
    if template.join("PG_VERSION").exists() {
        return template;
    }
    let folder = tempfile::Builder::new().prefix("sotto-initdb").tempdir().expect("a folder");
    give(folder.path());
    let data = folder.path().join("data");
    let mut command = Command::new(binary("initdb"));
    command.arg("--pgdata").arg(&data).current_dir(folder.path());
    command.args(["--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]);
    unprivileged(&mut command);
    let output = command.output().expect("initdb");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    // Whoever was first has made the same.
    if let Err(error) = std::fs::rename(&data, &template) {
        assert!(template.join("PG_VERSION").exists(), "{}: {error}", template.display());
    }
    template
}
