//! Looks for byte strings in all files of a folder.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The strings are found by their first eight bytes.
const HEAD: usize = 8;

/// What is looked for.
#[derive(Default)]
pub(super) struct Needles {
    by_head: HashMap<[u8; HEAD], Vec<Vec<u8>>>,
    /// How they begin, for a quick no: most places in a file begin nothing.
    pairs: HashSet<[u8; 2]>,
}

/// What was found where.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// How many files were read.
    pub(super) files: usize,
    /// How many bytes.
    pub(super) bytes: usize,
    /// The names of files with a needle in them, once for each place.
    pub(super) places: Vec<String>,
}

impl Needles {
    /// Looks for some bytes; fewer than eight are not looked for.
    pub(super) fn add(&mut self, needle: &[u8]) {
        if let (Some(head), Some(pair)) = (needle.first_chunk::<HEAD>(), needle.first_chunk::<2>()) {
            self.pairs.insert(*pair);
            self.by_head.entry(*head).or_default().push(needle.to_vec());
        }
    }

    /// Looks for a text: as it is, as UTF-16, and in base64 at each of the three places where it can begin.
    pub(super) fn add_text(&mut self, text: &str) {
        self.add(text.as_bytes());
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.add(&utf16);
        for before in [&[][..], &[0], &[0, 0]] {
            let shifted = [before, text.as_bytes()].concat();
            let whole = shifted.len() / 3 * 3;
            let encoded = URL_SAFE_NO_PAD.encode(shifted.get(..whole).unwrap_or_default());
            // The first group of four may hold bytes from before the text.
            self.add(encoded.as_bytes().get(4..).unwrap_or_default());
        }
    }

    /// Reads every file below a folder.
    pub(super) fn scan(&self, folder: &Path) -> io::Result<Found> {
        let mut found = Found::default();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let bytes = fs::read(&path)?;
                found.files += 1;
                found.bytes += bytes.len();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.places.extend(std::iter::repeat_n(name, self.count(&bytes)));
            }
        }
        Ok(found)
    }

    fn count(&self, bytes: &[u8]) -> usize {
        let mut begins = vec![false; 1 << 16];
        for pair in &self.pairs {
            if let Some(begins) = begins.get_mut(usize::from(u16::from_be_bytes(*pair))) {
                *begins = true;
            }
        }
        let mut count = 0;
        let mut pair = 0_u16;
        for (end, byte) in bytes.iter().enumerate() {
            pair = pair << 8 | u16::from(*byte);
            if !begins.get(usize::from(pair)).is_some_and(|begins| *begins) {
                continue;
            }
            let rest = bytes.get(end.saturating_sub(1)..).unwrap_or_default();
            let Some(needles) = rest.first_chunk::<HEAD>().and_then(|head| self.by_head.get(head)) else { continue };
            count += needles.iter().filter(|needle| rest.starts_with(needle)).count();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_every_form_that_a_careless_program_would_write() {
        let text = "meet me at the old mill at nine";
        let mut needles = Needles::default();
        needles.add_text(text);
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let padded = |before: &str| URL_SAFE_NO_PAD.encode(format!("{before}{text} and more")).into_bytes();
        let forms = [text.as_bytes().to_vec(), utf16, padded(""), padded("a"), padded("ab"), padded("abc")];
        for form in forms {
            let file = [&b"before "[..], &form, b" after"].concat();
            assert!(needles.count(&file) > 0, "{file:?}");
        }
        assert_eq!(needles.count(b"meet me at the new mill at nine"), 0);
    }

    #[test]
    fn all_files_of_all_folders_are_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("a"), "nothing to see").unwrap();
        fs::write(folder.path().join("inner/b"), "plaintext! plaintext!").unwrap();
        let mut needles = Needles::default();
        needles.add(b"plaintext");
        let found = needles.scan(folder.path()).unwrap();
        assert_eq!((found.files, found.bytes), (2, 35));
        assert_eq!(found.places, ["b", "b"]);
    }
}
