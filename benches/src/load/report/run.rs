//! What the page says about a run besides its figures: verdict, ledger, machine, settings.

use serde_json::Value;

use super::super::{
    summary::{LedgerCounts, ProcessFigures, Summary, Verdict},
    text,
};
use super::{is_whole, letter};

/// A run in the words of the page.
pub struct Run<'a> {
    /// Its letter in a comparison.
    pub letter: String,
    /// Its colour.
    pub color: usize,
    /// The run itself.
    pub summary: &'a Summary,
    /// Whether its figures may be shown.
    pub is_whole: bool,
    /// A class: `good`, `saturated` or `broken`.
    pub verdict: &'static str,
    /// The verdict in a word.
    pub word: &'static str,
    /// What the verdict means.
    pub meaning: &'static str,
    /// The promises, with how often each was broken.
    pub ledger: Vec<Promise>,
    /// When it began.
    pub started_at: String,
    /// How long it was measured, and how long it warmed up.
    pub length: String,
    /// Refusals and failures, the most frequent first.
    pub errors: Vec<(&'a str, String)>,
    /// What the processes used.
    pub processes: Vec<Process<'a>>,
    /// The generator's machine and state.
    pub facts: Vec<(&'static str, String)>,
}

/// A promise, and how often it was broken.
pub struct Promise {
    /// In a word.
    pub name: &'static str,
    /// What it counts.
    pub meaning: &'static str,
    /// How often, for people.
    pub count: String,
    /// Whether it held.
    pub is_kept: bool,
}

/// A process, for people.
pub struct Process<'a> {
    /// `server`, `database`, …
    pub name: &'a str,
    /// Processors, processor seconds, those per 1,000 operations, memory at the beginning, at the end and at most.
    pub cells: [String; 6],
}

/// A setting in every run.
pub struct Setting {
    /// Its path in the settings: `traffic.window`.
    pub key: String,
    /// Its value in each run; empty where the run has none.
    pub values: Vec<String>,
    /// Whether the runs do not agree.
    pub differs: bool,
}

impl<'a> Run<'a> {
    /// The run at a place of the list.
    pub fn new(place: usize, summary: &'a Summary) -> Self {
        let (verdict, word, meaning) = verdict(summary);
        let mut errors: Vec<(&str, u64)> = summary.errors.iter().map(|(code, count)| (code.as_str(), *count)).collect();
        errors.sort_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
        Self {
            letter: letter(place),
            color: place % 6,
            summary,
            is_whole: is_whole(summary),
            verdict,
            word,
            meaning,
            ledger: ledger(&summary.ledger),
            started_at: summary.started_at.replacen('T', " ", 1),
            length: format!(
                "{} after {} warm-up",
                text::seconds(summary.seconds),
                text::seconds(summary.warmup_seconds)
            ),
            errors: errors.into_iter().map(|(code, count)| (code, text::count(count))).collect(),
            processes: summary.processes.iter().map(process).collect(),
            facts: facts(summary),
        }
    }
}

fn verdict(summary: &Summary) -> (&'static str, &'static str, &'static str) {
    match summary.verdict {
        _ if !is_whole(summary) => (
            "broken",
            "Broken",
            "The ledger does not balance: something that was promised did not hold. Figures of such a run mean nothing, so \
             none are shown.",
        ),
        Verdict::Saturated => (
            "saturated",
            "Saturated",
            "The ledger balances, but the generator was at its own end. What is shown is its limit, not the server's.",
        ),
        Verdict::Good | Verdict::Broken => {
            ("good", "Good", "The ledger balances and the generator kept up: the figures are the server's.")
        }
    }
}

fn ledger(counts: &LedgerCounts) -> Vec<Promise> {
    [
        ("lost", "answered ok, and never came", counts.lost),
        ("duplicated", "stored twice, or came twice on one connection", counts.duplicated),
        ("reordered", "came before an earlier one of its conversation", counts.reordered),
        ("gaps", "holes in the numbers of a conversation", counts.gaps),
        ("strange", "came, and nobody had sent it", counts.strange),
        ("unconfirmed", "acknowledged, and not confirmed", counts.unconfirmed),
        ("unanswered", "sent, and neither answered nor refused", counts.unanswered),
    ]
    .map(|(name, meaning, count)| Promise { name, meaning, count: text::count(count), is_kept: count == 0 })
    .into()
}

fn process(process: &ProcessFigures) -> Process<'_> {
    let per_1000 = process.cpu_seconds_per_1000.map_or_else(|| "–".to_owned(), text::number);
    let [start, end, peak] = [process.rss_start_bytes, process.rss_end_bytes, process.rss_peak_bytes].map(text::bytes);
    let cells = [text::number(process.cores), text::number(process.cpu_seconds), per_1000, start, end, peak];
    Process { name: &process.name, cells }
}

fn facts(summary: &Summary) -> Vec<(&'static str, String)> {
    let Summary { machine, target, generator, .. } = summary;
    let place = if target.local { "on the generator's machine" } else { "elsewhere" };
    let mut facts = vec![
        ("Target", target.urls.join(", ")),
        ("Kind of server", format!("{}, {place}", target.protocol)),
        ("Processor", machine.processor.clone()),
        ("Cores", machine.cores.to_string()),
        ("Memory", text::bytes(machine.memory_bytes)),
        ("Kernel", machine.kernel.clone()),
        ("Generator threads", generator.threads.to_string()),
        ("Busiest thread at work", text::percent(generator.busiest_thread)),
    ];
    if let Some(lag) = generator.lag_p99_ms {
        facts.push(("Sent late, 99th percentile", format!("{} ms", text::number(lag))));
    }
    facts
}

/// The settings of all runs, those that differ first.
pub fn settings(summaries: &[Summary]) -> Vec<Setting> {
    let flat: Vec<Vec<(String, String)>> = summaries
        .iter()
        .map(|summary| {
            let mut found = Vec::new();
            flatten("", &summary.settings, &mut found);
            found
        })
        .collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in flat.iter().flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut settings: Vec<Setting> = keys
        .into_iter()
        .map(|key| {
            let value = |run: &Vec<(String, String)>| {
                run.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone())
            };
            let values: Vec<String> = flat.iter().map(|run| value(run).unwrap_or_default()).collect();
            let differs = values.windows(2).any(|pair| pair.first() != pair.last());
            Setting { key: key.clone(), values, differs }
        })
        .collect();
    settings.sort_by_key(|setting| !setting.differs);
    settings
}

fn flatten(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, field, found);
            }
        }
        Value::String(text) => found.push((path.to_owned(), text.clone())),
        other => found.push((path.to_owned(), other.to_string())),
    }
}
