//! Rotating the secret keys under load: a new key in front of the file, then every sealed cell anew, in batches.
//!
//! Nothing waits for it and nothing is lost by it. A node that meets a cell or a token of the new key reads the key file
//! again; a cell that somebody changes meanwhile is left as he wrote it. Killed half-way, the next run goes on with the
//! same key: a new one is made only when there is nothing left to seal with the newest.

use std::time::Duration;

use ring::rand::SystemRandom;
use sotto_protocol::Timestamp;
use sotto_schema::rows::sealed::SealedColumn;
use sotto_schema::{Store, StoreError};
use uuid::Uuid;

use super::sealed::{self, SealError};
use super::secret_key::{SecretKeyError, SecretKeys};

/// Longer than a running node takes to see a new key (`sweep`): until then it may seal with the one before.
const NODES_LOOK: Duration = Duration::from_secs(4);
/// Cells that do not open of which the place is kept; the others are only counted.
const MOST_NAMED: usize = 20;

/// Why a rotation did not come to its end. What was done stays done.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] SecretKeyError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The newest key does not seal yet.
    #[error("the key {kid} seals from {from} on; nothing can be sealed with it before")]
    TooEarly {
        /// The key.
        kid: String,
        /// From when.
        from: Timestamp,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// What a rotation is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Whether a new key may be made; else cells are sealed with the newest that is there.
    pub new_key: bool,
    /// Cells that are sealed in one transaction.
    pub batch: u32,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Cells that were looked at.
    pub done: u64,
    /// These, and the cells that were sealed with another key when the present pass began.
    pub total: u64,
}

/// A cell that does not open, so that it could not be sealed anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unopened {
    /// Table and column.
    pub column: &'static str,
    /// The row.
    pub row: Uuid,
    /// Why.
    pub error: SealError,
}

/// What a rotation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotated {
    /// The key that everything is sealed with now.
    pub kid: String,
    /// Whether it was made by this run.
    pub is_new: bool,
    /// Cells that were sealed anew.
    pub resealed: u64,
    /// How many cells do not open; they stay as they were.
    pub unopened: u64,
    /// Some of them.
    pub named: Vec<Unopened>,
}

/// The cells of one column that each key has sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Table and column.
    pub column: SealedColumn,
    /// The key.
    pub key_id: String,
    /// How many.
    pub cells: u64,
}

/// Which key has sealed how many cells.
///
/// # Errors
/// The database failed.
pub async fn counts(store: &Store) -> Result<Vec<Sealed>, StoreError> {
    let mut all = Vec::new();
    for column in SealedColumn::ALL {
        for count in store.sealed_counts(column).await? {
            let cells = u64::try_from(count.cells).unwrap_or(0);
            all.push(Sealed { column, key_id: count.key_id, cells });
        }
    }
    Ok(all)
}

/// Seals all cells with the newest key; if there was nothing to do, makes a new key and seals all cells with that.
///
/// # Errors
/// Key file or database failed; the next run goes on.
pub async fn rotate(
    store: &Store,
    keys: &SecretKeys,
    plan: Plan,
    mut progress: impl FnMut(Progress),
) -> Result<Rotated, RotationError> {
    if let Some((set, from)) = keys.waiting(Timestamp::now()) {
        return Err(RotationError::TooEarly { kid: set.kid().to_owned(), from });
    }
    let mut rotation = Rotation {
        store,
        keys,
        random: SystemRandom::new(),
        batch: plan.batch,
        seen: Progress::default(),
        outcome: Rotated { kid: keys.active().kid().to_owned(), ..Rotated::default() },
    };
    rotation.pass(&mut progress).await?;
    if plan.new_key && rotation.outcome.resealed == 0 {
        rotation.outcome.kid = keys.add(None)?;
        rotation.outcome.is_new = true;
        rotation.pass(&mut progress).await?;
        // What a node has sealed with the key before until it saw the new one.
        tokio::time::sleep(NODES_LOOK).await;
        rotation.pass(&mut progress).await?;
    }
    Ok(rotation.outcome)
}

struct Rotation<'a> {
    store: &'a Store,
    keys: &'a SecretKeys,
    random: SystemRandom,
    batch: u32,
    seen: Progress,
    outcome: Rotated,
}

impl Rotation<'_> {
    /// Goes through all columns once.
    async fn pass(&mut self, progress: &mut impl FnMut(Progress)) -> Result<(), RotationError> {
        (self.outcome.unopened, self.outcome.named) = (0, Vec::new());
        let others = counts(self.store).await?.into_iter().filter(|sealed| sealed.key_id != self.outcome.kid);
        self.seen.total = self.seen.done + others.map(|sealed| sealed.cells).sum::<u64>();
        progress(self.seen);
        for column in SealedColumn::ALL {
            let mut after = Uuid::nil();
            loop {
                let kid = self.outcome.kid.clone();
                let rows = self.store.sealed_with_others(column, kid, after, self.batch.into()).await?;
                let Some(last) = rows.last() else { break };
                after = last.id;
                let count = rows.len();
                let mut cells = Vec::with_capacity(count);
                for row in &rows {
                    match sealed::reseal(self.keys, &self.random, column, row) {
                        Ok(cell) => cells.push(cell),
                        Err(SealError::Random) => return Err(RotationError::Random),
                        Err(error) => self.note(column, row.id, error),
                    }
                }
                let changed = self.store.reseal(column, cells, Timestamp::now()).await?;
                self.outcome.resealed += u64::try_from(changed).unwrap_or(0);
                self.seen.done += u64::try_from(count).unwrap_or(0);
                progress(self.seen);
            }
        }
        Ok(())
    }

    fn note(&mut self, column: SealedColumn, row: Uuid, error: SealError) {
        self.outcome.unopened += 1;
        if self.outcome.named.len() < MOST_NAMED {
            self.outcome.named.push(Unopened { column: column.as_str(), row, error });
        }
    }
}
