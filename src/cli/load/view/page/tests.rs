//! The page on a made-up terminal: what must be readable at the smallest size, and at a large one.

use std::collections::BTreeMap;

use ratatui::{Terminal, backend::TestBackend};
use sotto_harness::load::Generator;

use super::super::state::{Header, Totals};
use super::*;

fn header() -> Header {
    Header {
        scenario: "pairs".to_owned(),
        title: "100 pairs, 8 in flight".to_owned(),
        target: "sotto at 127.0.0.1:8080".to_owned(),
        warmup_seconds: 5.0,
        seconds: 60.0,
    }
}

fn moment(at: u32) -> Moment {
    let wave = f64::sin(f64::from(at) * 0.7) * 1500.0;
    Moment {
        at: f64::from(at),
        measured: at >= 5,
        sent_per_second: 35_900.0 + wave,
        answered_per_second: 35_874.0 + wave,
        delivered_per_second: 35_812.0 + wave,
        errors_per_second: f64::from(at % 7),
        in_flight: 800,
        connections: 10_000,
        answer_ms: Some([17.4, 38.0, 61.0]),
        delivery_ms: Some([19.2 + wave / 500.0, 41.3, if at == 20 { 1234.0 } else { 70.0 }]),
        cores: [("server", 0.82), ("database", 0.51), ("generator", 0.63)]
            .map(|(name, cores)| (name.to_owned(), cores))
            .into(),
        rss_bytes: [("server", 148 << 20), ("database", 310 << 20), ("generator", 92 << 20)]
            .map(|(name, rss)| (name.to_owned(), rss))
            .into(),
    }
}

fn totals() -> Totals {
    Totals {
        sent: 1_234_567,
        answered: 1_234_000,
        delivered: 1_233_900,
        errors: BTreeMap::from([("rate_limited".to_owned(), 321), ("timeout".to_owned(), 5)]),
        ledger: LedgerCounts::default(),
        generator: Generator { threads: 2, busiest_thread: 0.634, lag_p99_ms: Some(0.42), saturated: None },
    }
}

fn running() -> State {
    let mut state = State::new(header());
    for at in 0..=42 {
        state.take(&moment(at), totals());
    }
    state
}

/// The page as lines of text.
fn drawn(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| render(frame, state)).unwrap();
    let cells = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| cells[(x, y)].symbol()).collect::<String>() + "\n";
    (0..height).map(row).collect()
}

fn assert_shows(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text:?} is not on the page:\n{page}");
    }
}

const ALWAYS: &[&str] = &[
    "sotto load",
    "pairs",
    "100 pairs, 8 in flight",
    "sotto at 127.0.0.1:8080",
    "measuring",
    "0:42 of 1:05, 0:23 left",
    "65 %",
    "sent",
    "answered",
    "delivered",
    "1,234,567 in all",
    "326 in all",
    "delivery",
    "worst/min",
    "1,234",
    "41.3",
    "800 in flight, 10,000 connections",
    "sent 0.420 ms late (p99)",
    "delivery, last minute: p50 and p99",
    "server",
    "0.82",
    "148 MiB",
    "database",
    "generator",
    "rate_limited",
    "321",
    "balances so far",
    "2 threads, busiest 63 %",
    "generator keeps up",
    " q  stop early",
];

#[test]
fn everything_fits_into_80_by_24() {
    let page = drawn(&running(), 80, 24);
    assert_shows(&page, ALWAYS);
    let sparks = page.lines().filter(|line| line.contains('█') || line.contains('▇')).count();
    assert!(sparks >= 3, "each rate has its line:\n{page}");
    assert!(page.chars().any(|dot| ('\u{2801}'..='\u{28ff}').contains(&dot)), "the chart has lines:\n{page}");
}

#[test]
fn a_large_terminal_shows_the_same_larger() {
    let page = drawn(&running(), 140, 45);
    assert_shows(&page, ALWAYS);
    assert_eq!(page.lines().count(), 45);
}

#[test]
fn a_run_that_begins_has_dashes_and_no_zeros_that_look_measured() {
    let page = drawn(&State::new(header()), 80, 24);
    assert_shows(&page, &["starting", "0:00 of 1:05", "–", "none"]);
    assert!(!page.contains("-60 s"), "no chart of nothing:\n{page}");
}

#[test]
fn what_went_wrong_is_seen() {
    let mut state = running();
    let codes = (1..=9).map(|code| (format!("code_{code}"), code));
    let ledger = LedgerCounts { duplicated: 2, reordered: 1500, ..LedgerCounts::default() };
    let saturated = Some("thread 0 at 99 %".to_owned());
    let generator = Generator { threads: 1, busiest_thread: 0.99, lag_p99_ms: None, saturated };
    state.take(&moment(43), Totals { errors: codes.collect(), ledger, generator, ..totals() });
    for (width, height) in [(80, 24), (140, 45)] {
        let page = drawn(&state, width, height);
        assert_shows(&page, &["duplicated 2", "reordered", "1,500", "code_9", "more", "saturated: thread 0 at"]);
        assert!(!page.contains("balances"), "{page}");
    }
}

#[test]
fn a_stop_is_confirmed_and_a_second_one_offered() {
    let mut state = running();
    state.stop();
    assert_shows(&drawn(&state, 80, 24), &["stopping: the last answers are awaited", "again: leave without waiting"]);
    state.stop();
    assert_shows(&drawn(&state, 80, 24), &["leaving"]);
}

#[test]
fn a_scenario_without_deliveries_shows_its_answers() {
    let mut state = State::new(header());
    for at in 0..=9 {
        state.take(
            &Moment { delivery_ms: None, cores: BTreeMap::new(), rss_bytes: BTreeMap::new(), ..moment(at) },
            totals(),
        );
    }
    assert_shows(&drawn(&state, 80, 24), &["answer, last minute: p50 and p99", "not on this machine"]);
}

#[test]
fn no_size_and_no_number_is_too_odd() {
    let mut state = running();
    let odd = Moment {
        at: 1e12,
        sent_per_second: f64::NAN,
        delivered_per_second: f64::INFINITY,
        delivery_ms: Some([0.0, f64::NAN, f64::INFINITY]),
        in_flight: u64::MAX,
        rss_bytes: BTreeMap::from([("a name that is longer than its column".to_owned(), u64::MAX)]),
        ..moment(43)
    };
    state.take(&odd, Totals { sent: u64::MAX, ..totals() });
    for (width, height) in [(1, 1), (10, 3), (50, 18), (51, 20), (79, 23), (300, 100)] {
        let _page = drawn(&state, width, height);
    }
    assert_shows(&drawn(&state, 40, 10), &["80×24 shows more"]);
}
