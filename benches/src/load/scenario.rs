//! What a scenario is: whom it needs, what its threads do, and which figures it comes to.

mod connect;
mod fanout;
mod idle;
mod mix;
mod offline;
mod pairs;
mod rate;
mod storm;

use std::time::{Duration, Instant};

pub use self::mix::Long;
use super::LoadError;
use super::measured::Measured;
use super::number::{size, small};
use super::settings::Span;
use super::summary::Figure;
use super::worker::{Facts, Worker};

/// Connections that a thread opens at the same time where that is not what is measured.
const AT_ONCE: usize = 32;

/// A scenario.
pub trait Drive {
    /// Users that it needs.
    fn users(&self) -> usize;

    /// Members of each conversation; 1: conversations do not matter.
    fn members(&self) -> usize;

    /// Whether it lasts as long as the span says.
    fn has_span(&self) -> bool {
        true
    }

    /// Whether it sends messages.
    fn has_messages(&self) -> bool {
        true
    }

    /// Whether refusals are what it is there for.
    fn expects_refusals(&self) -> bool {
        false
    }

    /// What a generator thread does.
    ///
    /// # Errors
    /// When nothing can be measured.
    fn drive(&self, worker: &mut Worker, span: &Span) -> Result<Facts, LoadError>;

    /// What the run came to, the most telling first.
    fn figures(&self, run: &Measured) -> Vec<Figure>;
}

/// Connects all devices of a thread; none may fail.
///
/// # Errors
/// With the first reason.
fn everybody(worker: &mut Worker) -> Result<(), LoadError> {
    let all = worker.devices.len();
    worker.open_all(0..all, AT_ONCE)?;
    check(worker)
}

/// Whether a connection has failed so far.
///
/// # Errors
/// With the first reason.
fn check(worker: &mut Worker) -> Result<(), LoadError> {
    match worker.first_failure.take() {
        Some(reason) => Err(LoadError::Unreachable(reason)),
        None => Ok(()),
    }
}

/// Waits for all threads and tells what is measured: from when, until when.
///
/// # Errors
/// As [`Worker::meet`].
fn begin(worker: &mut Worker, span: &Span) -> Result<(Instant, Instant, Instant), LoadError> {
    let start = worker.meet()?;
    let from = start + Duration::from_secs(span.warmup);
    let until = from + Duration::from_secs(span.seconds);
    worker.span(from, until);
    Ok((start, from, until))
}

/// A thread's share of what all threads do at the same time.
fn share(worker: &Worker, at_once: u32, all: u32) -> usize {
    let share = u64::from(at_once) * u64::from(small(worker.devices.len()));
    size(share.div_ceil(u64::from(all).max(1)).max(1))
}

/// Devices of a thread that send: the first of each conversation, or all members.
fn senders(worker: &Worker, both: bool) -> Vec<usize> {
    (0..worker.devices.len()).filter(|index| both || index % 2 == 0).collect()
}
