//! `sotto cluster status`: which nodes live on a database, and how they are.

use clap::{Args, Subcommand};
use serde::Serialize;
use sotto_schema::rows::nodes::NodeRow;
use sotto_schema::{Store, StoreError, StoreSettings};

use super::{CliError, Settings, out, runtime};
use crate::config::Config;

/// A node that was not seen for so long is not counted on by the others either.
const SILENT_MS: i64 = 10_000;

const EXAMPLES: &str = "\
Examples:
  sotto cluster status --config /etc/sotto/sotto.toml          the nodes, one in a line
  sotto cluster status --config /etc/sotto/sotto.toml --json   the same for scripts

It reads the database of this configuration and asks no node. SEEN is how long ago a node wrote its row, which it does
every two seconds; one that was silent for a minute is no longer listed. SWEEP LAG is the time from the node's newest own
wake to its own sweep's reading it. MISSED names nodes that have not sent a canary back.

STATE: `ok`; `degraded` with the paths whose canaries do not arrive; `draining`: it takes its leave; `silent`: it has not
been seen for ten seconds.

Exit code 0: every node is well. 1: one is degraded or silent, or there is none. 2: the database did not tell.";

/// Look at the nodes that share a database.
#[derive(Debug, Args)]
pub struct Cluster {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the nodes with their state.
    #[command(after_help = EXAMPLES)]
    Status(Status),
}

#[derive(Debug, Args)]
struct Status {
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// One node as it is printed. The names are part of what scripts rely on.
#[derive(Debug, Serialize)]
struct Line {
    node_id: String,
    incarnation: String,
    version: String,
    started_at: String,
    up_seconds: i64,
    seen_ms_ago: i64,
    sockets: i64,
    sessions: i64,
    conversations: i64,
    sweep_lag_ms: i64,
    /// `ok`, `degraded`, `draining` or `silent`.
    state: &'static str,
    /// `ok` or `away`; null: it works without.
    redis: Option<String>,
    degraded: Vec<String>,
    missed: Vec<String>,
}

impl Line {
    fn of(row: &NodeRow, all: &[NodeRow]) -> Self {
        let name = |missed: uuid::Uuid| {
            let known = all.iter().find(|row| row.incarnation == missed);
            known.map_or_else(|| missed.to_string(), |row| row.node_id.clone())
        };
        let degraded = row.degraded();
        let lacks_redis = row.redis.as_deref() == Some("away");
        let state = match () {
            () if row.silent_ms >= SILENT_MS => "silent",
            () if row.is_draining => "draining",
            () if lacks_redis || !degraded.is_empty() => "degraded",
            () => "ok",
        };
        Self {
            node_id: row.node_id.clone(),
            incarnation: row.incarnation.to_string(),
            version: row.version.clone(),
            started_at: row.started_at.to_string(),
            up_seconds: row.up_ms / 1000,
            seen_ms_ago: row.silent_ms,
            sockets: row.sockets,
            sessions: row.sessions,
            conversations: row.conversations,
            sweep_lag_ms: row.sweep_lag_ms,
            state,
            redis: row.redis.clone(),
            degraded,
            missed: row.missed().into_iter().map(name).collect(),
        }
    }

    fn is_well(&self) -> bool {
        matches!(self.state, "ok" | "draining")
    }

    fn cells(&self) -> [String; 9] {
        let mut state = self.state.to_owned();
        if self.state == "degraded" {
            let redis = (self.redis.as_deref() == Some("away")).then_some("redis");
            let why: Vec<&str> = redis.into_iter().chain(self.degraded.iter().map(String::as_str)).collect();
            state = format!("{state}: {}", why.join(", "));
        }
        [
            self.node_id.clone(),
            self.version.clone(),
            self.started_at.clone(),
            format!("{} ms ago", self.seen_ms_ago),
            self.sockets.to_string(),
            self.sessions.to_string(),
            format!("{} ms", self.sweep_lag_ms),
            state,
            if self.missed.is_empty() { "-".to_owned() } else { self.missed.join(", ") },
        ]
    }
}

const HEADS: [&str; 9] = ["NODE", "VERSION", "UP SINCE", "SEEN", "SOCKETS", "SESSIONS", "SWEEP LAG", "STATE", "MISSED"];

/// The lines as columns that are as wide as they need to be.
fn table(lines: &[Line]) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(lines.iter().map(Line::cells));
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

impl Cluster {
    /// Does it.
    ///
    /// # Errors
    /// When the configuration is wrong, the database does not answer, or a node is not well.
    pub fn run(self) -> Result<(), CliError> {
        let Action::Status(status) = self.action;
        let config = status.settings.load()?;
        let hint = || format!("the database is {}, from store.url", config.store_url());
        let rows = match runtime::block_on(nodes(&config)).map_err(|error| CliError::blind(error).hint(hint()))? {
            Some(rows) => rows,
            None => {
                return Err(
                    CliError::blind("this database holds nothing of Sotto's, or of an older version").hint(hint())
                );
            }
        };
        let lines: Vec<Line> = rows.iter().map(|row| Line::of(row, &rows)).collect();
        if status.json {
            let text = serde_json::to_string_pretty(&lines).map_err(CliError::blind)?;
            out::line(text)?;
        } else {
            out::line(table(&lines))?;
        }
        let ill = lines.iter().filter(|line| !line.is_well()).count();
        match (lines.len(), ill) {
            (0, _) => Err(CliError::failed("no node has been seen for a minute").hint(hint())),
            (_, 0) => Ok(()),
            (all, ill) => Err(CliError::failed(format!("{ill} of {all} nodes are not well"))),
        }
    }
}

/// The nodes; none where there is no such table.
async fn nodes(config: &Config) -> Result<Option<Vec<NodeRow>>, StoreError> {
    let url = config.store_url();
    // Opening a file that is not there would make it.
    if url.expose().strip_prefix("sqlite:").is_some_and(|path| !std::path::Path::new(path).exists()) {
        return Ok(None);
    }
    let store = Store::open(url.expose(), &StoreSettings::from(&config.store)).await?;
    let knows_nodes = |name: &str| name.ends_with("_cluster");
    if !sotto_schema::status(&store).await?.iter().any(|row| row.applied && knows_nodes(&row.name)) {
        return Ok(None);
    }
    store.nodes().await.map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    fn line(state: &'static str, redis: Option<&str>, degraded: &[&str]) -> Line {
        Line {
            node_id: "node-1".to_owned(),
            incarnation: String::new(),
            version: "0.1.0".to_owned(),
            started_at: "2026-01-01T00:00:00.000Z".to_owned(),
            up_seconds: 1,
            seen_ms_ago: 812,
            sockets: 3,
            sessions: 2,
            conversations: 1,
            sweep_lag_ms: 40,
            state,
            redis: redis.map(str::to_owned),
            degraded: degraded.iter().map(|path| (*path).to_owned()).collect(),
            missed: Vec::new(),
        }
    }

    #[test]
    fn columns_stand_under_their_heads() {
        let text = table(&[line("ok", Some("ok"), &[]), line("degraded", Some("away"), &["bus_loop"])]);
        let rows: Vec<&str> = text.lines().collect();
        let state = rows.first().unwrap().find("STATE").unwrap();
        assert!(rows.get(1).unwrap().split_at(state).1.starts_with("ok "));
        assert!(rows.get(2).unwrap().split_at(state).1.starts_with("degraded: redis, bus_loop  -"));
    }
}
