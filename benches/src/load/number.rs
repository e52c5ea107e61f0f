//! Conversions between numbers of different kinds, each in one place.

/// A count as a number to calculate with; exact up to 2⁵³.
#[allow(clippy::cast_precision_loss, clippy::as_conversions, reason = "counts of a run stay far below 2^53")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// The length of something.
pub fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A count as a place or length.
pub fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A length that fits in 32 bits, as those of devices and threads do.
pub fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A number without its fraction; 0 for what is below it or no number.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::as_conversions,
    reason = "this conversion saturates, which is what is wanted"
)]
pub fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

/// How many of `amount` per one of `of`; 0 of none.
pub fn ratio(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}
