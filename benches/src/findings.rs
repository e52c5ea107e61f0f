//! What broke: ten promises, how often each was broken, and a few examples in words.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// Examples that are kept of each.
const EXAMPLES: usize = 5;

/// What a server promises to its clients, named after what happens when it does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// Acknowledged, and not in the log, or never given to a device that it is for; or never answered at all.
    Lost,
    /// Two numbers for one message, or two answers that say it was new.
    StoredTwice,
    /// Given again after its mark was confirmed, or twice on one connection.
    DeliveredTwice,
    /// Numbered or given in another order than it was sent.
    Reordered,
    /// A number left out, in the log, in a chain of `after_seq`, or on a connection.
    Gap,
    /// Another message at the same number, for two devices or for two reads.
    Different,
    /// A mark that was lower than before.
    MarkBack,
    /// A one-time key that was handed out twice, or came back.
    KeyTwice,
    /// A device that was signed out and served all the same.
    SessionAlive,
    /// Content or sender changed, and answers that the contract does not know.
    Altered,
}

impl Promise {
    /// All ten, in the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::StoredTwice,
        Self::DeliveredTwice,
        Self::Reordered,
        Self::Gap,
        Self::Different,
        Self::MarkBack,
        Self::KeyTwice,
        Self::SessionAlive,
        Self::Altered,
    ];

    /// As the readable table says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::StoredTwice => "stored twice",
            Self::DeliveredTwice => "delivered twice after a confirmed ack",
            Self::Reordered => "reordered",
            Self::Gap => "gaps",
            Self::Different => "different message at one seq",
            Self::MarkBack => "marks that went back",
            Self::KeyTwice => "one-time keys given twice",
            Self::SessionAlive => "sessions alive after revoke",
            Self::Altered => "altered",
        }
    }

    /// As JSON says it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::StoredTwice => "stored_twice",
            Self::DeliveredTwice => "delivered_twice",
            Self::Reordered => "reordered",
            Self::Gap => "gaps",
            Self::Different => "different",
            Self::MarkBack => "marks_back",
            Self::KeyTwice => "keys_twice",
            Self::SessionAlive => "sessions_alive",
            Self::Altered => "altered",
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Lost => 0,
            Self::StoredTwice => 1,
            Self::DeliveredTwice => 2,
            Self::Reordered => 3,
            Self::Gap => 4,
            Self::Different => 5,
            Self::MarkBack => 6,
            Self::KeyTwice => 7,
            Self::SessionAlive => 8,
            Self::Altered => 9,
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
struct Broken {
    count: u64,
    examples: Vec<String>,
}

/// How often each promise was broken. As JSON: `{"lost":{"count":0,"examples":[]},…}`.
#[derive(Clone, Debug, Default)]
pub struct Findings([Broken; 10]);

impl Findings {
    /// Notes a broken promise; the text is made only while examples are wanted.
    pub fn add(&mut self, promise: Promise, example: impl FnOnce() -> String) {
        if let Some(broken) = self.0.get_mut(promise.place()) {
            broken.count += 1;
            if broken.examples.len() < EXAMPLES {
                broken.examples.push(example());
            }
        }
    }

    /// Takes those of another book in.
    pub fn merge(&mut self, other: &Self) {
        for (own, others) in self.0.iter_mut().zip(&other.0) {
            own.count += others.count;
            let room = EXAMPLES.saturating_sub(own.examples.len());
            own.examples.extend(others.examples.iter().take(room).cloned());
        }
    }

    /// How often this one was broken.
    #[must_use]
    pub fn count(&self, promise: Promise) -> u64 {
        self.0.get(promise.place()).map_or(0, |broken| broken.count)
    }

    /// Whether none was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.0.iter().all(|broken| broken.count == 0)
    }

    /// Each with its count and a few examples.
    pub fn iter(&self) -> impl Iterator<Item = (Promise, u64, &[String])> {
        Promise::ALL.into_iter().zip(&self.0).map(|(promise, broken)| (promise, broken.count, &broken.examples[..]))
    }
}

impl Serialize for Findings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Promise::ALL.len()))?;
        for (promise, broken) in Promise::ALL.into_iter().zip(&self.0) {
            map.serialize_entry(promise.key(), broken)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_where_examples_end() {
        let mut findings = Findings::default();
        assert!(findings.is_clean());
        for number in 0..9 {
            findings.add(Promise::Gap, || format!("gap {number}"));
        }
        let mut all = Findings::default();
        all.add(Promise::Gap, || "first".to_owned());
        all.merge(&findings);
        assert_eq!((all.count(Promise::Gap), all.count(Promise::Lost)), (10, 0));
        let (_, _, examples) = all.iter().find(|(promise, ..)| *promise == Promise::Gap).unwrap();
        assert_eq!(examples, ["first", "gap 0", "gap 1", "gap 2", "gap 3"]);
        let text = serde_json::to_string(&all).unwrap();
        assert!(text.starts_with(r#"{"lost":{"count":0,"examples":[]},"stored_twice":"#), "{text}");
    }

    #[test]
    fn every_promise_has_a_place_and_a_name_of_its_own() {
        for (place, promise) in Promise::ALL.into_iter().enumerate() {
            assert_eq!(promise.place(), place);
        }
        let names: std::collections::HashSet<_> = Promise::ALL.into_iter().map(Promise::key).collect();
        assert_eq!(names.len(), 10);
    }
}
