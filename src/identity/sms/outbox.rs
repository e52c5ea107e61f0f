//! The carrier for tests and development: a file of JSON lines, on disk before the answer.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use sotto_protocol::Timestamp;
use zeroize::Zeroize;

use super::{SmsError, Text};

/// A file to which messages are appended.
#[derive(Debug)]
pub struct Outbox {
    file: Arc<Mutex<File>>,
}

#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    to: &'a str,
    body: &'a str,
    code: &'a str,
}

impl Outbox {
    /// Opens the file to append; made with mode 0600 when there is none, with its folder.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub fn open(path: &Path) -> Result<Self, SmsError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    /// Appends one line and waits until it is on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) async fn send(&self, text: &Text) -> Result<(), SmsError> {
        let line = Line { at: Timestamp::now(), to: text.to.as_str(), body: &text.body, code: text.code.expose() };
        let mut line = serde_json::to_vec(&line).map_err(std::io::Error::from)?;
        line.push(b'\n');
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            // One call, so that lines of two processes do not mix.
            let written = file.write_all(&line).and_then(|()| file.sync_data());
            line.zeroize();
            written
        });
        Ok(written.await.map_err(std::io::Error::other)??)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sms, tests::text};
    use super::*;

    #[tokio::test]
    async fn one_json_line_per_message_is_there_before_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("outbox.jsonl");
        let sms = Sms::outbox(Outbox::open(&path).unwrap());
        let texts = [text(), text()];
        for (index, text) in texts.iter().enumerate() {
            sms.reserve().unwrap().send(text.clone()).await.unwrap();
            let content = std::fs::read_to_string(&path).unwrap();
            assert_eq!(content.lines().count(), index + 1);
            let line: serde_json::Value = serde_json::from_str(content.lines().last().unwrap()).unwrap();
            assert_eq!(line["to"], "+15550000001");
            assert_eq!(line["code"], text.code.expose());
            assert_eq!(line["body"], text.body);
            let names: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
            assert_eq!(names.len(), 4);
            assert!(line["at"].as_str().unwrap().ends_with('Z'));
        }
    }
}
