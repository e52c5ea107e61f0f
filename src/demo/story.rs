//! The printed story: one column of time, one of who, and what happened.

use std::io::Write;
use std::time::Instant;

const WIDTH: usize = 100;
const WHO: usize = 14;
/// Time, who, and the two spaces behind each.
const INDENT: usize = 9 + WHO + 2;
const SERVER: &str = "server";

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// Prints lines in the order in which things happened.
pub(super) struct Story {
    out: Box<dyn Write>,
    began: Instant,
    coloured: bool,
    /// What has happened and is not printed yet; things that happen at the same time are told by several tasks.
    lines: Vec<(Instant, String, String)>,
}

impl Story {
    /// A story whose clock starts at `began`.
    pub(super) fn new(out: Box<dyn Write>, coloured: bool, began: Instant) -> Self {
        Self { out, began, coloured, lines: Vec::new() }
    }

    /// The first line.
    pub(super) fn title(&mut self, text: &str) {
        let text = self.paint(BOLD, text);
        self.plain(&text);
    }

    /// Begins a scene.
    pub(super) fn scene(&mut self, text: &str) {
        self.flush();
        let text = self.paint(BOLD, text);
        self.plain("");
        self.plain(&text);
    }

    /// Tells what somebody did, now.
    pub(super) fn tell(&mut self, who: &str, text: impl Into<String>) {
        self.tell_at(Instant::now(), who, text);
    }

    /// Tells what the server did, now.
    pub(super) fn server(&mut self, text: impl Into<String>) {
        self.tell(SERVER, text);
    }

    /// Tells what was checked and found to be so.
    pub(super) fn holds(&mut self, text: &str) {
        self.tell("✓", text);
    }

    /// Tells what happened at a moment; printed in order by the next [`Story::flush`].
    pub(super) fn tell_at(&mut self, at: Instant, who: &str, text: impl Into<String>) {
        self.lines.push((at, who.to_owned(), text.into()));
    }

    /// Prints what has been told.
    pub(super) fn flush(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.sort_by_key(|(at, ..)| *at);
        for (at, who, text) in lines {
            let time = format!("+{:.3}s", at.saturating_duration_since(self.began).as_secs_f64());
            let time = self.paint(DIM, &format!("{time:<9}"));
            let name = self.paint(colour(&who), &format!("{who:<WHO$}"));
            for (index, part) in wrap(&text, WIDTH - INDENT).iter().enumerate() {
                let part = if who == "✓" { self.paint(GREEN, part) } else { part.clone() };
                let line = if index == 0 { format!("{time}{name}  {part}") } else { format!("{:INDENT$}{part}", "") };
                self.plain(&line);
            }
        }
    }

    /// Prints a line as it is.
    pub(super) fn plain(&mut self, line: &str) {
        // Nobody may be reading any more (`sotto demo | head`); the story goes on for its outcome.
        let _ = writeln!(self.out, "{}", line.trim_end()).and_then(|()| self.out.flush());
    }

    /// Prints a paragraph, wrapped.
    pub(super) fn paragraph(&mut self, text: &str) {
        for line in wrap(text, WIDTH) {
            self.plain(&line);
        }
    }

    /// Prints that the story ends here, with the end of the server's log.
    pub(super) fn failed(&mut self, log: &str) {
        let cross = self.paint(RED, "✗ the story ends here");
        self.plain("");
        self.plain(&cross);
        if !log.is_empty() {
            self.plain("the server's log ends with:");
            self.plain(log);
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured && !colour.is_empty() { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// One colour per person.
fn colour(who: &str) -> &'static str {
    match who.split('\'').next() {
        Some("Alice") => "35",
        Some("Bob") => "34",
        Some("Carol") => "36",
        Some("✓") => GREEN,
        _ => "33",
    }
}

/// Breaks a text between words; a word that is too long stands alone.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let needed = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && needed > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_keep_them_all() {
        let text = "one two three four five six seven";
        let lines = wrap(text, 10);
        assert!(lines.iter().all(|line| line.chars().count() <= 10), "{lines:?}");
        assert_eq!(lines.join(" "), text);
        assert_eq!(wrap("averyverylongword", 5), ["averyverylongword"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn what_happened_first_is_printed_first() {
        use std::io;
        use std::sync::{Arc, Mutex};
        use std::time::Duration;
        #[derive(Clone, Default)]
        struct Paper(Arc<Mutex<Vec<u8>>>);
        impl Write for Paper {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (paper, began) = (Paper::default(), Instant::now());
        let mut story = Story::new(Box::new(paper.clone()), false, began);
        story.tell_at(began + Duration::from_millis(412), "Bob's phone", "second");
        story.tell_at(began + Duration::from_millis(7), "server", "first ".repeat(30));
        story.flush();
        let printed = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        assert!(printed.starts_with("+0.007s  server          first first"), "{printed}");
        assert!(printed.ends_with("+0.412s  Bob's phone     second\n"), "{printed}");
        assert!(printed.lines().all(|line| line.chars().count() <= WIDTH), "{printed}");
    }
}
