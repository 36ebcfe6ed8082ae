//! The slot of each account: a number that it keeps while it exists, whatever its place in the tree becomes.

use super::{AccountIndex, AccountTree};

/// Where nothing is.
const NONE: AccountIndex = AccountIndex(u32::MAX);

#[derive(Debug, Default)]
pub(super) struct Slots {
    /// By slot.
    indices: Vec<AccountIndex>,
    /// By place in the tree.
    slots: Vec<AccountIndex>,
}

impl Slots {
    /// Every account has its place for its slot.
    pub(super) fn of(accounts: &AccountTree) -> Self {
        Self {
            indices: accounts.all().collect(),
            slots: accounts.all().collect(),
        }
    }

    pub(super) fn index(&self, slot: AccountIndex) -> Option<AccountIndex> {
        at(&self.indices, slot)
    }

    pub(super) fn slot(&self, index: AccountIndex) -> Option<AccountIndex> {
        at(&self.slots, index)
    }

    /// The slots for another tree, and those whose account is gone, in order. A gone account's slot is given to a new one.
    pub(super) fn rebase(&self, old: &AccountTree, new: &AccountTree) -> (Self, Vec<AccountIndex>) {
        let moved = |index: &AccountIndex| new.get(old.id(*index)).unwrap_or(NONE);
        let mut indices: Vec<AccountIndex> = self.indices.iter().map(moved).collect();
        let mut slots: Vec<AccountIndex> = new.all().map(|_| NONE).collect();
        let (mut gone, mut free) = (Vec::new(), Vec::new());
        for ((slot, index), before) in numbers().zip(&indices).zip(&self.indices) {
            match slots.get_mut(place(*index)) {
                Some(taken) => *taken = slot,
                None => free.push(slot),
            }
            if *index == NONE && *before != NONE {
                gone.push(slot);
            }
        }
        let mut fresh = numbers().skip(indices.len());
        for (index, slot) in numbers().zip(&mut slots) {
            if *slot != NONE {
                continue;
            }
            match free.pop() {
                Some(again) => {
                    *slot = again;
                    if let Some(entry) = indices.get_mut(place(again)) {
                        *entry = index;
                    }
                }
                None => {
                    *slot = fresh.next().unwrap_or(NONE);
                    indices.push(index);
                }
            }
        }
        (Self { indices, slots }, gone)
    }
}

fn numbers() -> impl Iterator<Item = AccountIndex> {
    (0_u32..).map(AccountIndex)
}

fn place(number: AccountIndex) -> usize {
    usize::try_from(number.0).unwrap_or(usize::MAX)
}

fn at(numbers: &[AccountIndex], number: AccountIndex) -> Option<AccountIndex> {
    numbers
        .get(place(number))
        .copied()
        .filter(|found| *found != NONE)
}
