//! Which Journal a conversation hands its messages to.

use super::Journal;
use crate::pressure::Pressure;
use actix::Addr;
use sotto_schema::planted::{self, Bug};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Messages that a near Journal takes at the same time: one for each of its lanes. Behind more of them a message would
/// wait longer than in company.
const PLACES: usize = 2;

/// A Journal on the thread of those who use it.
#[derive(Clone, Debug)]
pub struct Near {
    journal: Addr<Journal>,
    taken: Arc<AtomicUsize>,
}

impl Near {
    /// With nothing under way.
    #[must_use]
    pub fn new(journal: Addr<Journal>) -> Self {
        Self { journal, taken: Arc::default() }
    }

    /// The Journal.
    #[must_use]
    pub const fn journal(&self) -> &Addr<Journal> {
        &self.journal
    }

    fn has_room(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < PLACES
    }

    fn place(&self) -> Place {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(&self.taken))
    }
}

/// A message under way in a near Journal, for as long as this lives.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A conversation's two ways to the database: its home Journal, which gathers what many conversations send, and where
/// there is little to gather, the one on its own thread, which nobody has to wake.
#[derive(Debug)]
pub struct Route {
    home: Addr<Journal>,
    near: Option<Near>,
    is_near: bool,
}

impl Route {
    /// Home, until something else is chosen.
    #[must_use]
    pub const fn new(home: Addr<Journal>, near: Option<Near>) -> Self {
        Self { home, near, is_near: false }
    }

    /// The Journal for marks: they are better gathered.
    #[must_use]
    pub const fn home(&self) -> &Addr<Journal> {
        &self.home
    }

    /// Chooses for the next message. What follows a message that is still under way goes the same way, so that it does
    /// not pass it by.
    pub fn choose(&mut self, is_any_under_way: bool, pressure: &Pressure) -> (&Addr<Journal>, Option<Place>) {
        if !is_any_under_way || planted::is(Bug::TwoWays) {
            self.is_near = pressure.is_light() && self.near.as_ref().is_some_and(Near::has_room);
        }
        match &self.near {
            Some(near) if self.is_near => (&near.journal, Some(near.place())),
            _ => (&self.home, None),
        }
    }
}
