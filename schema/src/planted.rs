//! Bugs that a build for tests can be given, one per process, to show that the ledger of `sotto verify` finds them.
//!
//! Each stands at the one place where its rule is held, as `if planted::is(Bug::…)`. Without the feature
//! `planted-bugs` the answer is a constant "no", and nothing of them is left in the program.

/// A rule of delivery that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// On SQLite a batch is answered when all is written and nothing is committed.
    AnswerBeforeCommit,
    /// A payload that comes live is sent at once, whatever of the backlog is not (rule D2).
    PayloadBeforeBacklog,
    /// A page of `/v1/sync` begins behind what a socket was sent, acknowledged or not (rule D5).
    SyncFromSocket,
    /// No bug: a connection's number is claimed a while after its `hello`. Harmless by rule D7.
    SlowRegistration,
    /// The same, and the number is the server's next instead of the device's own (rule D7).
    UnfencedRegistration,
    /// The sweep reads the wakes above the last serial id on PostgreSQL, too (rule D1).
    SweepBySerialId,
    /// Whoever is not a member is refused without a look whether his message is stored (rule D8).
    KnownAfterMembership,
    /// A message that comes back because a version moved has used up a number (rule D11).
    VersionAfterNumbering,
    /// A known id is stored again. The database refuses that, too, by its unique index.
    NoDedupe,
    /// A connection begins one number behind the stored mark: one message is passed over.
    CursorAhead,
    /// A connection begins one number before the stored mark: one message comes again.
    CursorBehind,
    /// A one-time key is read, then deleted, under no lock.
    ClaimBySelect,
    /// An acknowledgement is confirmed before its mark is stored (rule D6).
    MarksToldBeforeCommit,
    /// Commits leave no wake behind (rule D1).
    NoWakes,
    /// Sockets of a session that was ended stay open.
    DeafToSignOut,
    /// What follows a message that waits for a locked conversation does not wait behind it.
    OvertakenAside,
    /// Each message of a conversation goes to whichever Journal has room, whatever is under way in another.
    TwoWays,
}

/// Every one of them, by the name that it is chosen by.
pub const ALL: &[(&str, Bug)] = &[
    ("answer_before_commit", Bug::AnswerBeforeCommit),
    ("payload_before_backlog", Bug::PayloadBeforeBacklog),
    ("sync_from_socket", Bug::SyncFromSocket),
    ("slow_registration", Bug::SlowRegistration),
    ("unfenced_registration", Bug::UnfencedRegistration),
    ("sweep_by_serial_id", Bug::SweepBySerialId),
    ("known_after_membership", Bug::KnownAfterMembership),
    ("version_after_numbering", Bug::VersionAfterNumbering),
    ("no_dedupe", Bug::NoDedupe),
    ("cursor_ahead", Bug::CursorAhead),
    ("cursor_behind", Bug::CursorBehind),
    ("claim_by_select", Bug::ClaimBySelect),
    ("marks_told_before_commit", Bug::MarksToldBeforeCommit),
    ("no_wakes", Bug::NoWakes),
    ("deaf_to_sign_out", Bug::DeafToSignOut),
    ("overtaken_aside", Bug::OvertakenAside),
    ("two_ways", Bug::TwoWays),
];

/// Whether this process has the bug.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
mod chosen {
    use super::{ALL, Bug};
    use crate::append::Outcome;
    use sotto_protocol::{ConversationId, DeviceId, Seq};
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};
    use std::time::Duration;
    use tokio::sync::oneshot;

    thread_local! {
        static ANSWER: RefCell<Option<oneshot::Sender<Outcome>>> = const { RefCell::new(None) };
    }

    static CHOSEN: OnceLock<Bug> = OnceLock::new();
    static SENT: LazyLock<Mutex<HashMap<(DeviceId, ConversationId), Seq>>> = LazyLock::new(Mutex::default);

    /// Whether this process has the bug.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        CHOSEN.get() == Some(&bug)
    }

    /// Gives this process a bug by its name, once; `false`: there is no such bug, or it has one.
    #[must_use]
    pub fn choose(name: &str) -> bool {
        let found = ALL.iter().find(|(known, _)| *known == name);
        found.is_some_and(|(_, bug)| CHOSEN.set(*bug).is_ok())
    }

    /// The name of this process' bug.
    #[must_use]
    pub fn name() -> Option<&'static str> {
        ALL.iter().find(|(_, bug)| is(*bug)).map(|(name, _)| *name)
    }

    /// Does work that may answer before it ends.
    pub fn with_answer<T>(answer: oneshot::Sender<Outcome>, work: impl FnOnce() -> T) -> T {
        ANSWER.set(Some(answer));
        let result = work();
        ANSWER.set(None);
        result
    }

    /// Answers now, and leaves what remains to a slow disk.
    #[allow(clippy::disallowed_methods, reason = "the thread is one that may block")]
    pub fn answer_early(outcome: &Outcome) {
        if let Some(answer) = ANSWER.take() {
            // Who asked waits for it.
            let _ = answer.send(outcome.clone());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Notes what a socket was sent.
    pub fn sent(device: DeviceId, conversation: ConversationId, seq: Seq) {
        SENT.lock().unwrap_or_else(PoisonError::into_inner).insert((device, conversation), seq);
    }

    /// What a device's sockets were sent here.
    #[must_use]
    pub fn sent_to(device: DeviceId, conversation: ConversationId) -> Seq {
        let sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(&(device, conversation)).copied().unwrap_or_default()
    }
}

#[cfg(feature = "planted-bugs")]
pub use chosen::{answer_early, choose, is, name, sent, sent_to, with_answer};
