//! How often something has happened in a span of time.

use std::time::{Duration, Instant};

/// Counts what happens in a span, and begins anew with the first that happens after it.
#[derive(Debug)]
pub struct Pace {
    count: u32,
    since: Instant,
}

impl Pace {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self { count: 0, since: Instant::now() }
    }

    /// Counts another; `false`: more than `most` in this span.
    pub fn another(&mut self, most: u32, span: Duration) -> bool {
        if self.since.elapsed() >= span {
            *self = Self::new();
        }
        self.count += 1;
        self.count <= most
    }
}
