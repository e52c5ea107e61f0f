//! Turns for hashes of PINs: each takes 19 MiB and some 20 ms of a core, so a node computes two at a time.
//!
//! Networks take turns, so that one that asks for many hashes delays itself and not the others. One account has one place, in work or
//! in the queue. *When full:* a request beyond the bounds, or one that has waited for five seconds, is refused with 503. *On death:*
//! nothing is lost, the request fails.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sotto_protocol::UserId;
use sotto_protocol::problem::Problem;
use tokio::sync::oneshot;

use crate::error::ApiError;

/// Hashes that a node computes at a time.
const AT_ONCE: usize = 2;
/// Requests of one network that may wait.
const MOST_PER_NETWORK: usize = 8;
/// Networks that may wait.
const MOST_NETWORKS: usize = 256;
/// Delay after which a request that still waits is refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// Admits hashes one after the other.
#[derive(Clone, Debug)]
pub(super) struct Hashing {
    queue: Arc<Mutex<Queue>>,
    patience: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    running: usize,
    /// Accounts that have a place, in work or in the queue.
    accounts: HashSet<UserId>,
    /// The network whose turn is next stands first.
    waiting: VecDeque<(IpAddr, VecDeque<oneshot::Sender<Turn>>)>,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { queue: Arc::default(), patience: PATIENCE }
    }
}

/// The right to compute one hash; ends with this value.
#[derive(Debug)]
struct Turn(Arc<Mutex<Queue>>);

impl Drop for Turn {
    fn drop(&mut self) {
        let queue = Arc::clone(&self.0);
        with(&queue, |state| state.running = state.running.saturating_sub(1));
        pass_on(&queue);
    }
}

/// The place of an account; ends with this value.
struct Place {
    queue: Arc<Mutex<Queue>>,
    user_id: UserId,
}

impl Drop for Place {
    fn drop(&mut self) {
        with(&self.queue, |state| state.accounts.remove(&self.user_id));
    }
}

fn with<T>(queue: &Mutex<Queue>, work: impl FnOnce(&mut Queue) -> T) -> T {
    work(&mut queue.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Gives free turns to those who wait, one network after the other.
fn pass_on(queue: &Arc<Mutex<Queue>>) {
    loop {
        let next = with(queue, |state| {
            if state.running >= AT_ONCE {
                return None;
            }
            let (network, mut requests) = state.waiting.pop_front()?;
            let next = requests.pop_front();
            if !requests.is_empty() {
                state.waiting.push_back((network, requests));
            }
            state.running += 1;
            next
        });
        let Some(next) = next else {
            return;
        };
        // Outside the lock: one who has gone gives the turn back at once.
        drop(next.send(Turn(Arc::clone(queue))));
    }
}

fn busy() -> ApiError {
    Problem::unavailable("too many PINs are being compared").retry_after(1000).into()
}

impl Hashing {
    /// Does the work on a thread for such work, when it is its turn. The work runs to its end, and keeps its turn, even if nobody
    /// waits for it any more.
    ///
    /// # Errors
    /// 503 when the account has a place already, when too many wait, or when the turn did not come.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        user_id: UserId,
        network: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let (place, turn) = self.line_up(user_id, network).ok_or_else(busy)?;
        let turn = tokio::time::timeout(self.patience, turn).await.map_err(|_| busy())?.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop((turn, place));
            done
        });
        done.await.map_err(|_| busy())
    }

    fn line_up(&self, user_id: UserId, network: IpAddr) -> Option<(Place, oneshot::Receiver<Turn>)> {
        let (sender, turn) = oneshot::channel();
        let is_in = with(&self.queue, |state| {
            if state.accounts.contains(&user_id) {
                return false;
            }
            let is_full = state.waiting.len() >= MOST_NETWORKS;
            match state.waiting.iter_mut().find(|(known, _)| *known == network) {
                Some((_, requests)) if requests.len() >= MOST_PER_NETWORK => return false,
                Some((_, requests)) => requests.push_back(sender),
                None if is_full => return false,
                None => state.waiting.push_back((network, VecDeque::from([sender]))),
            }
            state.accounts.insert(user_id)
        });
        if !is_in {
            return None;
        }
        let place = Place { queue: Arc::clone(&self.queue), user_id };
        pass_on(&self.queue);
        Some((place, turn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Fills both turns until the receivers are sent to.
    fn fill(hashing: &Hashing) -> Vec<(Place, oneshot::Receiver<Turn>)> {
        (0..AT_ONCE).map(|_| hashing.line_up(UserId::random(), network(200)).unwrap()).collect()
    }

    #[tokio::test]
    async fn two_at_a_time_and_one_of_an_account() {
        let hashing = Hashing::default();
        let user = UserId::random();
        let (place, mut first) = hashing.line_up(user, network(1)).unwrap();
        let (_place, mut second) = hashing.line_up(UserId::random(), network(1)).unwrap();
        let (_other, mut third) = hashing.line_up(UserId::random(), network(2)).unwrap();
        let turn = first.try_recv().unwrap();
        assert!(second.try_recv().is_ok_and(|turn| {
            assert!(third.try_recv().is_err(), "two are in work");
            drop(turn);
            true
        }));
        assert!(third.try_recv().is_ok());
        assert!(hashing.line_up(user, network(3)).is_none(), "the account has a place");
        drop((turn, place));
        assert!(hashing.line_up(user, network(3)).is_some());
    }

    #[tokio::test]
    async fn networks_take_turns() {
        let hashing = Hashing::default();
        let held: Vec<_> =
            fill(&hashing).into_iter().map(|(place, mut turn)| (place, turn.try_recv().unwrap())).collect();
        let mut greedy: Vec<_> =
            (0..MOST_PER_NETWORK).map(|_| hashing.line_up(UserId::random(), network(1)).unwrap()).collect();
        assert!(hashing.line_up(UserId::random(), network(1)).is_none(), "the network has as many as it may");
        let (_place, mut honest) = hashing.line_up(UserId::random(), network(2)).unwrap();
        drop(held);
        let begun: Vec<_> = greedy.iter_mut().filter_map(|(_, turn)| turn.try_recv().ok()).collect();
        assert_eq!(begun.len(), 1, "the second turn is the other network's");
        assert!(honest.try_recv().is_ok());
    }

    #[tokio::test]
    async fn one_who_has_gone_blocks_nobody() {
        let hashing = Hashing { patience: Duration::from_millis(10), ..Hashing::default() };
        let held = fill(&hashing);
        let ApiError(problem) = hashing.run(UserId::random(), network(1), || ()).await.unwrap_err();
        assert_eq!(problem.status, 503);
        drop(held);
        assert!(hashing.run(UserId::random(), network(2), || ()).await.is_ok());
        with(&hashing.queue, |state| assert!(state.running == 0 && state.accounts.is_empty()));
    }
}
