//! What text messages may cost: where they go, what each takes, and how much goes out in an hour.
//!
//! The owner of numbers at an expensive carrier earns by every code that is sent there (SMS pumping). Two limits prevent
//! that: a bound per block of numbers, since such numbers are adjacent, and a budget over all nodes. An eighth of the budget
//! is reserved for signed-in devices and known networks. For purposes that need no account, strangers also leave a quarter
//! unused, and in one range of numbers they take a quarter at most. So while an attacker uses up the rest, users sign in, and
//! newcomers with other numbers register. Signed-in devices and known networks take half at most, so that accounts that an
//! attacker has made do not keep newcomers out.
//!
//! A code for a number without an account is not sent and counts all the same: what is left of a budget must not tell which
//! numbers have an account. All of it is counted in the database and fails closed.

use std::time::Duration;

use sotto_protocol::auth::Purpose;
use sotto_schema::rows::sign_in::Allowance;

use super::phone::Phone;
use crate::config::dialling::{Prefix, Price};
use crate::config::sms::Sms;

const HOUR: Duration = Duration::from_secs(3600);
/// Digits at the end of a number that differ within a block: carriers are given blocks of ten thousand.
const BLOCK_DIGITS: usize = 4;
/// Characters that name country and operator, as `+4179` or `+1415`.
const RANGE: usize = 5;

/// The sender of a request, as far as costs are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spender {
    /// A signed-in device for its account's number, or a network that the number's account signed in from.
    Owner,
    /// A signed-in device for the number that its account changes to.
    Change,
    /// Every other sender.
    Stranger,
}

/// Where messages may go and what they cost.
pub(super) struct Spending {
    countries: Vec<Prefix>,
    prices: Vec<Price>,
    budget: u32,
}

impl Spending {
    pub(super) fn new(config: &Sms) -> Self {
        Self { countries: config.countries.clone(), prices: config.prices.clone(), budget: config.budget_per_hour }
    }

    /// Whether messages go to this number at all.
    pub(super) fn serves(&self, phone: &Phone) -> bool {
        self.countries.is_empty() || self.countries.iter().any(|prefix| prefix.covers(phone.as_str()))
    }

    /// What a message to this number costs: by the longest beginning that covers it, else 1.
    fn price(&self, phone: &Phone) -> u32 {
        let covering = self.prices.iter().filter(|price| price.prefix.covers(phone.as_str()));
        covering.max_by_key(|price| price.prefix.reach()).map_or(1, |price| price.units)
    }

    /// The budgets that a request for a code counts against. `range` is the number's, as a pseudonym; `node` and `per_node` are the
    /// node's name and its own cap.
    pub(super) fn allowances(
        &self,
        phone: &Phone,
        purpose: Purpose,
        spender: Spender,
        range: Vec<u8>,
        (node, per_node): (&str, u32),
    ) -> Vec<Allowance> {
        let (cost, budget) = (self.price(phone), self.budget);
        let of_node = |kind, most| Allowance::new(kind, node.as_bytes(), most, HOUR);
        let of_all = |kind, subject: &[u8], most| Allowance::new(kind, subject, most, HOUR).costing(cost);
        let quarter = (budget / 4).max(1);
        let mut all = vec![of_node("code_node", per_node), of_all("sms_budget", &[], budget)];
        match spender {
            Spender::Owner | Spender::Change => {
                all.extend([
                    of_node("code_node_owners", (per_node / 2).max(1)),
                    of_all("sms_owners", &[], (budget / 2).max(1)),
                ]);
                if spender == Spender::Change {
                    all.push(of_all("sms_range_changes", &range, quarter));
                }
            }
            Spender::Stranger => {
                all.extend([
                    of_node("code_node_unknown", per_node - per_node / 8),
                    of_all("sms_unknown", &[], budget - (budget / 8).max(1)),
                    of_all("sms_range", &range, quarter),
                ]);
                if !purpose.needs_account() {
                    all.extend([
                        of_node("code_node_strangers", per_node - per_node / 4),
                        of_all("sms_strangers", &[], budget - quarter),
                    ]);
                }
                all = all.into_iter().map(Allowance::guarded).collect();
            }
        }
        all
    }
}

/// The block of numbers that this one lies in.
pub(super) fn block(phone: &Phone) -> &str {
    let text = phone.as_str();
    text.get(..text.len().saturating_sub(BLOCK_DIGITS)).unwrap_or_default()
}

/// The range of numbers that this one lies in.
pub(super) fn range(phone: &Phone) -> &str {
    phone.as_str().get(..RANGE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Value as _;

    fn spending(countries: &[&str], prices: &[&str]) -> Spending {
        Spending {
            countries: countries.iter().map(|text| Prefix::from_text(text).unwrap()).collect(),
            prices: prices.iter().map(|text| Price::from_text(text).unwrap()).collect(),
            budget: 100,
        }
    }

    #[test]
    fn the_longest_beginning_says_the_price() {
        let (spending, phone) = (spending(&[], &["+44=4", "+447=9", "+4478=20"]), |text| Phone::parse(text).unwrap());
        assert_eq!(spending.price(&phone("+447912345678")), 9);
        assert_eq!(spending.price(&phone("+442012345678")), 4);
        assert_eq!(spending.price(&phone("+41791234567")), 1);
    }

    #[test]
    fn countries_that_are_listed_are_served_and_no_others() {
        let phone = |text| Phone::parse(text).unwrap();
        let some = spending(&["+41", "+423"], &[]);
        assert!(some.serves(&phone("+41791234567")) && some.serves(&phone("+4237912345")));
        assert!(!some.serves(&phone("+42012345678")) && !some.serves(&phone("+14155550100")));
        assert!(spending(&[], &[]).serves(&phone("+42012345678")));
    }

    #[test]
    fn strangers_leave_a_part_to_owners_and_owners_leave_a_part_to_strangers() {
        let (spending, phone) = (spending(&[], &["+41=8"]), Phone::parse("+41791234567").unwrap());
        let most = |kind, purpose, spender| {
            let all = spending.allowances(&phone, purpose, spender, Vec::new(), ("node", 1000));
            let found = all.into_iter().find(|allowance| allowance.kind == kind)?;
            Some((found.windows[0].0, found.cost, found.is_guarded))
        };
        for purpose in Purpose::ALL {
            let newcomer = !purpose.needs_account();
            for spender in [Spender::Owner, Spender::Change, Spender::Stranger] {
                let (is_stranger, is_change) = (spender == Spender::Stranger, spender == Spender::Change);
                let row = |kind| most(kind, purpose, spender);
                assert_eq!(row("sms_budget"), Some((100, 8, is_stranger)), "{purpose:?} {spender:?}");
                assert_eq!(row("code_node"), Some((1000, 1, is_stranger)));
                assert_eq!(row("sms_unknown"), is_stranger.then_some((88, 8, true)));
                assert_eq!(row("code_node_unknown"), is_stranger.then_some((875, 1, true)));
                assert_eq!(row("sms_range"), is_stranger.then_some((25, 8, true)));
                assert_eq!(row("sms_strangers"), (is_stranger && newcomer).then_some((75, 8, true)));
                assert_eq!(row("code_node_strangers"), (is_stranger && newcomer).then_some((750, 1, true)));
                assert_eq!(row("sms_owners"), (!is_stranger).then_some((50, 8, false)));
                assert_eq!(row("code_node_owners"), (!is_stranger).then_some((500, 1, false)));
                assert_eq!(row("sms_range_changes"), is_change.then_some((25, 8, false)));
            }
        }
        assert_eq!(range(&phone), "+4179");
        assert_eq!(block(&phone), "+4179123");
    }
}
