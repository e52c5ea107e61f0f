//! What the command line of the power cut may say.

use crate::support::database::Kind;

/// A promise of the storage that is taken away, to see the loss found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// The drive answers flushes and does not do them.
    Drive,
    /// PostgreSQL does not wait for the disk, ever.
    Fsync,
    /// PostgreSQL answers before the log is on the disk.
    Commit,
}

pub struct Arguments {
    /// Images per database.
    pub copies: usize,
    pub seed: u64,
    pub databases: Vec<Kind>,
    /// Direct conversations, with two senders each.
    pub pairs: usize,
    pub spoil: Option<Spoil>,
}

pub enum Wanted {
    Run(Arguments),
    /// The test runner asks what there is.
    List,
    /// A filter names other tests.
    Nothing,
    Mistake(String),
}

impl Arguments {
    /// Options of the test runner that mean nothing here are passed over, since one command line serves all programs.
    pub fn read(mut given: impl Iterator<Item = String>) -> Wanted {
        let seed = u64::from(std::process::id()) * 7919 + 17;
        let both = vec![Kind::Sqlite, Kind::Postgres];
        let mut arguments = Self { copies: 2, seed, databases: both, pairs: 10, spoil: None };
        while let Some(word) = given.next() {
            let mut value = || given.next().unwrap_or_default();
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{word} takes a number, not {text:?}"));
            let read = match word.as_str() {
                "--copies" => number(value()).map(|number| arguments.copies = number as usize),
                "--pairs" => number(value()).map(|number| arguments.pairs = number.max(1) as usize),
                "--seed" => number(value()).map(|number| arguments.seed = number),
                "--database" => databases(&value()).map(|kinds| arguments.databases = kinds),
                "--spoil" => spoil(&value()).map(|spoil| arguments.spoil = Some(spoil)),
                "--list" => return Wanted::List,
                "--skip" | "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => {
                    value();
                    Ok(())
                }
                word if word.starts_with('-') => Ok(()),
                filter if "power_cut".contains(filter) => Ok(()),
                _ => return Wanted::Nothing,
            };
            if let Err(text) = read {
                return Wanted::Mistake(text);
            }
        }
        Wanted::Run(arguments)
    }
}

fn databases(name: &str) -> Result<Vec<Kind>, String> {
    match name {
        "sqlite" => Ok(vec![Kind::Sqlite]),
        "postgres" => Ok(vec![Kind::Postgres]),
        "both" => Ok(vec![Kind::Sqlite, Kind::Postgres]),
        _ => Err(format!("--database is sqlite, postgres or both, not {name:?}")),
    }
}

fn spoil(name: &str) -> Result<Spoil, String> {
    match name {
        "drive" => Ok(Spoil::Drive),
        "fsync" => Ok(Spoil::Fsync),
        "commit" => Ok(Spoil::Commit),
        _ => Err(format!("--spoil is drive, fsync or commit, not {name:?}")),
    }
}
