//! A budget row: limits per window, and where the money of each window is.
//!
//! Invariants (law 2): limit = free + leased + suspense + charged + settled in every line, where free alone may be negative, after a
//! narrowing or a restore. Free is what is left, so the equation cannot be broken; what can be is a part going below zero, which is
//! refused. A row has a line for each period also where it has no limit: a limit that is set later counts what was spent before.

use super::{
    super::nano::NanoUsd,
    super::window::{Period, Stamp, Window, Windows},
    fault::Fault,
};

/// A limit on what may be spent in each window of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// The most, in nano-USD.
    pub amount: NanoUsd,
    /// Whether it holds to the nano-dollar through every crash, for which a request waits for the disk.
    pub hard: bool,
    /// What is spent when a warning is due.
    pub alert_at: Option<NanoUsd>,
}

/// Where money can be, besides free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Not spent and not promised.
    Free,
    /// With a node that may spend it.
    Leased,
    /// With a node's earlier epoch that may have spent it.
    Suspense,
    /// Counted as spent because its node was forgotten; a replay of that node's journal may still tell better.
    Charged,
    /// Spent.
    Settled,
}

/// One window of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// Which one.
    pub window: Window,
    /// The limit; that of its end once it is over.
    pub limit: Option<Limit>,
    /// With nodes that may spend it.
    pub leased: NanoUsd,
    /// With earlier epochs of nodes.
    pub suspense: NanoUsd,
    /// Counted as spent by `xai node forget`.
    pub charged: NanoUsd,
    /// Spent: the charges of this level.
    pub settled: NanoUsd,
    /// List cost of what was spent, for comparison with other levels (law 7).
    pub listed: NanoUsd,
}

impl Line {
    fn empty(window: Window, limit: Option<Limit>) -> Self {
        let zero = NanoUsd(0);
        Self {
            window,
            limit,
            leased: zero,
            suspense: zero,
            charged: zero,
            settled: zero,
            listed: zero,
        }
    }

    /// What counts against the limit, wherever it is.
    ///
    /// # Errors
    /// When an amount cannot hold it.
    pub fn used(&self) -> Result<NanoUsd, Fault> {
        [self.suspense, self.charged, self.settled]
            .into_iter()
            .try_fold(self.leased, NanoUsd::checked_add)
            .ok_or(Fault::Overflow)
    }

    /// What may still be leased: negative after a narrowing; `None` without a limit.
    ///
    /// # Errors
    /// When an amount cannot hold it.
    pub fn free(&self) -> Result<Option<NanoUsd>, Fault> {
        let used = self.used()?;
        self.limit
            .map(|limit| limit.amount.checked_sub(used).ok_or(Fault::Overflow))
            .transpose()
    }

    /// Whether what was spent has reached the threshold of a warning.
    pub fn alerts(&self) -> bool {
        let spent = self.settled.0.saturating_add(self.charged.0);
        self.limit
            .and_then(|limit| limit.alert_at)
            .is_some_and(|threshold| spent >= threshold.0)
    }

    /// Whether nothing can change it any more: it is over and no lease names it.
    pub fn is_final(&self, at: Stamp) -> bool {
        self.window.ended(at) && self.leased.0 == 0 && self.suspense.0 == 0
    }

    /// Moves an amount.
    ///
    /// # Errors
    /// When there is less where it shall come from, or an amount cannot hold the sum.
    pub fn shift(&mut self, amount: NanoUsd, from: Place, to: Place) -> Result<(), Fault> {
        let mut line = *self;
        if let Some(place) = line.place(from) {
            let rest = place.checked_sub(amount).filter(|rest| rest.0 >= 0);
            *place = rest.ok_or(Fault::Broken("a budget line has less than a lease says"))?;
        }
        if let Some(place) = line.place(to) {
            *place = place.checked_add(amount).ok_or(Fault::Overflow)?;
        }
        line.used()?;
        line.free()?;
        *self = line;
        Ok(())
    }

    fn place(&mut self, place: Place) -> Option<&mut NanoUsd> {
        match place {
            Place::Free => None,
            Place::Leased => Some(&mut self.leased),
            Place::Suspense => Some(&mut self.suspense),
            Place::Charged => Some(&mut self.charged),
            Place::Settled => Some(&mut self.settled),
        }
    }
}

/// The row of an account, a key, or a model at an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct BudgetRow {
    /// The limit of each period, in the order of [`Period::ALL`].
    limits: [Option<Limit>; 4],
    /// Lines of windows, oldest first.
    lines: Vec<Line>,
    /// The last stamp that the row has seen.
    stamped: Stamp,
}

impl BudgetRow {
    /// Brings the row to a moment: opens the lines of its windows. A row that has seen a later moment stays there.
    pub fn roll(&mut self, windows: &Windows, at: Stamp) {
        self.stamped = self.stamped.max(at);
        for window in windows.iter() {
            self.open(window);
        }
    }

    /// Opens the line of a window.
    pub fn open(&mut self, window: Window) {
        if self.line(window).is_none() {
            self.lines
                .push(Line::empty(window, self.limit(window.period)));
            self.lines.sort_by_key(|line| (line.window.to, line.window));
        }
    }

    /// The last stamp that the row has seen: the leader's next one is not before it.
    pub fn stamped(&self) -> Stamp {
        self.stamped
    }

    /// The limit of a period.
    pub fn limit(&self, period: Period) -> Option<Limit> {
        self.limits.get(period.index()).copied().flatten()
    }

    /// Sets or takes away the limit of a period, from now on and for the windows that are not over. Less than what is used is allowed:
    /// free is negative then, and nothing is leased until it is positive again.
    ///
    /// # Errors
    /// When an amount cannot hold what would be free.
    pub fn set_limit(&mut self, period: Period, limit: Option<Limit>) -> Result<(), Fault> {
        let mut row = self.clone();
        let stamped = row.stamped;
        for line in row
            .lines
            .iter_mut()
            .filter(|line| line.window.period == period && !line.window.ended(stamped))
        {
            line.limit = limit;
            line.free()?;
        }
        if let Some(place) = row.limits.get_mut(period.index()) {
            *place = limit;
        }
        *self = row;
        Ok(())
    }

    /// Whether a period has a limit that must hold exactly.
    pub fn is_hard(&self) -> bool {
        self.limits.iter().flatten().any(|limit| limit.hard)
    }

    /// All lines, oldest first.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The line of a window.
    pub fn line(&self, window: Window) -> Option<&Line> {
        self.lines.iter().find(|line| line.window == window)
    }

    /// The line of a window, to be changed; `None` when it was retired.
    pub fn line_mut(&mut self, window: Window) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.window == window)
    }

    /// The tightest of these windows and what may still be leased in it; `None` when none of them has a limit.
    ///
    /// # Errors
    /// When an amount cannot hold it.
    pub fn tightest(&self, windows: &Windows) -> Result<Option<(Window, NanoUsd)>, Fault> {
        let mut tightest: Option<(Window, NanoUsd)> = None;
        for window in windows.iter() {
            let Some(free) = self.line(window).map(Line::free).transpose()?.flatten() else {
                continue;
            };
            if tightest.is_none_or(|(_, least)| free < least) {
                tightest = Some((window, free));
            }
        }
        Ok(tightest)
    }

    /// Takes out the lines of windows that are final, for statements. Not while a restored ledger waits for nodes: they may yet tell of
    /// leases in those windows.
    pub fn retire(&mut self, at: Stamp) -> Vec<Line> {
        let (done, kept) = self
            .lines
            .iter()
            .copied()
            .partition(|line| line.is_final(at));
        self.lines = kept;
        done
    }
}
