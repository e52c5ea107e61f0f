//! Months of the calendar (UTC), by which the history of sign-ins is parted.

use sotto_protocol::Timestamp;

/// A month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    year: u16,
    /// From 1.
    month: u8,
}

impl Month {
    /// The month of a moment; `None` for one outside the years 1 to 9999.
    #[must_use]
    pub fn of(moment: Timestamp) -> Option<Self> {
        Self::read(&moment.to_string(), '-')
    }

    /// The month that a partition is for.
    #[must_use]
    pub fn of_partition(table: &str, partition: &str) -> Option<Self> {
        let month = partition.strip_prefix(table)?.strip_prefix('_')?;
        Self::read(month, '_').filter(|found| found.partition(table) == partition)
    }

    fn read(text: &str, between: char) -> Option<Self> {
        let mut parts = text.split(between);
        let (year, month) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        ((1..=9999).contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month })
    }

    /// The month after it.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year.saturating_add(1), month: 1 },
            month => Self { month: month.saturating_add(1), ..self },
        }
    }

    /// The name of its partition.
    #[must_use]
    pub fn partition(self, table: &str) -> String {
        format!("{table}_{:04}_{:02}", self.year, self.month)
    }

    /// Its first moment, as PostgreSQL reads it.
    #[must_use]
    pub fn start(self) -> String {
        format!("{:04}-{:02}-01 00:00:00+00", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_each_other_and_are_found_by_their_names() {
        let december = Month::of(Timestamp::from_millis(1_798_761_599_999)).unwrap();
        assert_eq!(december.partition("logins"), "logins_2026_12");
        assert_eq!(december.start(), "2026-12-01 00:00:00+00");
        let january = Month::of(Timestamp::from_millis(1_798_761_600_000)).unwrap();
        assert_eq!((december.next(), january.partition("logins")), (january, "logins_2027_01".to_owned()));
        assert!(december < january);
        assert_eq!(Month::of_partition("logins", "logins_2026_12"), Some(december));
        for other in ["logins_2026_13", "logins_2026_1", "logins_old", "logins", "other_2026_12", "logins_2026_12_x"] {
            assert_eq!(Month::of_partition("logins", other), None, "{other}");
        }
        let mut month = Month::of(Timestamp::from_millis(0)).unwrap();
        for _ in 0..12 {
            month = month.next();
        }
        assert_eq!(month.start(), "1971-01-01 00:00:00+00");
    }
}
