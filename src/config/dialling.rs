//! Parts of the telephone world: prefixes of numbers, and what a message there costs.

use super::value::{Value, quoted};

/// The beginning of telephone numbers, such as `+41` or `+4479`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Whether a number in E.164 begins with it.
    #[must_use]
    pub fn covers(&self, number: &str) -> bool {
        number.starts_with(&self.0)
    }

    /// How many characters it has: of two that cover a number, the longer one says more.
    #[must_use]
    pub fn reach(&self) -> usize {
        self.0.len()
    }
}

impl Value for Prefix {
    const KIND: &'static str = "the beginning of a number such as +41";

    fn from_text(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('+').unwrap_or_default();
        let is_valid =
            (1..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        if is_valid { Ok(Self(text.to_owned())) } else { Err(format!("takes {}", Self::KIND)) }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// What a message to a number with this beginning costs, such as `+41=8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// The numbers it is for.
    pub prefix: Prefix,
    /// Units of `sms.budget_per_hour`, from 1 to 1000.
    pub units: u32,
}

impl Value for Price {
    const KIND: &'static str = "the beginning of a number and a price from 1 to 1000, such as +41=8";

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || format!("takes {}", Self::KIND);
        let (prefix, units) = text.split_once('=').ok_or_else(wrong)?;
        let prefix = Prefix::from_text(prefix.trim()).map_err(|_| wrong())?;
        let units = units.trim().parse().ok().filter(|units| (1..=1000).contains(units)).ok_or_else(wrong)?;
        Ok(Self { prefix, units })
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&format!("{}={}", self.prefix.0, self.units)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_prices_are_read_strictly() {
        let price = Price::from_text("+4479 = 12").unwrap();
        assert!(price.prefix.covers("+447912345678") && !price.prefix.covers("+44812345678"));
        assert_eq!((price.units, price.to_toml().as_deref()), (12, Some("\"+4479=12\"")));
        for bad in ["", "+", "41", "+0", "+41a", "+1234567890123456", "+ 41"] {
            assert!(Prefix::from_text(bad).is_err(), "{bad}");
            assert!(Price::from_text(&format!("{bad}=1")).is_err(), "{bad}");
        }
        for bad in ["+41", "+41=", "+41=0", "+41=1001", "+41=-1", "+41=1.5"] {
            assert!(Price::from_text(bad).is_err(), "{bad}");
        }
    }
}
