//! How much room a page has left.

use sotto_protocol::limits::MAX_PAGE_BYTES;

/// The room of a page: so many items, and 1 MiB of them, but never below one item.
#[derive(Debug)]
pub(crate) struct Room {
    items: usize,
    bytes: usize,
    is_empty: bool,
    /// How large the items are that were read last, on average.
    each: usize,
}

/// Size that is assumed for an item before one was read. It is high, so that the first read brings few items.
const FIRST: usize = 64 * 1024;

impl Room {
    /// An empty page of at most so many items.
    pub(crate) const fn of_page(items: usize) -> Self {
        Self { items, bytes: MAX_PAGE_BYTES, is_empty: true, each: FIRST }
    }

    /// Takes an item of so many bytes; `false`: it does not fit, and the page ends before it.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let fits = self.items > 0 && (self.is_empty || bytes <= self.bytes);
        if fits {
            self.items -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.is_empty = false;
        } else {
            // What comes behind it must not pass it by.
            self.items = 0;
        }
        fits
    }

    /// How many more items there may be.
    pub(crate) const fn items(&self) -> usize {
        self.items
    }

    /// How many items to read next, so that little more is held in memory than fits: at least one.
    pub(crate) fn items_at_once(&self) -> usize {
        self.bytes.checked_div(self.each).map_or(self.items, |fitting| self.items.min(fitting.max(1)))
    }

    /// Notes how many items were read and how many bytes they have together.
    pub(crate) fn has_seen(&mut self, items: usize, bytes: usize) {
        self.each = bytes.checked_div(items).unwrap_or(self.each);
    }

    /// Whether nothing more fits.
    pub(crate) const fn is_full(&self) -> bool {
        self.items == 0 || self.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_page_has_one_item_or_no_more_than_fit(
            most in 1..20_usize,
            sizes in prop::collection::vec(1..MAX_PAGE_BYTES + 10, 1..40),
        ) {
            let mut room = Room::of_page(most);
            let taken: Vec<usize> = sizes.iter().copied().take_while(|size| room.take(*size)).collect();
            prop_assert!(!taken.is_empty() && taken.len() <= most);
            prop_assert!(taken.len() == 1 || taken.iter().sum::<usize>() <= MAX_PAGE_BYTES);
            if let Some(next) = sizes.get(taken.len()) {
                prop_assert!(taken.len() == most || taken.iter().sum::<usize>() + next > MAX_PAGE_BYTES);
                prop_assert!(room.is_full() && !room.take(1), "nothing passes what did not fit");
            }
        }
    }
}
