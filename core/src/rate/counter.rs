//! The leader's counter of one limit: a sliding window of 60 slots.
//!
//! A node spends a chunk up to its lifetime after it was given, so what is spent in one window was given in a span that is longer: at most 60
//! slots, one more because windows do not begin with slots, and as many as the lifetime fills. The counter bounds what is given in
//! any such span by limit × span / 60. Hence any window has at most 1.05 × the limit, and a steady load gets all of it.

use std::collections::VecDeque;

/// For how long a chunk may be spent, in milliseconds.
pub const CHUNK_LIFETIME_MS: u64 = 2_000;

/// Slots of a window.
const SLOTS: u64 = 60;

/// How long the window of a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Per {
    /// RPM, TPM.
    Minute,
    /// RPH, TPH.
    Hour,
    /// RPD, TPD.
    Day,
}

impl Per {
    /// Milliseconds of the window.
    pub fn window_ms(self) -> u64 {
        self.slot_ms().saturating_mul(SLOTS)
    }

    fn slot_ms(self) -> u64 {
        match self {
            Self::Minute => 1_000,
            Self::Hour => 60_000,
            Self::Day => 1_440_000,
        }
    }

    /// Slots in which what is spent in one window can have been given.
    fn span(self) -> u64 {
        SLOTS
            .saturating_add(1)
            .saturating_add(CHUNK_LIFETIME_MS.div_ceil(self.slot_ms()))
    }
}

/// How much of one limit is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    per: Per,
    limit: u64,
    /// The newest slot, by its number since the start of time.
    newest: u64,
    /// What was given in each slot of the span, oldest first; beyond it nothing counts any more.
    slots: VecDeque<u64>,
}

/// A counter as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The newest slot.
    pub newest: u64,
    /// What was given in each slot, oldest first.
    pub slots: Vec<u64>,
}

/// Nothing was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("used up for {retry_after_ms} ms")]
pub struct UsedUp {
    /// When enough will have left the window, if nothing else is given; the whole window for more than the limit.
    pub retry_after_ms: u64,
}

/// Where something was given, so that what is not spent can come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u64);

impl Counter {
    /// A counter of which nothing is used.
    pub fn new(per: Per, limit: u64) -> Self {
        let slots = std::iter::repeat_n(0, usize::try_from(per.span()).unwrap_or(0)).collect();
        Self {
            per,
            limit,
            newest: 0,
            slots,
        }
    }

    /// The counter of a leader that has no checkpoint of it, as for minutes: as if half of the window were used, evenly.
    pub fn half_used(per: Per, limit: u64, now_ms: u64) -> Self {
        let mut counter = Self::new(per, limit);
        counter.newest = now_ms.checked_div(per.slot_ms()).unwrap_or(0);
        let mut rest = limit.div_ceil(2);
        for (slot, left) in counter.slots.iter_mut().rev().zip((1..=SLOTS).rev()) {
            *slot = rest.div_ceil(left);
            rest = rest.saturating_sub(*slot);
        }
        counter
    }

    /// The counter of a new leader: the checkpoint of the last one, and as used all chunks that nodes say they were given since or still hold.
    pub fn resume(per: Per, limit: u64, checkpoint: &Checkpoint, chunks: u64, now_ms: u64) -> Self {
        let mut counter = Self::new(per, limit);
        counter.newest = checkpoint.newest;
        for (slot, used) in counter
            .slots
            .iter_mut()
            .rev()
            .zip(checkpoint.slots.iter().rev())
        {
            *slot = *used;
        }
        counter.owe(chunks, now_ms);
        counter
    }

    /// The counter, to be stored.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            newest: self.newest,
            slots: self.slots.iter().copied().collect(),
        }
    }

    /// Another limit from now on; what is used stays used.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// What can be given now.
    pub fn room(&mut self, now_ms: u64) -> u64 {
        self.roll(now_ms);
        self.most().saturating_sub(self.used())
    }

    /// Whether this much can be given now.
    ///
    /// # Errors
    /// When it could be.
    pub fn check(&mut self, amount: u64, now_ms: u64) -> Result<(), UsedUp> {
        let room = self.room(now_ms);
        match amount.checked_sub(room) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(UsedUp {
                retry_after_ms: self.wait(missing, now_ms),
            }),
        }
    }

    /// Counts what is given, whether there is room or not: a debt counts too.
    pub fn owe(&mut self, amount: u64, now_ms: u64) -> Slot {
        self.roll(now_ms);
        if let Some(slot) = self.slots.back_mut() {
            *slot = slot.saturating_add(amount);
        }
        Slot(self.newest)
    }

    /// Takes back what was given and not spent.
    pub fn refund(&mut self, slot: Slot, amount: u64) {
        let place = self
            .newest
            .checked_sub(slot.0)
            .and_then(|age| usize::try_from(age).ok());
        let at = place.and_then(|age| self.slots.len().checked_sub(age)?.checked_sub(1));
        if let Some(slot) = at.and_then(|at| self.slots.get_mut(at)) {
            *slot = slot.saturating_sub(amount);
        }
    }

    /// What may be given in one span: limit × span / 60.
    fn most(&self) -> u64 {
        let most = u128::from(self.limit).saturating_mul(u128::from(self.per.span()));
        u64::try_from(most.checked_div(u128::from(SLOTS)).unwrap_or(0)).unwrap_or(u64::MAX)
    }

    fn used(&self) -> u64 {
        self.slots.iter().copied().fold(0, u64::saturating_add)
    }

    /// Time never goes back here: an earlier moment is taken for the newest one.
    fn roll(&mut self, now_ms: u64) {
        let now = now_ms.checked_div(self.per.slot_ms()).unwrap_or(0);
        for _ in 0..now.saturating_sub(self.newest).min(self.per.span()) {
            self.slots.pop_front();
            self.slots.push_back(0);
        }
        self.newest = self.newest.max(now);
    }

    fn wait(&self, mut missing: u64, now_ms: u64) -> u64 {
        for (age, used) in (1_u64..).zip(&self.slots) {
            missing = missing.saturating_sub(*used);
            if missing == 0 {
                let leaves = self
                    .newest
                    .saturating_add(age)
                    .saturating_mul(self.per.slot_ms());
                return leaves.saturating_sub(now_ms);
            }
        }
        self.per.window_ms()
    }
}

/// Gives an amount out of every counter, one for each level and limit that applies, or out of none.
///
/// # Errors
/// Which one has not enough, the longest to wait for.
pub fn acquire(
    counters: &mut [&mut Counter],
    amount: u64,
    now_ms: u64,
) -> Result<Vec<Slot>, (usize, UsedUp)> {
    let checked = counters
        .iter_mut()
        .map(|counter| counter.check(amount, now_ms))
        .enumerate();
    let short = checked.filter_map(|(at, result)| result.err().map(|used_up| (at, used_up)));
    match short.max_by_key(|(_, used_up)| used_up.retry_after_ms) {
        Some(short) => Err(short),
        None => Ok(counters
            .iter_mut()
            .map(|counter| counter.owe(amount, now_ms))
            .collect()),
    }
}
