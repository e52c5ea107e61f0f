//! The folder in which a node keeps what it has made itself.

use std::path::PathBuf;

use super::section::section;

section! {
    /// Files of this node.
    pub struct Data in "data" {
        /// Folder for the SQLite database, the secret key and the outbox. It is created when missing.
        /// `SOTTO_DATA__DIR`
        pub dir: PathBuf = PathBuf::from("data");
    }
}
