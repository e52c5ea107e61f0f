//! `sotto keys`: the server's own keys rotated under load, and what is sealed with which.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sotto_protocol::Timestamp;
use sotto_schema::{Store, StoreSettings};

use super::{CliError, Settings, out, runtime, verify};
use crate::config::Config;
use crate::identity::rotation::{self, Plan, Rotated, Sealed};
use crate::identity::secret_key::SecretKeys;

const ROTATE_EXAMPLES: &str = "\
Examples:
  sotto keys rotate --config /etc/sotto/sotto.toml                a new key, and everything sealed with it
  sotto keys rotate --config /etc/sotto/sotto.toml --in 10m       only the new key, which seals in ten minutes
  sotto keys rotate --config /etc/sotto/sotto.toml --no-new-key   everything sealed with the newest key of the file

Nodes may serve meanwhile. Those that read this very file see a new key within two seconds, or when they meet it. Access
tokens and cursors of before stay valid until they expire; refresh tokens, codes and counts do not change.

Nodes with copies of the file: use --in with the time that you need, give the new file to all of them, and when that time
has come run the command again with --no-new-key. Every node must have the new key before one seals with it.

Killed half-way, the next run goes on with the same key. Keep a copy of the file apart from those of the database.

Exit code 0: everything is sealed with one key. 1: some cells do not open, or it did not come to its end.";

const STATUS_EXAMPLES: &str = "\
Examples:
  sotto keys status --config /etc/sotto/sotto.toml          the keys of the file, and how much each has sealed
  sotto keys status --config /etc/sotto/sotto.toml --json   the same for scripts

ROLE: `active` seals what is made now; `waiting` seals later; `opens` is there for what was made before; `missing` is not
in the file, and what it has sealed does not open. The last key of the file is behind refresh tokens: taking it out signs
everybody out. One between that has sealed nothing may go when a week has passed.

Exit code 0: every cell has its key. 1: a key is missing. 2: the file or the database did not tell.";

/// Rotate the server's own keys, or tell what is sealed with which.
#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new key and seal every stored secret with it, while nodes serve.
    #[command(after_help = ROTATE_EXAMPLES)]
    Rotate(Rotate),
    /// List the keys of the file with what each has sealed.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),
}

#[derive(Debug, Args)]
struct Rotate {
    /// Only add a key that seals after this time, as `10m`; until then it is there to open.
    #[arg(long = "in", value_name = "TIME", value_parser = verify::duration, conflicts_with = "no_new_key")]
    delay: Option<Duration>,
    /// Make no key: seal with the newest one of the file.
    #[arg(long)]
    no_new_key: bool,
    /// Cells in one transaction.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Status {
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// One key as it is printed. The names are part of what scripts rely on.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    kid: String,
    /// `active`, `waiting`, `opens` or `missing`.
    role: &'static str,
    totp_secrets: u64,
    backup_codes: u64,
    pins: u64,
}

impl Keys {
    /// Does it.
    ///
    /// # Errors
    /// When the configuration is wrong, key file or database cannot be used, or a cell does not open.
    pub fn run(self) -> Result<(), CliError> {
        match self.action {
            Action::Rotate(rotate) => rotate.run(),
            Action::Status(status) => status.run(),
        }
    }
}

impl Rotate {
    fn run(self) -> Result<(), CliError> {
        let config = self.settings.load()?;
        if let Some(delay) = self.delay {
            let keys = SecretKeys::open_existing(&config.secret_key_file()).map_err(CliError::failed)?;
            let from = Timestamp::now().plus(delay);
            let kid = keys.add(Some(from)).map_err(CliError::failed)?;
            return out::line(format!("made key {kid}; it seals from {from} on: give the file to all nodes before"));
        }
        let began = Instant::now();
        let rotated = runtime::block_on(self.work(&config))?;
        let what = if rotated.is_new { "made key" } else { "went on with key" };
        let seconds = began.elapsed().as_secs_f64();
        out::line(format!("{what} {}; sealed {} cells anew in {seconds:.1} s", rotated.kid, rotated.resealed))?;
        complaints(&rotated)
    }

    async fn work(&self, config: &Config) -> Result<Rotated, CliError> {
        let (store, keys) = open(config, CliError::failed).await?;
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} cells, {eta} left") {
            bar.set_style(style);
        }
        let plan = Plan { new_key: !self.no_new_key, batch: self.batch };
        let rotated = rotation::rotate(&store, &keys, plan, |progress| {
            // Some may be made meanwhile.
            bar.set_length(progress.total.max(progress.done));
            bar.set_position(progress.done);
        });
        let rotated = rotated.await;
        bar.finish_and_clear();
        let hint = "what was done stays done; run the same command again to go on";
        rotated.map_err(|error| CliError::failed(error).hint(hint))
    }
}

/// What could not be sealed anew.
fn complaints(rotated: &Rotated) -> Result<(), CliError> {
    if rotated.unopened == 0 {
        return Ok(());
    }
    let mut text = format!("cells that do not open, and stay as they were: {}", rotated.unopened);
    for cell in &rotated.named {
        text.push_str(&format!("\n  {} of row {}: {}", cell.column, cell.row, cell.error));
    }
    Err(CliError::failed(text)
        .hint("restore the key that is missing, or let these users set their second factor up anew"))
}

impl Status {
    fn run(self) -> Result<(), CliError> {
        let config = self.settings.load()?;
        let lines = runtime::block_on(async {
            let (store, keys) = open(&config, CliError::blind).await?;
            let sealed = rotation::counts(&store).await.map_err(CliError::blind)?;
            Ok::<_, CliError>(lines(&keys, &sealed, Timestamp::now()))
        })?;
        if self.json {
            out::line(serde_json::to_string_pretty(&lines).map_err(CliError::blind)?)?;
        } else {
            out::line(table(&lines))?;
        }
        match lines.iter().filter(|line| line.role == "missing").count() {
            0 => Ok(()),
            count => {
                Err(CliError::failed(format!("{count} keys are missing in {}", config.secret_key_file().display()))
                    .hint("put them back behind the others, from a copy of the file"))
            }
        }
    }
}

fn lines(keys: &SecretKeys, sealed: &[Sealed], now: Timestamp) -> Vec<Line> {
    use sotto_schema::rows::sealed::SealedColumn;

    // One that was made since the file was read: it is looked at again.
    for sealed in sealed {
        let _known = keys.by_kid(&sealed.key_id);
    }
    let active = keys.active().kid().to_owned();
    let waiting = keys.waiting(now).map(|(set, _)| set.kid().to_owned());
    let line = |kid: &str, role| {
        let cells = |column| {
            let own = sealed.iter().filter(|sealed| sealed.column == column && sealed.key_id == kid);
            own.map(|sealed| sealed.cells).sum()
        };
        Line {
            kid: kid.to_owned(),
            role,
            totp_secrets: cells(SealedColumn::TotpSecret),
            backup_codes: cells(SealedColumn::BackupCodeHash),
            pins: cells(SealedColumn::PinHash),
        }
    };
    let role = |kid: &str| match () {
        () if kid == active => "active",
        () if Some(kid) == waiting.as_deref() => "waiting",
        () => "opens",
    };
    let mut lines: Vec<Line> = keys.all().map(|set| line(set.kid(), role(set.kid()))).collect();
    for sealed in sealed {
        if !lines.iter().any(|line| line.kid == sealed.key_id) {
            lines.push(line(&sealed.key_id, "missing"));
        }
    }
    lines
}

/// The lines as columns that are as wide as they need to be.
fn table(lines: &[Line]) -> String {
    let widest = lines.iter().map(|line| line.kid.chars().count()).max().unwrap_or(0).max(3);
    let heads = ("KEY", "ROLE", "TOTP SECRETS", "BACKUP CODES", "PINS");
    let mut text = format!("{:widest$}  {:7}  {:>12}  {:>12}  {:>8}\n", heads.0, heads.1, heads.2, heads.3, heads.4);
    for line in lines {
        let Line { kid, role, totp_secrets, backup_codes, pins } = line;
        text.push_str(&format!("{kid:widest$}  {role:7}  {totp_secrets:>12}  {backup_codes:>12}  {pins:>8}\n"));
    }
    text
}

/// The database and its keys, neither of them made here.
async fn open(config: &Config, failed: fn(String) -> CliError) -> Result<(Store, SecretKeys), CliError> {
    let file = config.secret_key_file();
    let keys = SecretKeys::open_existing(&file).map_err(|error| failed(error.to_string()))?;
    let url = config.store_url();
    let hint = || format!("the database is {url}, from store.url");
    let sqlite = url.expose().strip_prefix("sqlite:");
    // Opening a file that is not there would make it.
    if sqlite.is_some_and(|path| !std::path::Path::new(path).exists()) {
        return Err(failed("there is no database yet".to_owned()).hint(hint()));
    }
    let opened = Store::open(url.expose(), &StoreSettings::from(&config.store)).await;
    let store = opened.map_err(|error| failed(error.to_string()).hint(hint()))?;
    let status = sotto_schema::status(&store).await.map_err(|error| failed(error.to_string()).hint(hint()))?;
    if !status.iter().all(|row| row.applied) {
        return Err(failed("the database's schema is older than this program".to_owned()).hint("run `sotto migrate`"));
    }
    let fingerprint = keys.fingerprint();
    let kept = store.claim_fingerprint(fingerprint.clone()).await.map_err(|error| failed(error.to_string()))?;
    if kept != fingerprint {
        return Err(failed(format!("the keys in {} are not those that this database belongs to", file.display()))
            .hint("auth.secret_key_file names the file"));
    }
    Ok((store, keys))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;
    use sotto_schema::rows::sealed::SealedColumn;

    #[test]
    fn each_key_with_its_role_and_what_it_has_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let keys = SecretKeys::open(&folder.path().join("secret.key")).unwrap();
        let now = Timestamp::now();
        let first = keys.active().kid().to_owned();
        let second = keys.add(None).unwrap();
        let third = keys.add(Some(now.plus(Duration::from_secs(60)))).unwrap();
        let sealed = |column, kid: &str, cells| Sealed { column, key_id: kid.to_owned(), cells };
        let sealed = [
            sealed(SealedColumn::TotpSecret, &first, 7),
            sealed(SealedColumn::TotpSecret, &second, 3),
            sealed(SealedColumn::BackupCodeHash, &second, 30),
            sealed(SealedColumn::BackupCodeHash, "gone", 1),
            sealed(SealedColumn::PinHash, &first, 2),
        ];
        let lines = lines(&keys, &sealed, now);
        let told = lines
            .iter()
            .map(|line| (line.kid.as_str(), line.role, [line.totp_secrets, line.backup_codes, line.pins]))
            .collect::<Vec<_>>();
        let expected = [
            (third.as_str(), "waiting", [0, 0, 0]),
            (second.as_str(), "active", [3, 30, 0]),
            (first.as_str(), "opens", [7, 0, 2]),
            ("gone", "missing", [0, 1, 0]),
        ];
        assert_eq!(told, expected);
        let text = table(&lines);
        let widths: std::collections::HashSet<_> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 1, "columns stand under their heads:\n{text}");
    }
}
