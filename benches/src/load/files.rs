//! A result read from its file, and its histograms as other tools read them.

use super::summary::{LatencyFigures, Summary, VERSION};

impl Summary {
    /// Reads `summary.json`.
    ///
    /// # Errors
    /// When it is none, or of another version, in words.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => return Err(format!("a summary of version {version}; this program reads {VERSION}")),
            None => return Err("not a summary of `sotto load`".to_owned()),
        }
        serde_json::from_value(value).map_err(|error| format!("not a summary of `sotto load`: {error}"))
    }
}

impl LatencyFigures {
    /// The histogram as an HDR log of one interval, in microseconds.
    #[must_use]
    pub fn hlog(&self, of: &Summary) -> String {
        format!(
            "#[{} of {}, microseconds, begun {}]\n#[Histogram log format version 1.3]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n\
             {:.3},{:.3},{:.3},{}\n",
            self.title,
            of.title.replace(['\n', '\r'], " "),
            of.started_at,
            of.warmup_seconds,
            of.seconds,
            self.max_ms * 1000.0,
            self.hdr
        )
    }
}

impl Summary {
    /// A figure by its name.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<&super::summary::Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }
}
