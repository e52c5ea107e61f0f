//! What a campaign has shown so far: kept between runs, printed as tables.

use super::leg::{Outcome, Result};
use super::plan::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Sends are to be answered again within this.
const WANTED_MS: u64 = 5_000;

/// The whole campaign, as the state file has it and as the result is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Campaign {
    pub seed: u64,
    pub faults: usize,
    pub kinds: Vec<Kind>,
    pub redis: bool,
    pub legs: Vec<Result>,
}

impl Campaign {
    /// Reads a campaign that was begun before.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn load(file: &Path) -> std::result::Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Keeps it; a kill in the middle leaves the old file.
    pub fn save(&self, file: &Path) {
        let text = serde_json::to_string_pretty(self).expect("JSON");
        let next = file.with_extension("next");
        std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, file)).expect("the state file");
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.legs.iter().flat_map(|leg| &leg.outcomes)
    }

    fn done(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes().filter(|outcome| outcome.skipped.is_none())
    }

    /// Why the campaign counts as failed; empty: it does not.
    pub fn verdict(&self, require_all: bool) -> Vec<String> {
        let mut reasons = Vec::new();
        let broken = self.legs.iter().filter(|leg| !leg.is_clean()).count();
        if broken > 0 {
            reasons.push(format!("{broken} of {} legs broke a promise", self.legs.len()));
        }
        if !self.done().any(|outcome| !outcome.felt.is_empty()) {
            reasons.push("no fault was felt by any client: nothing was proved".to_owned());
        }
        let late = self.done().filter(|outcome| outcome.again_ms.is_some_and(|time| time > WANTED_MS)).count();
        if late * 20 > self.done().count() {
            reasons.push(format!("after {late} faults it took longer than {WANTED_MS} ms until sends were answered"));
        }
        let skipped = self.outcomes().count() - self.done().count();
        if require_all && skipped > 0 {
            reasons.push(format!("{skipped} faults were skipped, and all were required"));
        }
        reasons
    }

    /// The tables, in Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| fault | done | skipped | felt by clients | again p50 ms | again max ms | over 5 s | ready max ms | pause p50 ms | pause max ms | wrong |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        let mut groups: BTreeMap<Kind, Vec<&Outcome>> = BTreeMap::new();
        for outcome in self.outcomes() {
            groups.entry(outcome.kind).or_default().push(outcome);
        }
        for (kind, outcomes) in &groups {
            text.push_str(&row(kind.name(), outcomes));
        }
        text.push_str(&row("all", &self.outcomes().collect::<Vec<_>>()));
        let mut ledger: BTreeMap<&str, u64> = BTreeMap::new();
        for (promise, count) in self.legs.iter().flat_map(|leg| &leg.ledger) {
            *ledger.entry(promise).or_default() += count;
        }
        let names: Vec<&str> = ledger.keys().copied().collect();
        let counts: Vec<String> = ledger.values().map(u64::to_string).collect();
        let (sent, received) = self.legs.iter().fold((0, 0), |(sent, got), leg| (sent + leg.sent, got + leg.received));
        text.push_str(&format!(
            "\n| ledgers closed | sent | received | {} |\n|{}\n| {} | {sent} | {received} | {} |\n",
            names.join(" | "),
            "---|".repeat(names.len() + 3),
            self.legs.len(),
            counts.join(" | ")
        ));
        let mut reasons: Vec<String> = self
            .outcomes()
            .filter_map(|outcome| Some(format!("{}: {}", outcome.kind.name(), outcome.skipped.as_ref()?)))
            .collect();
        reasons.sort();
        reasons.dedup();
        for reason in reasons {
            text.push_str(&format!("\nskipped: {reason}"));
        }
        text
    }
}

fn row(name: &str, outcomes: &[&Outcome]) -> String {
    let done: Vec<&&Outcome> = outcomes.iter().filter(|outcome| outcome.skipped.is_none()).collect();
    let felt = done.iter().filter(|outcome| !outcome.felt.is_empty()).count();
    let events: u64 = done.iter().flat_map(|outcome| outcome.felt.values()).sum();
    let again: Vec<u64> = done.iter().filter_map(|outcome| outcome.again_ms).collect();
    let late = again.iter().filter(|time| **time > WANTED_MS).count();
    let ready: Vec<u64> = done.iter().filter_map(|outcome| outcome.ready_ms).collect();
    let pause: Vec<u64> = done.iter().map(|outcome| outcome.pause_ms).collect();
    let wrong: usize = done.iter().map(|outcome| outcome.wrong.len()).sum();
    format!(
        "| {name} | {} | {} | {felt} ({events} times) | {} | {} | {late} | {} | {} | {} | {wrong} |\n",
        done.len(),
        outcomes.len() - done.len(),
        middle(&again),
        most(&again),
        most(&ready),
        middle(&pause),
        most(&pause),
    )
}

fn most(values: &[u64]) -> String {
    values.iter().max().map_or("-".to_owned(), u64::to_string)
}

fn middle(values: &[u64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map_or("-".to_owned(), u64::to_string)
}
