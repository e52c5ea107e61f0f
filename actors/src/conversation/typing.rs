//! Rate limit of typing signals: all devices of a user share one rate, however many signals each of them sends.

use super::{Conversation, TypingSignal};
use actix::{AsyncContext, Context};
use bytes::Bytes;
use sotto_protocol::frame::{Frame, Typing, TypingState};
use sotto_protocol::{UserId, limits};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Time after which the same state of a user is sent again.
const SAME_AFTER: Duration = Duration::from_secs(2);
/// Least time before a different state of a user is sent; the last state within it is kept and sent at its end.
const OTHER_AFTER: Duration = Duration::from_secs(1);

/// The typing state that members got last, for each typing user.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<UserId, Last>);

#[derive(Debug)]
struct Last {
    state: TypingState,
    at: Instant,
    /// Comes when its time has come.
    waiting: Option<TypingSignal>,
}

/// The handling of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is told now.
    Tell,
    /// It is kept; [`Told::due`] is to be asked after this time.
    Later(Duration),
    /// It says nothing new.
    Drop,
}

impl Told {
    fn hear(&mut self, signal: TypingSignal, now: Instant) -> Verdict {
        let age = |last: &Last| now.saturating_duration_since(last.at);
        self.0.retain(|_, last| last.waiting.is_some() || age(last) < SAME_AFTER);
        let Some(last) = self.0.get_mut(&signal.sender.user_id) else {
            self.0.insert(signal.sender.user_id, Last { state: signal.state, at: now, waiting: None });
            return Verdict::Tell;
        };
        if last.state == signal.state {
            last.waiting = None;
            return Verdict::Drop;
        }
        let wait = OTHER_AFTER.saturating_sub(age(last));
        if wait.is_zero() {
            *last = Last { state: signal.state, at: now, waiting: None };
            return Verdict::Tell;
        }
        match last.waiting.replace(signal) {
            None => Verdict::Later(wait),
            Some(_) => Verdict::Drop,
        }
    }

    /// Takes the state of a user that was kept, once it is due.
    fn due(&mut self, user: UserId, now: Instant) -> Option<TypingSignal> {
        let last = self.0.get_mut(&user)?;
        let signal = last.waiting.take()?;
        *last = Last { state: signal.state, at: now, waiting: None };
        Some(signal)
    }
}

impl Conversation {
    /// Somebody types, or stops to. Large conversations do not hear of it.
    pub(super) fn hear_typing(&mut self, signal: TypingSignal, ctx: &mut Context<Self>) {
        let user = signal.sender.user_id;
        let is_heard = |state: &super::State| {
            state.members.len() <= limits::MAX_MEMBERS_WITH_RECEIPTS && state.members.contains_key(&user)
        };
        if !self.state.as_ref().is_some_and(is_heard) {
            return;
        }
        match self.typing_told.hear(signal, Instant::now()) {
            Verdict::Tell => self.spread_typing(signal),
            Verdict::Later(wait) => {
                ctx.run_later(wait, move |actor, _| {
                    if let Some(signal) = actor.typing_told.due(user, Instant::now()) {
                        actor.spread_typing(signal);
                    }
                });
            }
            Verdict::Drop => {}
        }
    }

    fn spread_typing(&self, signal: TypingSignal) {
        let Some(state) = self.state.as_ref().filter(|state| state.members.contains_key(&signal.sender.user_id)) else {
            return;
        };
        let frame = Frame::new(
            "typing",
            Typing {
                conversation_id: self.id,
                state: signal.state,
                user_id: Some(signal.sender.user_id),
                device_id: Some(signal.sender.device_id),
            },
        );
        let members: Vec<UserId> = state.members.keys().copied().collect();
        self.node.whisper(&members, &Bytes::from(frame.to_text()), Some(signal.sender.device_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sotto_protocol::DeviceId;
    use sotto_protocol::message::Sender;

    fn signal(user: UserId, started: bool) -> TypingSignal {
        let state = if started { TypingState::Started } else { TypingState::Stopped };
        TypingSignal { sender: Sender { user_id: user, device_id: DeviceId::random() }, state }
    }

    proptest! {
        #[test]
        fn members_hear_one_state_a_second_and_the_last_one_in_the_end(
            steps in prop::collection::vec((0..700_u64, any::<bool>()), 1..120),
        ) {
            let (user, began) = (UserId::random(), Instant::now());
            let mut told = Told::default();
            let (mut now, mut due_at, mut heard) = (began, None, Vec::new());
            let ring = |told: &mut Told, at: Instant, heard: &mut Vec<(Instant, TypingState)>| {
                heard.extend(told.due(user, at).map(|signal| (at, signal.state)));
            };
            for (pause, started) in &steps {
                now += Duration::from_millis(*pause);
                if let Some(at) = due_at.take_if(|at| *at <= now) {
                    ring(&mut told, at, &mut heard);
                }
                let signal = signal(user, *started);
                match told.hear(signal, now) {
                    Verdict::Tell => heard.push((now, signal.state)),
                    Verdict::Later(wait) => due_at = due_at.or(Some(now + wait)),
                    Verdict::Drop => {}
                }
            }
            if let Some(at) = due_at {
                ring(&mut told, at, &mut heard);
            }
            for pair in heard.windows(2) {
                let [(first, before), (second, after)] = pair else { unreachable!() };
                let least = if before == after { SAME_AFTER } else { OTHER_AFTER };
                prop_assert!(second.duration_since(*first) >= least, "{heard:?}");
            }
            let last = steps.last().map(|(_, started)| signal(user, *started).state);
            prop_assert_eq!(heard.last().map(|(_, state)| *state), last);
        }
    }
}
