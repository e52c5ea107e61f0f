//! What the view looks like, as a function of its state.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, BorderType, Chart, Dataset, GraphType, LineGauge, Padding, Paragraph, Sparkline, Wrap},
};
use sotto_harness::load::{
    LedgerCounts, Moment,
    text::{bytes, count, number, percent},
};

use super::state::{MINUTE, State};

/// Below this, nothing is readable.
const SMALLEST: (u16, u16) = (50, 18);

const SOFT: Color = Color::DarkGray;
const SENT: Color = Color::Gray;
const ANSWERED: Color = Color::Blue;
const DELIVERED: Color = Color::Green;
const BAD: Color = Color::Red;

/// Draws the whole page.
pub fn render(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("{} · {}\n80×24 shows more. q stops.", state.stage(), clock(state.elapsed()));
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, rates, latency, bottom, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(if area.height >= 36 { 10 } else { 6 }),
        Constraint::Min(6),
        Constraint::Length(if area.height >= 36 { 9 } else { 6 }),
        Constraint::Length(1),
    ])
    .areas(area);
    header(frame, head, state);
    rates_block(frame, rates, state);
    latency_block(frame, latency, state);
    let [processes, errors, ledger] = Layout::horizontal([
        Constraint::Length(32),
        Constraint::Fill(1),
        Constraint::Length(if area.width >= 110 { 44 } else { 28 }),
    ])
    .areas(bottom);
    process_block(frame, processes, state);
    error_block(frame, errors, state);
    ledger_block(frame, ledger, state);
    footer(frame, foot, state);
}

fn block(title: &str) -> Block<'_> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(Style::new().fg(SOFT))
        .padding(Padding::horizontal(1))
        .title(Span::styled(format!(" {title} "), Style::new().add_modifier(Modifier::BOLD)))
}

fn header(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let [names, stage, bar] = Layout::vertical([Constraint::Length(1); 3]).areas(area);
    let header = &state.header;
    let title = if header.title == header.scenario { String::new() } else { format!("  {}", header.title) };
    let name = Line::from(vec![" sotto load ".bold().reversed(), format!(" {}", header.scenario).bold(), title.into()]);
    let [left, right] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(names);
    frame.render_widget(name, left);
    frame.render_widget(Line::from(header.target.as_str()).fg(SOFT).alignment(Alignment::Right), right);

    let color = match state.stage() {
        "measuring" => DELIVERED,
        _ if state.stops > 0 => Color::Yellow,
        _ => Color::Cyan,
    };
    let remaining = (state.length() - state.elapsed()).max(0.0);
    let time = format!("{} of {}, {} left ", clock(state.elapsed()), clock(state.length()), clock(remaining));
    let width = u16::try_from(time.chars().count()).unwrap_or(u16::MAX);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(width)]).areas(stage);
    frame.render_widget(Line::from(format!(" {}", state.stage())).fg(color).bold(), left);
    frame.render_widget(Line::from(time).alignment(Alignment::Right), right);
    let bar = Layout::horizontal([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).split(bar);
    if let Some(middle) = bar.get(1) {
        let gauge = LineGauge::default()
            .ratio(state.progress())
            .label(percent(state.progress()))
            .filled_symbol("━")
            .unfilled_symbol("─")
            .filled_style(Style::new().fg(color))
            .unfilled_style(Style::new().fg(SOFT));
        frame.render_widget(gauge, *middle);
    }
}

/// One rate: its name, colour, value in a second, and total.
type Rate = (&'static str, Color, fn(&Moment) -> f64, u64);

fn rates_block(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let block = block("per second");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let errors = state.totals.errors.values().sum();
    let rates: [Rate; 4] = [
        ("sent", SENT, |moment| moment.sent_per_second, state.totals.sent),
        ("answered", ANSWERED, |moment| moment.answered_per_second, state.totals.answered),
        ("delivered", DELIVERED, |moment| moment.delivered_per_second, state.totals.delivered),
        ("errors", BAD, |moment| moment.errors_per_second, errors),
    ];
    // All but the errors have one scale, so that they can be compared.
    let highest = rates.iter().take(3).flat_map(|(_, _, rate, _)| state.last(usize::MAX, rate)).fold(0.0, f64::max);
    let rows = Layout::vertical([Constraint::Fill(1); 4]).split(inner);
    for ((name, color, rate, total), row) in rates.into_iter().zip(rows.iter()) {
        let [label, value, line, sum] = Layout::horizontal([
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Fill(1),
            Constraint::Length(19),
        ])
        .spacing(1)
        .areas(*row);
        let is_bad = name == "errors" && total > 0;
        let text = if name != "errors" || is_bad { Style::new().fg(color) } else { Style::new().fg(SOFT) };
        frame.render_widget(Line::styled(name, text), label);
        let now = state.now().map_or_else(|| "–".to_owned(), |moment| number(rate(moment)));
        frame.render_widget(Line::styled(now, text.add_modifier(Modifier::BOLD)).alignment(Alignment::Right), value);
        let data: Vec<u64> = state.last(line.width.into(), |moment| whole(rate(moment))).collect();
        let spark = Sparkline::default().data(data).style(text);
        let spark = if name == "errors" { spark } else { spark.max(whole(highest).max(1)) };
        frame.render_widget(spark, line);
        frame.render_widget(Line::from(format!("{} in all", count(total))).fg(SOFT).alignment(Alignment::Right), sum);
    }
}

/// The times of a second: median, 99th percentile, largest.
type Times = fn(&Moment) -> Option<[f64; 3]>;

fn latency_block(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let kinds: [(&str, Times); 2] = [("delivery", |moment| moment.delivery_ms), ("answer", |moment| moment.answer_ms)];
    let has_deliveries = state.last(usize::MAX, |moment| moment.delivery_ms.is_some()).any(|is_some| is_some);
    let [deliveries, answers] = kinds;
    let (name, drawn) = if has_deliveries { deliveries } else { answers };
    let block = block("latency in ms").title(
        Line::from(vec![
            format!(" {name}, last minute: ").into(),
            "p50".fg(DELIVERED),
            " and ".into(),
            "p99 ".fg(Color::Yellow),
        ])
        .alignment(Alignment::Right),
    );
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [table, chart] = Layout::horizontal([Constraint::Length(35), Constraint::Fill(1)]).spacing(1).areas(inner);
    let mut lines = vec![Line::from(format!("{:<11}{:>7} {:>7} {:>8}", "", "p50", "p99", "max")).fg(SOFT)];
    for (name, times) in kinds {
        lines.push(times_line(name, state.now().and_then(times)).bold());
        lines.push(times_line("  worst/min", state.worst(times)));
    }
    if let Some(now) = state.now() {
        let text = format!("{} in flight, {} connections", count(now.in_flight), count(now.connections));
        lines.push(Line::from(text));
    }
    frame.render_widget(Paragraph::new(lines), table);
    latency_chart(frame, chart, state, drawn);
}

fn times_line(name: &str, times: Option<[f64; 3]>) -> Line<'static> {
    let [p50, p99, max] = times.map_or_else(|| ["–"; 3].map(str::to_owned), |times| times.map(number));
    Line::from(vec![
        format!("{name:<11}").into(),
        format!("{p50:>7} ").fg(DELIVERED),
        format!("{p99:>7} ").fg(Color::Yellow),
        format!("{max:>8}").into(),
    ])
}

/// The last minute, on a logarithmic scale: a median of one and a peak of a thousand are both seen.
fn latency_chart(frame: &mut Frame<'_>, area: Rect, state: &State, times: Times) {
    let now = state.elapsed();
    let line = |part: usize| -> Vec<(f64, f64)> {
        let point = |moment: &Moment| Some((moment.at - now, times(moment)?.get(part)?.max(0.001).log10()));
        state.last(MINUTE, point).flatten().collect()
    };
    let (median, high) = (line(0), line(1));
    let values = || median.iter().chain(&high).map(|(_, value)| *value);
    if values().next().is_none() {
        return;
    }
    let lowest = values().fold(f64::INFINITY, f64::min) - 0.1;
    let highest = values().fold(f64::NEG_INFINITY, f64::max) + 0.1;
    let label = |power: f64| number(10_f64.powf(power));
    let marker = Marker::Braille;
    let dataset = |points, color| {
        Dataset::default().marker(marker).graph_type(GraphType::Line).style(Style::new().fg(color)).data(points)
    };
    let x = Axis::default().bounds([1.0 - seconds(MINUTE), 0.0]).style(Style::new().fg(SOFT)).labels(["-60 s", "now"]);
    let y = Axis::default().bounds([lowest, highest]).style(Style::new().fg(SOFT)).labels([
        label(lowest),
        label(lowest.midpoint(highest)),
        label(highest),
    ]);
    let chart = Chart::new(vec![dataset(&median, DELIVERED), dataset(&high, Color::Yellow)]).x_axis(x).y_axis(y);
    frame.render_widget(chart, area);
}

fn process_block(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let mut lines = Vec::new();
    if let Some(now) = state.now() {
        let mut names: Vec<&String> = now.cores.keys().chain(now.rss_bytes.keys()).collect();
        names.sort_by_key(|name| (*name == "generator", *name != "server", name.as_str()));
        names.dedup();
        for name in names {
            let cores = now.cores.get(name).map_or_else(|| "–".to_owned(), |cores| format!("{cores:.2}"));
            let memory = now.rss_bytes.get(name).map_or_else(|| "–".to_owned(), |rss| bytes(*rss));
            lines.push(Line::from(vec![
                format!("{name:<10.10}").into(),
                format!("{cores:>7}").bold(),
                format!("{memory:>11}").into(),
            ]));
        }
    }
    if lines.is_empty() {
        lines.push(Line::from("not on this machine").fg(SOFT));
    }
    frame.render_widget(Paragraph::new(lines).block(block("cores and memory")), area);
}

fn error_block(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let block = block("errors");
    let inner = block.inner(area);
    let errors = state.errors();
    let rows = usize::from(inner.height);
    let shown = if errors.len() > rows { rows.saturating_sub(1) } else { rows };
    let width = usize::from(inner.width);
    let mut lines: Vec<Line<'_>> = errors
        .iter()
        .take(shown)
        .map(|(code, amount)| {
            let amount = count(*amount);
            let room = width.saturating_sub(amount.len() + 1);
            Line::from(vec![format!("{code:<room$.room$} ").into(), amount.fg(BAD).bold()])
        })
        .collect();
    if errors.len() > shown {
        lines.push(Line::from(format!("and {} more", errors.len() - shown)).fg(SOFT));
    }
    if errors.is_empty() {
        lines.push(Line::from("none").fg(SOFT));
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn ledger_block(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let LedgerCounts { lost, duplicated, reordered, gaps, strange, unconfirmed, unanswered } = state.totals.ledger;
    let counts = [
        ("lost", lost),
        ("duplicated", duplicated),
        ("reordered", reordered),
        ("gaps", gaps),
        ("strange", strange),
        ("unconfirmed", unconfirmed),
        ("unanswered", unanswered),
    ];
    let broken: Vec<String> = counts
        .into_iter()
        .filter(|(_, amount)| *amount > 0)
        .map(|(name, amount)| format!("{name} {}", count(amount)))
        .collect();
    let ledger = if broken.is_empty() {
        Line::from("✓ balances so far").fg(DELIVERED)
    } else {
        Line::from(broken.join(", ")).fg(BAD).bold()
    };
    let generator = &state.totals.generator;
    let threads = if generator.threads == 1 { "thread" } else { "threads" };
    let mut lines = vec![ledger];
    match &generator.saturated {
        Some(reason) => lines.push(Line::from(format!("saturated: {reason}")).fg(Color::Yellow).bold()),
        None => lines.push(Line::from("generator keeps up").fg(SOFT)),
    }
    lines.push(Line::from(format!("{} {threads}, busiest {}", generator.threads, percent(generator.busiest_thread))));
    if let Some(lag) = generator.lag_p99_ms {
        lines.push(Line::from(format!("sent {} ms late (p99)", number(lag))));
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(block("ledger, generator")), area);
}

fn footer(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let text = match state.stops {
        0 => "stop early, in order: what was measured counts",
        1 => "again: leave without waiting",
        _ => "leaving",
    };
    let line = Line::from(vec![" q ".bold().reversed(), format!(" {text}").fg(SOFT)]);
    frame.render_widget(line, area);
}

/// `0:23`, `12:05`, `1:02:03`.
fn clock(seconds: f64) -> String {
    let seconds = whole(seconds);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{rest:02}") } else { format!("{minutes}:{rest:02}") }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::as_conversions,
    reason = "for the eye; it saturates"
)]
fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

fn seconds(length: usize) -> f64 {
    u32::try_from(length).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests;
