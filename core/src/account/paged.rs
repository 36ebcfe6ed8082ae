//! Small values by account: an immutable array in pages, of which a change copies one and the pointers to all.
//!
//! Invariants: what was never set is the default; a page never shrinks, and only the first one is smaller than [`PAGE`].

use std::sync::Arc;

use super::tree::AccountIndex;

/// Values in a page: of a million accounts a change copies a thousand pointers and a thousand values.
const PAGE: usize = 1_024;
/// Values in the first page at the least: most trees are small.
const LEAST: usize = 4;

/// Cloning shares every page.
#[derive(Debug, Clone)]
pub(crate) struct Paged<T> {
    pages: Arc<[Arc<[T]>]>,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self {
            pages: Arc::default(),
        }
    }
}

impl<T: Copy + Default> Paged<T> {
    pub(crate) fn get(&self, at: AccountIndex) -> T {
        let (number, place) = split(at);
        let value = self.pages.get(number).and_then(|page| page.get(place));
        value.copied().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, at: AccountIndex, value: T) {
        let (number, place) = split(at);
        if self
            .pages
            .get(number)
            .is_none_or(|page| page.len() <= place)
        {
            self.grow(number, place);
        }
        if let Some(page) = Arc::make_mut(&mut self.pages).get_mut(number)
            && let Some(slot) = Arc::make_mut(page).get_mut(place)
        {
            *slot = value;
        }
    }

    /// Makes room for this place of this page, which is beyond what there is.
    fn grow(&mut self, number: usize, place: usize) {
        let last = match number {
            0 => place.saturating_add(1).next_power_of_two().max(LEAST),
            _ => PAGE,
        };
        let page = |at: usize| {
            let wanted = if at < number { PAGE } else { last };
            match self.pages.get(at) {
                Some(page) if page.len() >= wanted => Arc::clone(page),
                page => {
                    let values = page.into_iter().flat_map(|page| page.iter().copied());
                    let padding = std::iter::repeat(T::default());
                    values.chain(padding).take(wanted).collect()
                }
            }
        };
        self.pages = (0..=number).map(page).collect();
    }
}

fn split(at: AccountIndex) -> (usize, usize) {
    let at = usize::try_from(at.0).unwrap_or(usize::MAX);
    (at / PAGE, at % PAGE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_equal_a_plain_map(steps in prop::collection::vec((0_u32..5_000, any::<u32>()), 0..40)) {
            let (mut pages, mut model) = (Paged::<u32>::default(), BTreeMap::new());
            for (at, value) in steps {
                let (before, seen) = (pages.clone(), model.clone());
                pages.set(AccountIndex(at), value);
                model.insert(at, value);
                for at in (0..5_000).step_by(7).chain(model.keys().copied()) {
                    let index = AccountIndex(at);
                    prop_assert_eq!(pages.get(index), model.get(&at).copied().unwrap_or_default());
                    prop_assert_eq!(before.get(index), seen.get(&at).copied().unwrap_or_default());
                }
            }
        }
    }

    #[test]
    fn a_change_copies_one_page_and_a_small_tree_takes_little() {
        let mut pages = Paged::<u32>::default();
        pages.set(AccountIndex(2), 1);
        assert_eq!(pages.pages[0].len(), LEAST);
        pages.set(AccountIndex(3_000), 1);
        let before = pages.clone();
        pages.set(AccountIndex(1_500), 1);
        let copied = before.pages.iter().zip(pages.pages.iter());
        assert_eq!(copied.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
        assert_eq!(pages.get(AccountIndex(u32::MAX)), 0, "nothing is there");
    }
}
