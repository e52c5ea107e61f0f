//! What text messages may cost: where they go, what each takes, and how much goes out in an hour.
//!
//! Whoever owns numbers at a dear carrier earns by every code that is sent there, and asks for as many as he gets. Against
//! that stand a bound per block of numbers, since such numbers lie side by side, and a budget over all nodes. Of the budget a
//! quarter is out of reach for those who have no account, and one range of numbers takes a quarter at most: while somebody
//! burns the rest, people sign in, and newcomers with other numbers come in too. Against one who has numbers everywhere only
//! the first helps.
//!
//! All of it is counted in the database and fails closed.

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

    /// What a message counts against when it is sent, and may not be asked for beyond. `range` is the number's, as a
    /// pseudonym; `node` and `per_node` are the node's name and its own cap on messages.
    pub(super) fn allowances(
        &self,
        phone: &Phone,
        purpose: Purpose,
        range: Vec<u8>,
        (node, per_node): (&str, u32),
    ) -> Vec<Allowance> {
        let (cost, quarter) = (self.price(phone), |most: u32| (most / 4).max(1));
        let hourly = |kind, subject: &[u8], most| Allowance::new(kind, subject, most, HOUR);
        let mut all =
            vec![hourly("code_node", node.as_bytes(), per_node), hourly("sms_budget", &[], self.budget).costing(cost)];
        if !purpose.needs_account() {
            all.extend([
                hourly("code_node_strangers", node.as_bytes(), per_node - per_node / 4),
                hourly("sms_range", &range, quarter(self.budget)).costing(cost),
                hourly("sms_strangers", &[], self.budget - quarter(self.budget)).costing(cost),
            ]);
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
    fn a_quarter_is_kept_for_those_who_have_an_account() {
        let (spending, phone) = (spending(&[], &["+41=8"]), Phone::parse("+41791234567").unwrap());
        let most = |kind, purpose| {
            let all = spending.allowances(&phone, purpose, Vec::new(), ("node", 1000));
            let found = all.into_iter().find(|allowance| allowance.kind == kind)?;
            Some((found.windows[0].0, found.cost))
        };
        for purpose in Purpose::ALL {
            let stranger = !purpose.needs_account();
            assert_eq!(most("sms_budget", purpose), Some((100, 8)), "{purpose:?}");
            assert_eq!(most("sms_strangers", purpose), stranger.then_some((75, 8)), "{purpose:?}");
            assert_eq!(most("sms_range", purpose), stranger.then_some((25, 8)), "{purpose:?}");
            assert_eq!(most("code_node", purpose), Some((1000, 1)), "{purpose:?}");
            assert_eq!(most("code_node_strangers", purpose), stranger.then_some((750, 1)), "{purpose:?}");
        }
        assert_eq!(range(&phone), "+4179");
        assert_eq!(block(&phone), "+4179123");
    }
}
