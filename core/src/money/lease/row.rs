//! The ledger's row of a lease: a slice of money that one node may spend without asking.
//!
//! Invariants (law 3): what is left, plus what was charged to it and returned, is what was granted; `left.credit()` is the sum of
//! `parts`. It counts in the windows of its grant, whenever its holds settle.

use super::super::{
    amounts::Amounts,
    ledger::{
        budget::Place,
        fault::Fault,
        id::{RowKey, Scope},
        parts::Parts,
    },
    window::{Stamp, Windows},
};

/// What a lease was given for: it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Terms {
    /// On what it may be spent.
    pub scope: Scope,
    /// The windows that it counts in.
    pub windows: Windows,
    /// Which level of the path is the wallet that pays.
    pub wallet: Option<usize>,
    /// No new hold from then on: the first end of a window or grant in it.
    pub ends: Stamp,
    /// All that it had.
    pub granted: Amounts,
    /// Given for one request when money was short; not recalled before that settles.
    pub single: bool,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// What it was given for.
    pub terms: Terms,
    /// What was neither charged to it nor returned.
    pub left: Amounts,
    /// From which grants what is left of the credit is.
    pub parts: Parts,
    /// Where the rows count what is left: leased, in suspense, or charged.
    pub place: Place,
}

impl Terms {
    /// The row of the wallet that pays.
    pub fn wallet_row(&self) -> Option<RowKey> {
        self.scope.rows().into_iter().nth(self.wallet?)
    }
}

impl Lease {
    /// Takes a charge out of what is left, as much of it as fits, and tells what that is and from which grants.
    ///
    /// # Errors
    /// When the lease contradicts itself.
    pub fn charge(&mut self, amounts: &Amounts) -> Result<(Amounts, Parts), Fault> {
        let fits = amounts.least(&self.left);
        self.take(fits)?;
        let parts = self.parts.consume(fits.credit())?;
        Ok((fits, parts))
    }

    /// Takes a return out of what is left, as much of it as fits, and tells what that is and of which grants.
    ///
    /// # Errors
    /// When the lease contradicts itself.
    pub fn give_back(&mut self, amounts: &Amounts) -> Result<(Amounts, Parts), Fault> {
        let fits = amounts.least(&self.left);
        self.take(fits)?;
        let parts = self.parts.give_back(fits.credit())?;
        Ok((fits, parts))
    }

    fn take(&mut self, amounts: Amounts) -> Result<(), Fault> {
        let rest = self.left.checked_sub(&amounts);
        self.left = rest.ok_or(Fault::Broken("a lease has another depth than its path"))?;
        Ok(())
    }
}
