//! The two ways to send to an actor. Both look whether the mailbox took the message, and say so.

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long an answer may take (the contract's 5 s for a whole request, less the way there and back).
const ANSWER_TIME: Duration = Duration::from_millis(4500);

/// Why a message did not arrive or was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The mailbox is full: the receiver has more to do than it can.
    #[error("the mailbox is full")]
    Full,
    /// The receiver has stopped.
    #[error("the receiver has stopped")]
    Closed,
    /// It took the message and did not answer in time.
    #[error("no answer in time")]
    Silent,
}

/// Sends without waiting for an answer.
///
/// # Errors
/// The mailbox is full or closed; the message is gone then.
pub fn tell<A, M>(to: &Addr<A>, message: M) -> Result<(), Refused>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    to.try_send(message).map_err(|error| match error {
        actix::prelude::SendError::Full(_) => Refused::Full,
        actix::prelude::SendError::Closed(_) => Refused::Closed,
    })
}

/// Sends a message that carries the way back, and waits for the answer.
///
/// # Errors
/// The mailbox is full or closed, or no answer came within 4.5 s.
pub async fn ask<A, M, R>(to: &Addr<A>, message: impl FnOnce(oneshot::Sender<R>) -> M) -> Result<R, Refused>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    let (reply, answer) = oneshot::channel();
    tell(to, message(reply))?;
    match tokio::time::timeout(ANSWER_TIME, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Refused::Closed),
        Err(_) => Err(Refused::Silent),
    }
}
