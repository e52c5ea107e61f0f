//! Numbers, times and sizes as people read them.

use super::number::float;

/// Three digits that matter, thousands grouped: `35,870`, `412`, `1.25`, `0.0371`.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-6..1e15).contains(&size) {
        return format!("{value:.2e}");
    }
    let decimals = match size {
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ if size >= 0.09995 => 3,
        _ if size >= 0.009_995 => 4,
        _ => 6,
    };
    grouped(&format!("{value:.decimals$}"))
}

/// A count with its thousands grouped.
#[must_use]
pub fn count(count: u64) -> String {
    grouped(&count.to_string())
}

fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut text = sign.to_owned();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// Bytes in the unit that suits them.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = float(bytes);
    let mut unit = "B";
    for next in UNITS {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = next;
    }
    format!("{} {unit}", number(amount))
}

/// A length of time: `0.500 s`, `30 s`, `1 min 30 s`, `2 h 5 min`.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if !(60.0..1e12).contains(&seconds) {
        let is_whole = seconds.fract() == 0.0 && seconds.abs() < 60.0;
        return if is_whole { format!("{seconds:.0} s") } else { format!("{} s", number(seconds)) };
    }
    let rest = |amount: f64, unit: &str| if amount >= 1.0 { format!(" {amount:.0} {unit}") } else { String::new() };
    let minutes = (seconds / 60.0).floor();
    if minutes < 60.0 {
        return format!("{minutes:.0} min{}", rest((seconds % 60.0).floor(), "s"));
    }
    format!("{:.0} h{}", (minutes / 60.0).floor(), rest(minutes % 60.0, "min"))
}

/// A share of one as a percentage, with one digit below ten.
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.abs() < 9.95 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_group_thousands() {
        let cases = [
            (0.0, "0"),
            (0.003_71, "0.003710"),
            (0.037_14, "0.0371"),
            (0.812, "0.812"),
            (1.254, "1.25"),
            (9.999, "10.0"),
            (35.04, "35.0"),
            (412.4, "412"),
            (35_870.2, "35,870"),
            (-1_234_567.0, "-1,234,567"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(count(1_000_000), "1,000,000");
    }

    #[test]
    fn sizes_and_times_have_the_unit_that_suits_them() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(34 << 20), "34.0 MiB");
        assert_eq!(bytes(u64::MAX), "16,384 PiB");
        assert_eq!(seconds(0.5), "0.500 s");
        assert_eq!(seconds(30.0), "30 s");
        assert_eq!(seconds(29.96), "30.0 s");
        assert_eq!(seconds(f64::NAN), "– s");
        assert_eq!(seconds(90.0), "1 min 30 s");
        assert_eq!(seconds(120.0), "2 min");
        assert_eq!(seconds(7500.0), "2 h 5 min");
        assert_eq!(percent(0.0184), "1.8 %");
        assert_eq!(percent(0.5), "50 %");
    }
}
