//! A credit grant: money that an account was given, and where it is.
//!
//! Invariants (law 2): amount = free + funded down + leased + suspense + charged + settled + expired + refunded. Free is what is left;
//! it may be negative only after a restore. What comes back to a grant that is over becomes expired.

use super::{
    super::nano::NanoUsd,
    super::window::Stamp,
    budget::Place,
    fault::Fault,
    id::{AccountId, GrantId},
};

/// Where a grant's money is from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The account above that gave it.
    pub account: AccountId,
    /// From which of its grants.
    pub grant: GrantId,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Which one.
    pub id: GrantId,
    /// From which grant of an account above; `None` when the operator issued it.
    pub source: Option<Source>,
    /// Its end.
    pub expires: Stamp,
    /// All that was ever given.
    pub amount: NanoUsd,
    /// Given on to accounts below.
    pub funded_down: NanoUsd,
    /// With nodes that may spend it.
    pub leased: NanoUsd,
    /// With earlier epochs of nodes.
    pub suspense: NanoUsd,
    /// Counted as spent by `xai node forget`.
    pub charged: NanoUsd,
    /// Spent.
    pub settled: NanoUsd,
    /// Not spent until its end.
    pub expired: NanoUsd,
    /// Given back to its source.
    pub refunded: NanoUsd,
}

impl Grant {
    /// A grant of which nothing is used.
    pub fn new(id: GrantId, source: Option<Source>, expires: Stamp, amount: NanoUsd) -> Self {
        let zero = NanoUsd(0);
        Self {
            id,
            source,
            expires,
            amount,
            funded_down: zero,
            leased: zero,
            suspense: zero,
            charged: zero,
            settled: zero,
            expired: zero,
            refunded: zero,
        }
    }

    /// What may still be leased, given on or refunded.
    ///
    /// # Errors
    /// When an amount cannot hold it.
    pub fn free(&self) -> Result<NanoUsd, Fault> {
        [
            self.funded_down,
            self.leased,
            self.suspense,
            self.charged,
            self.settled,
            self.expired,
            self.refunded,
        ]
        .into_iter()
        .try_fold(self.amount, NanoUsd::checked_sub)
        .ok_or(Fault::Overflow)
    }

    /// Whether its end is past.
    pub fn is_over(&self, at: Stamp) -> bool {
        self.expires <= at
    }

    /// Whether money of it is still somewhere from where it may move, or missing after a restore. A grant that is over takes no refunds, so
    /// what was given on does not keep it open.
    pub fn is_open(&self, at: Stamp) -> bool {
        let out = [self.leased, self.suspense, self.charged];
        let free = self.free().map_or(0, |free| free.0);
        let alive = !self.is_over(at) && (self.funded_down.0 > 0 || free > 0);
        alive || free < 0 || out.iter().any(|part| part.0 > 0)
    }

    /// Moves an amount; what becomes free in a grant that is over expires.
    ///
    /// # Errors
    /// When there is less where it shall come from.
    pub fn shift(
        &mut self,
        amount: NanoUsd,
        from: Place,
        to: Place,
        at: Stamp,
    ) -> Result<(), Fault> {
        let mut grant = self.clone();
        let over = grant.is_over(at);
        if let Some(place) = grant.place(from) {
            let rest = place.checked_sub(amount).filter(|rest| rest.0 >= 0);
            *place = rest.ok_or(Fault::Broken("a grant has less than a lease says"))?;
        }
        let target = match grant.place(to) {
            Some(place) => Some(place),
            None if over => Some(&mut grant.expired),
            None => None,
        };
        if let Some(place) = target {
            *place = place.checked_add(amount).ok_or(Fault::Overflow)?;
        }
        grant.free()?;
        *self = grant;
        Ok(())
    }

    /// Lets what is free expire when the end is past.
    ///
    /// # Errors
    /// When an amount cannot hold it.
    pub fn expire(&mut self, at: Stamp) -> Result<(), Fault> {
        let free = self.free()?;
        if self.is_over(at) && free.0 > 0 {
            self.expired = self.expired.checked_add(free).ok_or(Fault::Overflow)?;
        }
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
