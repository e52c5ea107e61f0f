//! The threads that serve connections, and among which conversations are parted.
//!
//! A conversation is not kept where it was first asked for: that may be the same thread for all of them, by the order in
//! which sockets have come, or the one that hears other nodes.

use actix::dev::channel::channel;
use actix::{Actor, Addr, Context};
use actix_rt::{Arbiter, ArbiterHandle};
use std::sync::{PoisonError, RwLock};
use std::thread::{self, ThreadId};

/// Those that have joined.
#[derive(Debug, Default)]
pub struct Threads(RwLock<Vec<(ThreadId, ArbiterHandle)>>);

impl Threads {
    /// Adds the calling thread. It must be an arbiter's.
    pub fn join(&self) {
        let mut joined = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let own = thread::current().id();
        joined.retain(|(thread, arbiter)| *thread != own && arbiter.alive());
        joined.push((own, Arbiter::current()));
    }

    /// Starts an actor on the thread that its id falls to, with a mailbox of so many messages; on the calling thread, while
    /// none has joined. An actor of a thread that ends in this moment is closed.
    pub fn start<A, F>(&self, id: &[u8; 16], capacity: usize, make: F) -> Addr<A>
    where
        A: Actor<Context = Context<A>>,
        F: FnOnce() -> A + Send + 'static,
    {
        let (mailbox, messages) = channel(capacity);
        let begin = move || {
            actix_rt::spawn(Context::with_receiver(messages).into_future(make()));
        };
        match self.of(id) {
            Some(arbiter) => {
                arbiter.spawn_fn(begin);
            }
            None => begin(),
        }
        Addr::new(mailbox)
    }

    /// Whose an id is; `None`: the calling thread's.
    fn of(&self, id: &[u8; 16]) -> Option<ArbiterHandle> {
        let joined = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let [.., high, low] = *id;
        let place = usize::from(u16::from_be_bytes([high, low])).checked_rem(joined.len())?;
        let (thread, arbiter) = joined.get(place)?;
        (*thread != thread::current().id() && arbiter.alive()).then(|| arbiter.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use actix::{Handler, Message};
    use std::sync::Arc;

    #[derive(Message)]
    #[rtype(result = "ThreadId")]
    struct Where;

    struct Somebody;

    impl Actor for Somebody {
        type Context = Context<Self>;
    }

    impl Handler<Where> for Somebody {
        type Result = actix::MessageResult<Where>;

        fn handle(&mut self, _: Where, _: &mut Self::Context) -> Self::Result {
            actix::MessageResult(thread::current().id())
        }
    }

    fn id(last: u8) -> [u8; 16] {
        let mut id = [7; 16];
        id[14..].copy_from_slice(&[0, last]);
        id
    }

    /// A thread that has joined, and which it is.
    async fn joined(threads: &Arc<Threads>) -> (Arbiter, ThreadId) {
        let arbiter = Arbiter::new();
        let (threads, (tell, told)) = (Arc::clone(threads), tokio::sync::oneshot::channel());
        arbiter.spawn_fn(move || {
            threads.join();
            tell.send(thread::current().id()).unwrap();
        });
        (arbiter, told.await.unwrap())
    }

    #[actix_rt::test]
    async fn each_id_has_its_thread_whoever_asks() {
        let threads = Arc::new(Threads::default());
        let alone = threads.start(&id(1), 1, || Somebody);
        assert_eq!(alone.send(Where).await, Ok(thread::current().id()), "none has joined");
        let (first, second) = (joined(&threads).await, joined(&threads).await);
        for last in 0..6 {
            let expected = if last % 2 == 0 { first.1 } else { second.1 };
            assert_eq!(threads.start(&id(last), 1, || Somebody).send(Where).await, Ok(expected), "{last}");
        }
        threads.join();
        assert_eq!(threads.start(&id(2), 1, || Somebody).send(Where).await, Ok(thread::current().id()));
    }

    #[actix_rt::test]
    async fn its_mailbox_is_there_before_it_is() {
        let threads = Arc::new(Threads::default());
        let (arbiter, _) = joined(&threads).await;
        let (release, held) = std::sync::mpsc::channel::<()>();
        arbiter.spawn_fn(move || held.recv().unwrap());
        let actor = threads.start(&id(0), 100, || Somebody);
        (0..100).for_each(|_| actor.try_send(Where).unwrap());
        release.send(()).unwrap();
        assert!(actor.send(Where).await.is_ok());
    }

    #[actix_rt::test]
    async fn a_thread_that_has_ended_gets_none() {
        let threads = Arc::new(Threads::default());
        let (arbiter, _) = joined(&threads).await;
        arbiter.stop();
        arbiter.join().unwrap();
        assert_eq!(threads.start(&id(0), 1, || Somebody).send(Where).await, Ok(thread::current().id()));
    }
}
