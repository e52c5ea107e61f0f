//! The page of made-up runs: what it shows, what it hides, and that nothing in it can break out or reach out.

#![allow(clippy::as_conversions, reason = "made-up numbers are small")]

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::super::summary::{
    Better, Figure, Generator, LatencyFigures, LedgerCounts, Machine, Moment, ProcessFigures, Summary, Target, VERSION,
    Verdict,
};
use super::html;

/// A run that went well.
pub fn good(title: &str) -> Summary {
    Summary {
        version: VERSION,
        scenario: "pairs".to_owned(),
        title: title.to_owned(),
        started_at: "2026-11-27T06:14:03Z".to_owned(),
        settings: serde_json::json!({ "pairs": 100, "window": 8, "message": { "bytes": 256, "shared": true }, "threads": 1 }),
        machine: Machine {
            cores: 2,
            processor: "AMD EPYC 9R14".to_owned(),
            memory_bytes: 8 << 30,
            kernel: "6.1.0-42-cloud-amd64".to_owned(),
        },
        target: Target { urls: vec!["http://127.0.0.1:8080".to_owned()], protocol: "sotto".to_owned(), local: true },
        warmup_seconds: 5.0,
        seconds: 60.0,
        verdict: Verdict::Good,
        ledger: LedgerCounts::default(),
        errors: BTreeMap::new(),
        figures: vec![
            figure("delivered_per_second", "messages delivered", "/s", 35_874.0, Better::Higher, 0.03),
            figure("delivery_p50_ms", "send to delivered, median", "ms", 19.2, Better::Lower, 0.05),
            figure("delivery_p99_ms", "send to delivered, 99th percentile", "ms", 41.3, Better::Lower, 0.12),
            figure("cpu_seconds_per_1000", "CPU of server and database per 1,000", "s", 0.0338, Better::Lower, 0.02),
            figure("server_peak_mib", "server memory at most", "MiB", 148.0, Better::Lower, 0.0),
        ],
        latencies: vec![
            latency("send_to_delivered", "send to delivered", 19.2),
            latency("send_to_ok", "send to ok", 17.4),
        ],
        processes: vec![process("server", 0.82, 148), process("database", 0.51, 310), process("generator", 0.63, 92)],
        generator: Generator { threads: 1, busiest_thread: 0.63, lag_p99_ms: Some(0.42), saturated: None },
        series: (0..67).map(moment).collect(),
        steps: Vec::new(),
    }
}

fn broken() -> Summary {
    Summary {
        verdict: Verdict::Broken,
        ledger: LedgerCounts { lost: 3, reordered: 1204, ..LedgerCounts::default() },
        errors: BTreeMap::from([("rate_limited".to_owned(), 12), ("timeout".to_owned(), 340)]),
        ..good("nightly, with a bug")
    }
}

/// The run, with everything slower by a factor.
fn slower(title: &str, factor: f64) -> Summary {
    let mut summary = good(title);
    for figure in &mut summary.figures {
        let factor = if figure.better == Better::Higher { 1.0 / factor } else { factor };
        figure.value *= factor;
        figure.samples.iter_mut().for_each(|sample| *sample *= factor);
    }
    summary.latencies =
        vec![latency("send_to_delivered", "send to delivered", 19.2 * factor), latency("connect", "connect", 2.0)];
    for moment in &mut summary.series {
        moment.delivered_per_second /= factor;
        moment.delivery_ms = moment.delivery_ms.map(|times| times.map(|time| time * factor));
    }
    summary
}

fn figure(name: &str, title: &str, unit: &str, value: f64, better: Better, noise: f64) -> Figure {
    let samples = (0..10).map(|part| value * (1.0 + noise * f64::sin(f64::from(part) * 2.1))).collect();
    Figure { name: name.to_owned(), title: title.to_owned(), unit: unit.to_owned(), value, better, samples }
}

fn latency(name: &str, title: &str, median: f64) -> LatencyFigures {
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    for step in 0..200_000_u32 {
        // A long tail: most near the median, one of a thousand far away.
        let place = f64::from(step) / 200_000.0;
        let micros = median * 1000.0 * (0.6 + 0.8 * place + 0.02 / (1.000_01 - place).powf(0.55));
        histogram.record(micros as u64).unwrap();
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    LatencyFigures {
        name: name.to_owned(),
        title: title.to_owned(),
        count: histogram.len(),
        min_ms: histogram.min() as f64 / 1000.0,
        mean_ms: histogram.mean() / 1000.0,
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: histogram.max() as f64 / 1000.0,
        hdr: super::percentiles::tests::encoded(&histogram),
    }
}

fn process(name: &str, cores: f64, mib: u64) -> ProcessFigures {
    ProcessFigures {
        name: name.to_owned(),
        cpu_seconds: cores * 60.0,
        cores,
        cpu_seconds_per_1000: Some(cores / 35.874),
        rss_start_bytes: (mib << 20) / 2,
        rss_end_bytes: (mib << 20) - 4_000_000,
        rss_peak_bytes: mib << 20,
    }
}

fn moment(at: u32) -> Moment {
    let (wave, grown) = (f64::sin(f64::from(at) * 1.7) * 0.03, 1.0 - (-f64::from(at) / 3.0).exp());
    let rate = 35_874.0 * (grown + wave) * if at == 40 { 0.4 } else { 1.0 };
    let stall = if at == 40 { 6.0 } else { 1.0 };
    let mib = |base: f64| ((base * (0.6 + 0.4 * f64::from(at) / 67.0)) * 1_048_576.0) as u64;
    let cores = [("server", 0.82), ("database", 0.51), ("generator", 0.63)];
    Moment {
        at: f64::from(at),
        measured: (5..65).contains(&at),
        sent_per_second: rate * 1.002,
        answered_per_second: rate,
        delivered_per_second: rate * 0.999,
        errors_per_second: if at == 40 { 120.0 } else { 0.0 },
        in_flight: 800,
        connections: 200,
        answer_ms: Some([17.4, 38.0, 61.0].map(|time| time * stall * (1.0 + wave * 4.0))),
        delivery_ms: (at != 50).then(|| [19.2, 41.3, 70.0].map(|time| time * stall * (1.0 + wave * 4.0))),
        cores: cores.map(|(name, cores)| (name.to_owned(), cores * (grown + wave))).into(),
        rss_bytes: [("server", 148.0), ("database", 310.0), ("generator", 92.0)]
            .map(|(name, base)| (name.to_owned(), mib(base)))
            .into(),
    }
}

/// What is between the tags, without scripts, styles and the licence.
fn visible(page: &str) -> String {
    let mut text = page.split("<body").nth(1).unwrap().split("<script").next().unwrap().to_owned();
    if let Some((before, _)) = text.split_once("<pre>") {
        text = before.to_owned();
    }
    let mut plain = String::new();
    for piece in text.split('<').skip(1) {
        plain.push_str(piece.split_once('>').map_or("", |(_, rest)| rest));
        plain.push(' ');
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The points of the plots, as the page's script reads them.
fn points(page: &str) -> serde_json::Value {
    let json = page.split("id=\"plots\">").nth(1).unwrap().split("</script>").next().unwrap();
    serde_json::from_str(json).unwrap()
}

#[test]
fn one_run_shows_its_verdict_figures_and_plots() {
    let page = html(&[good("hundred pairs")]);
    let text = visible(&page);
    for expected in [
        "hundred pairs",
        "Good",
        "35,874 /s",
        "± 2.6 %, 34,919 to 36,803",
        "send to delivered",
        "AMD EPYC 9R14",
        "message.bytes 256",
        "1 min after 5 s warm-up",
        "148 MiB",
        "Nothing lost, nothing doubled, nothing out of order.",
        "lost 0",
        "None.",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }
    let points = points(&page);
    let names: Vec<&str> = points.as_array().unwrap().iter().map(|plot| plot["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["percentiles", "latency", "throughput", "memory", "processors", "in_flight", "connections"],
        "every plot has its points"
    );
    for name in names {
        assert!(page.contains(&format!("id=\"plot-{name}\"")), "{name} has a place");
    }
    let delivery = &points[1]["views"][0];
    assert_eq!(delivery["name"], "delivery");
    assert_eq!(delivery["lines"][2]["values"][50], serde_json::Value::Null, "a second without a delivery is a hole");
    assert_eq!(points[1]["shade"], serde_json::json!([[0.0, 5.0], [65.0, 67.0]]));
    assert!(!text.contains(" × "), "one run has nothing to be compared with");
}

#[test]
fn a_saturated_run_says_why() {
    let mut run = good("too fast");
    run.verdict = Verdict::Saturated;
    run.generator.saturated = Some("thread 0 was at work 99 % of the time".to_owned());
    let text = visible(&html(&[run]));
    assert!(text.contains("Saturated") && text.contains("thread 0 was at work 99 %") && text.contains("35,874"));
}

#[test]
fn a_broken_run_shows_its_ledger_and_no_figure() {
    let page = html(&[broken()]);
    let text = visible(&page);
    for expected in ["Broken", "does not balance", "lost 3", "reordered 1,204", "timeout 340", "rate_limited 12"] {
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }
    for figure in ["35,874", "19.2", "send to delivered", "p99", "Results", "148 MiB", "CPU", "Nothing lost"] {
        assert!(!text.contains(figure), "{figure:?} is in: {text}");
    }
    assert_eq!(points(&page), serde_json::json!([]), "no plot either");
    let mut contradicts_itself = broken();
    contradicts_itself.verdict = Verdict::Good;
    assert!(visible(&html(&[contradicts_itself])).contains("Broken"), "a ledger is believed before a verdict");
}

#[test]
fn several_runs_are_compared_with_the_first() {
    let page = html(&[good("before"), slower("after", 2.0), slower("again", 1.01), broken()]);
    let text = visible(&page);
    for expected in [
        "before and 3 others",
        "B 17,937 /s 0.500 × worse",
        "B 38.4 ms 2.00 × worse",
        "C 35,519 /s 0.990 × within noise",
        "D no figure",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }
    let points = points(&page);
    let throughput = points.as_array().unwrap().iter().find(|plot| plot["name"] == "throughput").unwrap();
    let view = &throughput["views"][0];
    assert_eq!(view["name"], "delivered");
    let names: Vec<&str> =
        view["lines"].as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["A", "B", "C"], "a line for each run that is whole");
}

#[test]
fn a_search_shows_its_steps() {
    let step = |rate: u64, p99: f64, why: &str| super::super::summary::Step {
        rate,
        delivered_per_second: rate as f64 * 0.99,
        p99_ms: Some(p99),
        holds: why.is_empty(),
        why: why.to_owned(),
    };
    let mut run = good("how far");
    run.steps = vec![step(4000, 12.5, ""), step(8000, 93.0, "p99 was over the bound")];
    let text = visible(&html(&[run.clone()]));
    for expected in ["1 4,000 3,960 12.5 holds", "2 8,000 7,920 93.0 p99 was over the bound"] {
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }
    run.ledger.lost = 1;
    assert!(!visible(&html(&[run])).contains("8,000"), "a broken run shows no figure");
    assert!(!visible(&html(&[good("x")])).contains("Search"));
}

#[test]
fn nothing_is_compared_with_a_broken_run() {
    let text = visible(&html(&[broken(), good("after")]));
    assert!(text.contains("35,874"));
    assert!(!text.contains(" × "), "{text}");
}

#[test]
fn settings_that_differ_stand_first() {
    let mut other = good("b");
    other.settings["window"] = 16.into();
    let page = html(&[good("a"), other]);
    let differs = page.split("class=\"differs\"").nth(1).unwrap().split("</tr>").next().unwrap();
    assert!(differs.contains("window") && differs.contains("<code>8</code>") && differs.contains("<code>16</code>"));
    assert_eq!(page.matches("class=\"differs\"").count(), 1);
}

#[test]
fn hostile_texts_stay_texts() {
    let hostile = "</script><!-- <script>alert(1)</script> \" onload='x' & </title></style>";
    let mut run = good(hostile);
    run.scenario = hostile.to_owned();
    run.started_at = hostile.to_owned();
    run.settings = serde_json::json!({ hostile: hostile });
    run.machine.processor = hostile.to_owned();
    run.target.urls = vec![hostile.to_owned()];
    run.target.protocol = hostile.to_owned();
    run.errors = BTreeMap::from([(hostile.to_owned(), 1)]);
    run.generator.saturated = Some(hostile.to_owned());
    run.figures[0].title = hostile.to_owned();
    run.figures[0].unit = hostile.to_owned();
    run.latencies[0].title = hostile.to_owned();
    run.processes[0].name = hostile.to_owned();
    run.series[9].cores = BTreeMap::from([(hostile.to_owned(), 1.0)]);

    for runs in [vec![run.clone()], vec![run.clone(), run]] {
        let (page, clean) = (html(&runs), html(&vec![good("x"); runs.len()]));
        for tag in ["<script", "</script", "<!--", "<style", "</style", "</title", "onload='"] {
            assert_eq!(page.matches(tag).count(), clean.matches(tag).count(), "{tag} came in from outside");
        }
        // And it is still there for the eye and for the plots.
        assert!(page.contains("&#60;script&#62;alert(1)"), "escaped in the text");
        assert!(points(&page).to_string().contains("<script>alert(1)"), "whole in the points");
    }
}

#[test]
fn the_page_reaches_out_for_nothing() {
    let page = html(&[good("x"), slower("y", 2.0)]);
    assert!(page.contains("Content-Security-Policy\" content=\"default-src 'none';"), "the browser enforces it");
    for loader in [
        "src=",
        "href=",
        "url(",
        "@import",
        "<link",
        "<img",
        "<iframe",
        "<object",
        "<embed",
        "<base",
        "srcset",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "EventSource",
        "sendBeacon",
        "import(",
        "new Image",
    ] {
        assert!(!page.contains(loader), "{loader} loads something");
    }
    for (place, _) in page.match_indices("http://").chain(page.match_indices("https://")) {
        let before = page[..place].chars().next_back().unwrap();
        let comment = page[..place].ends_with("/*! ");
        let text = !page[..place].ends_with('"') && (before == ' ' || before == '>') && !page[..place].ends_with("= ");
        assert!(comment || text, "…{}", &page[place.saturating_sub(40)..place + 40]);
    }
}

#[test]
fn no_run_and_empty_runs_make_a_page() {
    assert!(visible(&html(&[])).contains("No run"));
    let mut empty = good("empty");
    (empty.figures, empty.latencies, empty.processes, empty.series) = (vec![], vec![], vec![], vec![]);
    assert!(visible(&html(&[empty])).contains("lost 0"));
    let mut odd = good("odd");
    odd.figures[0].value = f64::NAN;
    odd.figures[0].samples = vec![f64::INFINITY, -1.0];
    odd.latencies[0].hdr = "rubbish".to_owned();
    odd.series[3].at = f64::NAN;
    odd.series[4].at = 1e300;
    let page = html(&[odd]);
    assert!(visible(&page).contains("The histogram of send to delivered cannot be read."));
    assert!(points(&page)[1]["views"][0]["x"].as_array().unwrap().len() <= 1500);
}

/// For the eye: `cargo test -p sotto-harness pages_to_look_at -- --ignored`, then open them from `target/`.
#[test]
#[ignore = "writes pages to look at"]
fn pages_to_look_at() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/report");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, runs: &[Summary]| std::fs::write(folder.join(name), html(runs)).unwrap();
    let mut saturated = good("a rate that is too high for one thread");
    saturated.verdict = Verdict::Saturated;
    saturated.generator.saturated = Some("thread 0 was at work 99 % of the time".to_owned());
    write("good.html", &[good("100 pairs, 8 in flight, PostgreSQL")]);
    write("saturated.html", &[saturated]);
    write("broken.html", &[broken()]);
    write("compare.html", &[good("before"), slower("after", 1.6), slower("again", 1.01), broken()]);
}
