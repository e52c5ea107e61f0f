//! Calls of one query that come while it runs, gathered into its next run.
//!
//! When many devices come back at once, each asks the same few questions. A lone call runs at once; what comes meanwhile
//! goes out together, so that a storm costs a statement per handful of devices and not one per device. It is the
//! Journal's way, for what is read or noted on arrival.
//!
//! What nobody waits for can be gathered for longer: with a pause, a lane's runs begin at least so far apart.
//!
//! *Bounds:* a run takes so many keys at most, and as many runs as there are lanes go at the same time. What waits is
//! bounded by who asks: a connection has one question at a time.

use crate::StoreError;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

type Answer<V> = Result<Option<V>, StoreError>;

struct Waiting<K, Q, V> {
    key: K,
    question: Q,
    answer: oneshot::Sender<Answer<V>>,
}

struct State<K, Q, V> {
    waiting: Vec<Waiting<K, Q, V>>,
    lanes: usize,
    /// Keys of one run.
    most: usize,
    /// From the beginning of a lane's run to that of its next, at least.
    pause: Duration,
}

/// Questions `Q` about keys `K`, answered by values `V`. Clones share what waits.
pub(crate) struct Gather<K, Q, V>(Arc<Mutex<State<K, Q, V>>>);

impl<K, Q, V> Clone for Gather<K, Q, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, Q, V> std::fmt::Debug for Gather<K, Q, V> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gather").finish_non_exhaustive()
    }
}

impl<K, Q, V> Gather<K, Q, V>
where
    K: Copy + Eq + Hash + Send + 'static,
    Q: Send + 'static,
    V: Send + 'static,
{
    /// With so many runs at the same time, and so many keys in each at most.
    pub(crate) fn new(lanes: usize, most: usize) -> Self {
        Self::unhurried(lanes, most, Duration::ZERO)
    }

    /// The same, where a lane's next run begins no sooner than `pause` after its last: for what nobody waits for.
    pub(crate) fn unhurried(lanes: usize, most: usize, pause: Duration) -> Self {
        Self(Arc::new(Mutex::new(State { waiting: Vec::new(), lanes, most, pause })))
    }

    /// Asks, alone or with others. A key is never twice in one run: the later question has the next one. `run` answers
    /// for the keys that there is an answer for. What has been asked is carried through even if the caller goes away.
    pub(crate) async fn ask<R, F>(&self, key: K, question: Q, run: R) -> Answer<V>
    where
        R: Fn(Vec<(K, Q)>) -> F + Send + 'static,
        F: Future<Output = Result<HashMap<K, V>, StoreError>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let has_lane = self.with(|state| {
            state.waiting.push(Waiting { key, question, answer });
            let has_lane = state.lanes > 0;
            state.lanes -= usize::from(has_lane);
            has_lane
        });
        if has_lane {
            tokio::spawn(self.clone().serve(run));
        }
        answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the query was given up".to_owned())))
    }

    /// Runs until nothing waits, then gives the lane back.
    async fn serve<R, F>(self, run: R)
    where
        R: Fn(Vec<(K, Q)>) -> F,
        F: Future<Output = Result<HashMap<K, V>, StoreError>> + Send + 'static,
    {
        let pause = self.with(|state| state.pause);
        while let Some((questions, answers)) = self.take() {
            let began = Instant::now();
            // In a task of its own: should it panic, those who asked hear of it and the lane lives.
            let ran = tokio::spawn(run(questions)).await;
            match ran.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string()))) {
                Ok(mut values) => {
                    for (key, answer) in answers {
                        // Who asked may be gone.
                        let _ = answer.send(Ok(values.remove(&key)));
                    }
                }
                Err(error) => {
                    for (_, answer) in answers {
                        let _ = answer.send(Err(error.again()));
                    }
                }
            }
            let rest = pause.saturating_sub(began.elapsed());
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn take(&self) -> Option<(Vec<(K, Q)>, Vec<(K, oneshot::Sender<Answer<V>>)>)> {
        self.with(|state| {
            if state.waiting.is_empty() {
                state.lanes += 1;
                return None;
            }
            let mut taken = HashSet::new();
            let (mut questions, mut answers, mut rest) = (Vec::new(), Vec::new(), Vec::new());
            for waiting in std::mem::take(&mut state.waiting) {
                if questions.len() < state.most && taken.insert(waiting.key) {
                    questions.push((waiting.key, waiting.question));
                    answers.push((waiting.key, waiting.answer));
                } else {
                    rest.push(waiting);
                }
            }
            state.waiting = rest;
            Some((questions, answers))
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State<K, Q, V>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Answers ten times the question, after a moment; counts runs and the largest of them.
    #[derive(Clone, Default)]
    struct Slow {
        runs: Arc<AtomicUsize>,
        largest: Arc<AtomicUsize>,
        at_once: Arc<AtomicUsize>,
        most_at_once: Arc<AtomicUsize>,
    }

    impl Slow {
        async fn run(self, questions: Vec<(u8, i64)>) -> Result<HashMap<u8, i64>, StoreError> {
            self.runs.fetch_add(1, Ordering::SeqCst);
            self.largest.fetch_max(questions.len(), Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            assert!(questions.iter().all(|(_, question)| *question != 113), "asked for the unlucky number");
            if questions.iter().any(|(_, question)| *question < 0) {
                return Err(StoreError::Busy("held".to_owned()));
            }
            Ok(questions.into_iter().filter(|(_, question)| *question > 0).map(|(key, q)| (key, q * 10)).collect())
        }

        fn ask(
            &self,
            gather: &Gather<u8, i64, i64>,
            key: u8,
            question: i64,
        ) -> impl Future<Output = Answer<i64>> + use<> {
            let (gather, slow) = (gather.clone(), self.clone());
            async move { gather.ask(key, question, move |all| slow.clone().run(all)).await }
        }
    }

    #[tokio::test]
    async fn what_comes_while_a_run_goes_on_shares_the_next() {
        let (slow, gather) = (Slow::default(), Gather::new(1, 64));
        let all: Vec<_> = (1..=50).map(|key| tokio::spawn(slow.ask(&gather, key, i64::from(key)))).collect();
        for (key, answer) in (1..=50).zip(all) {
            assert_eq!(answer.await.unwrap().unwrap(), Some(key * 10));
        }
        assert!(slow.runs.load(Ordering::SeqCst) <= 3, "the first alone, the others together");
        assert!(slow.largest.load(Ordering::SeqCst) >= 48);
        assert_eq!(slow.most_at_once.load(Ordering::SeqCst), 1, "one lane");
    }

    #[tokio::test]
    async fn with_a_pause_a_lone_question_runs_at_once_and_the_next_ones_together() {
        let (slow, gather) = (Slow::default(), Gather::unhurried(1, 64, Duration::from_secs(1)));
        let began = Instant::now();
        assert_eq!(slow.ask(&gather, 1, 1).await.unwrap(), Some(10));
        assert!(began.elapsed() < Duration::from_secs(1), "nobody was there before it");
        // They come one after the other, and each run takes less than the time between two of them.
        let mut all = Vec::new();
        for key in 2..=4 {
            all.push(tokio::spawn(slow.ask(&gather, key, i64::from(key))));
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        for (key, answer) in (2..=4).zip(all) {
            assert_eq!(answer.await.unwrap().unwrap(), Some(key * 10));
        }
        assert!(began.elapsed() >= Duration::from_secs(1));
        assert_eq!((slow.runs.load(Ordering::SeqCst), slow.largest.load(Ordering::SeqCst)), (2, 3));
    }

    #[tokio::test]
    async fn one_key_is_never_twice_in_a_run_and_each_question_gets_its_own_answer() {
        let (slow, gather) = (Slow::default(), Gather::new(2, 64));
        let all: Vec<_> = (1..=6).map(|question| tokio::spawn(slow.ask(&gather, 7, question))).collect();
        for (question, answer) in (1..=6).zip(all) {
            assert_eq!(answer.await.unwrap().unwrap(), Some(question * 10));
        }
        assert_eq!(slow.largest.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failed_run_answers_all_who_asked_and_the_next_goes_on() {
        let (slow, gather) = (Slow::default(), Gather::new(1, 64));
        let first = tokio::spawn(slow.ask(&gather, 1, 1));
        while slow.runs.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let (held, also) = futures::join!(slow.ask(&gather, 2, -1), slow.ask(&gather, 3, 3));
        assert!(matches!((held, also), (Err(StoreError::Busy(_)), Err(StoreError::Busy(_)))));
        assert_eq!(first.await.unwrap().unwrap(), Some(10));
        assert!(slow.ask(&gather, 4, 113).await.is_err(), "a panic is told");
        assert_eq!(slow.ask(&gather, 4, 0).await.unwrap(), None, "no answer is one, too");
        assert_eq!(slow.ask(&gather, 4, 4).await.unwrap(), Some(40), "and the lane lives");
    }

    #[tokio::test]
    async fn what_was_asked_is_carried_through_without_its_caller() {
        let (slow, gather) = (Slow::default(), Gather::new(1, 64));
        let ask = tokio::time::timeout(Duration::from_millis(1), slow.ask(&gather, 1, 1)).await;
        assert!(ask.is_err());
        assert_eq!(slow.ask(&gather, 1, 2).await.unwrap(), Some(20));
        assert_eq!(slow.runs.load(Ordering::SeqCst), 2);
    }
}
