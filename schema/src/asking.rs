//! Decides which budgets a request for a code counts against, and whether it needs the answer to a challenge. Reads no database.

use crate::rows::sign_in::{Allowance, Reached};
use sotto_protocol::UserId;

/// Part of a budget, in thousandths, above which a challenge is demanded.
pub const GUARDED_FROM: u32 = 500;

/// The party whose budgets a request for a code counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// A signed-in account, for a code to its own number.
    Account,
    /// A signed-in account, for a code to the number that it changes to.
    Change,
    /// A network from which the number's account signed in before, by its place in the request's list.
    Network(usize),
    /// Every other sender.
    Stranger,
}

/// The sender of a request for a code, with what the database says about it.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The signed-in account.
    pub caller: Option<UserId>,
    /// The account of the number.
    pub owner: Option<UserId>,
    /// Whether the code is for another number of the account.
    pub changes_number: bool,
    /// The first of the request's networks from which the number's account signed in.
    pub known: Option<usize>,
}

impl Asker {
    /// Chooses the budgets that count.
    #[must_use]
    pub fn payer(&self) -> Payer {
        match (self.caller, self.known) {
            (Some(caller), _) if self.owner == Some(caller) => Payer::Account,
            (Some(_), _) if self.changes_number => Payer::Change,
            (_, Some(network)) => Payer::Network(network),
            (_, None) => Payer::Stranger,
        }
    }
}

/// The budgets that a request for a code may count against, one list per payer.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// [`Payer::Account`].
    pub account: Vec<Allowance>,
    /// [`Payer::Change`].
    pub change: Vec<Allowance>,
    /// [`Payer::Network`], in the order of the request's networks.
    pub networks: Vec<Vec<Allowance>>,
    /// [`Payer::Stranger`].
    pub stranger: Vec<Allowance>,
}

impl Budgets {
    /// Gives the budgets of a payer.
    #[must_use]
    pub fn of(&self, payer: Payer) -> &[Allowance] {
        match payer {
            Payer::Account => &self.account,
            Payer::Change => &self.change,
            Payer::Network(network) => self.networks.get(network).unwrap_or(&self.stranger),
            Payer::Stranger => &self.stranger,
        }
    }
}

/// The decision about a request for a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A limit is reached.
    Limited(Reached),
    /// A challenge must be answered first.
    Challenged,
    /// It is taken.
    Taken {
        /// Whether that uses the answer to a challenge up.
        uses_answer: bool,
    },
}

/// Decides about a request. A limit that is reached comes first: clients must not compute an answer to a request that is refused
/// anyway. `share` is the part of the fullest guarded budget that would be taken, in thousandths; `None` where nothing is guarded.
/// `is_answered`: a challenge was answered rightly, and its answer has not served before.
#[must_use]
pub fn verdict(reached: Option<Reached>, share: Option<u32>, is_answered: bool) -> Verdict {
    let is_due = share.is_some_and(|share| share > GUARDED_FROM);
    match (reached, is_due, is_answered) {
        (Some(reached), _, _) => Verdict::Limited(reached),
        (None, true, false) => Verdict::Challenged,
        (None, is_due, _) => Verdict::Taken { uses_answer: is_due },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn asker() -> impl Strategy<Value = Asker> {
        let ids = [UserId::random(), UserId::random()];
        let id = move || prop::option::of(prop::sample::select(ids.to_vec()));
        (id(), id(), any::<bool>(), prop::option::of(0..2_usize)).prop_map(|(caller, owner, changes_number, known)| {
            // Only an account has known networks.
            Asker { caller, owner, changes_number, known: known.filter(|_| owner.is_some()) }
        })
    }

    fn reached() -> impl Strategy<Value = Option<Reached>> {
        let span = Duration::from_secs(3600);
        prop::option::of(Just(Reached { kind: "code", most: 3, span, wait: span }))
    }

    proptest! {
        #[test]
        fn a_stranger_never_pays_from_what_is_kept_for_the_owner(asker in asker()) {
            let payer = asker.payer();
            prop_assert_eq!(payer == Payer::Account, asker.caller.is_some() && asker.caller == asker.owner);
            if let Payer::Network(network) = payer {
                prop_assert_eq!(asker.known, Some(network));
            }
            if payer == Payer::Change {
                prop_assert!(asker.caller.is_some() && asker.changes_number);
            }
            // Without a token and a known network nothing tells a number with an account from one without.
            let stranger = Asker { caller: None, known: None, ..asker };
            prop_assert_eq!(stranger.payer(), Payer::Stranger);
        }

        #[test]
        fn a_challenge_is_due_above_half_and_never_before_a_limit(
            reached in reached(),
            share in prop::option::of(0..=1000_u32),
            is_answered: bool,
        ) {
            let verdict = verdict(reached, share, is_answered);
            let is_due = share.is_some_and(|share| share > GUARDED_FROM);
            match verdict {
                Verdict::Limited(limit) => prop_assert_eq!(Some(limit), reached),
                Verdict::Challenged => prop_assert!(reached.is_none() && is_due && !is_answered),
                Verdict::Taken { uses_answer } => {
                    prop_assert!(reached.is_none() && (is_answered || !is_due));
                    prop_assert_eq!(uses_answer, is_due);
                }
            }
        }
    }
}
