//! The Journals of a node: home ones, among which the conversations are parted, and near ones, one to a thread.

use super::{Journal, Near, Route};
use crate::node::Node;
use actix::{Actor, Addr};
use sotto_protocol::ConversationId;
use std::sync::atomic::{AtomicUsize, Ordering};
use thread_local::ThreadLocal;

/// So many threads may have a Journal of their own, or as many as there are home Journals if these are more.
const NEAR: usize = 2;

/// All of them. Near ones start with the first conversation of their thread.
#[derive(Debug)]
pub struct Journals {
    first: Addr<Journal>,
    others: Vec<Addr<Journal>>,
    near: ThreadLocal<Option<Near>>,
    /// How many more threads may have one.
    room: AtomicUsize,
}

impl Journals {
    /// Starts the home Journals on the calling arbiter, one at least. Its thread needs no near one.
    #[must_use]
    pub fn start(node: &Node, count: usize) -> Self {
        let room = if node.store().takes_two_writers() { NEAR.max(count) } else { 0 };
        let near = ThreadLocal::new();
        near.get_or(|| None);
        Self {
            first: Journal::new(node.clone()).start(),
            others: (1..count).map(|_| Journal::new(node.clone()).start()).collect(),
            near,
            room: AtomicUsize::new(room),
        }
    }

    /// Which home Journal cares for what has this id.
    #[must_use]
    pub fn place_of(&self, id: &[u8; 16]) -> usize {
        usize::from(id.last().copied().unwrap_or_default()) % (1 + self.others.len())
    }

    /// A home Journal by its place.
    #[must_use]
    pub fn home(&self, place: usize) -> &Addr<Journal> {
        place.checked_sub(1).and_then(|place| self.others.get(place)).unwrap_or(&self.first)
    }

    /// The ways of a conversation that lives on the calling thread.
    #[must_use]
    pub fn route(&self, node: &Node, conversation: ConversationId) -> Route {
        let home = self.home(self.place_of(conversation.as_bytes()));
        Route::new(home.clone(), self.near(node).cloned())
    }

    fn near(&self, node: &Node) -> Option<&Near> {
        let take_room = || self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1));
        let start = || take_room().ok().map(|_| Near::new(Journal::new(node.clone()).start()));
        self.near.get_or(start).as_ref()
    }

    /// Every one that has started.
    pub fn all(&self) -> impl Iterator<Item = &Addr<Journal>> {
        std::iter::once(&self.first).chain(&self.others).chain(self.near.iter().flatten().map(Near::journal))
    }
}
