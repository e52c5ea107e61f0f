//! Where the answer to a send goes: to a waiting request, or into the queue of a connection.

use sotto_protocol::Problem;
use sotto_protocol::message::Sent;
use tokio::sync::{mpsc, oneshot};

/// An answer on a connection, with the number of the request.
#[derive(Debug)]
pub struct Answer {
    /// The request's `id`; without one, nothing is sent back but problems.
    pub re: Option<u64>,
    /// How many bytes the request had.
    pub bytes: usize,
    /// What became of it. A problem is rare and large, and the queue keeps room for thirty-two answers.
    pub result: Result<AnswerBody, Box<Problem>>,
}

/// What a request on a connection is answered with.
#[derive(Debug)]
pub enum AnswerBody {
    /// A stored message.
    Sent(Sent),
    /// Done, with nothing to tell.
    Done,
}

/// The way back of a send. The queue of a connection never refuses: it is bounded by the requests
/// that a connection may have unanswered.
#[derive(Debug)]
pub enum Reply {
    /// A request that waits.
    Once(oneshot::Sender<Result<Sent, Problem>>),
    /// A connection.
    Queue {
        /// Its answers.
        answers: mpsc::UnboundedSender<Answer>,
        /// The request's `id`.
        re: Option<u64>,
        /// How many bytes the request had.
        bytes: usize,
    },
}

impl Reply {
    /// Sends the answer. Who asked may have gone away: the message is stored or not all the same, and
    /// a repeat gets the same answer.
    pub fn send(self, result: Result<Sent, Problem>) {
        match self {
            Self::Once(reply) => {
                let _ = reply.send(result);
            }
            Self::Queue { answers, re, bytes } => {
                let result = result.map(AnswerBody::Sent).map_err(Box::new);
                let _ = answers.send(Answer { re, bytes, result });
            }
        }
    }
}
