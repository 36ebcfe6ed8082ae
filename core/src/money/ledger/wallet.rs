//! The wallet of an account: its credit grants.
//!
//! Invariants: at most [`MAX_GRANTS`] are open; money with the same source and end is one grant; a grant never outlives its source, and
//! stays while its source does. An account that ever had a grant stays a wallet, so one that is empty refuses instead of spending
//! from above.

use super::{
    super::{nano::NanoUsd, window::Stamp},
    budget::Place,
    fault::Fault,
    grant::{Grant, Source},
    id::GrantId,
    parts::Parts,
};

/// Most grants of an account that are open at once.
pub const MAX_GRANTS: usize = 32;

/// All grants of an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Wallet {
    grants: Vec<Grant>,
    given: u32,
    /// What the grants that are closed came to, so that the wallet's sums stay whole.
    closed: Closed,
}

/// Sums of closed grants; amount = funded down + settled + expired + refunded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Closed {
    /// All that was ever given.
    pub amount: NanoUsd,
    /// Given on to accounts below.
    pub funded_down: NanoUsd,
    /// Spent.
    pub settled: NanoUsd,
    /// Not spent until its end.
    pub expired: NanoUsd,
    /// Given back.
    pub refunded: NanoUsd,
}

/// The wallet has [`MAX_GRANTS`] open grants already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyGrants;

impl Wallet {
    /// Open grants, in the order in which they were given.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Sums of those that are closed.
    pub fn closed(&self) -> Closed {
        self.closed
    }

    /// One open grant.
    pub fn grant(&self, id: GrantId) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.id == id)
    }

    /// Lets what is over expire, and closes the grants of which nothing can move any more.
    ///
    /// # Errors
    /// When an amount cannot hold a sum.
    pub fn roll(&mut self, at: Stamp) -> Result<(), Fault> {
        for grant in &mut self.grants {
            grant.expire(at)?;
        }
        let (kept, done): (Vec<Grant>, Vec<Grant>) = std::mem::take(&mut self.grants)
            .into_iter()
            .partition(|grant| grant.is_open(at));
        self.grants = kept;
        for grant in done {
            self.closed = self.closed.with(&grant).ok_or(Fault::Overflow)?;
        }
        Ok(())
    }

    /// What may be leased, given on or refunded now.
    ///
    /// # Errors
    /// When an amount cannot hold it.
    pub fn free(&self, at: Stamp) -> Result<NanoUsd, Fault> {
        Parts::new(self.free_parts(at)?).sum()
    }

    /// Takes an amount out of what is free, soonest end first, into a place.
    ///
    /// # Errors
    /// When there is not that much.
    pub fn take(&mut self, amount: NanoUsd, to: Place, at: Stamp) -> Result<Parts, Fault> {
        let parts = Parts::new(self.free_parts(at)?).consume(amount)?;
        self.shift(&parts, Place::Free, to, at)?;
        Ok(parts)
    }

    /// Moves parts between places.
    ///
    /// # Errors
    /// When a grant is not there, or has less where it shall come from.
    pub fn shift(&mut self, parts: &Parts, from: Place, to: Place, at: Stamp) -> Result<(), Fault> {
        for (id, amount) in parts.iter() {
            self.get_mut(id)?.shift(amount, from, to, at)?;
        }
        Ok(())
    }

    /// Gives parts of grants on to an account below.
    ///
    /// # Errors
    /// When there is not that much.
    pub fn fund_down(&mut self, amount: NanoUsd, at: Stamp) -> Result<Parts, Fault> {
        let parts = Parts::new(self.free_parts(at)?).consume(amount)?;
        for (id, amount) in parts.iter() {
            self.give_on(id, amount)?;
        }
        Ok(parts)
    }

    /// Takes money in: more for the grant of this source and end, or a new grant.
    ///
    /// # Errors
    /// `Ok(Err(_))` when there would be more grants than a wallet may have.
    pub fn receive(
        &mut self,
        source: Option<Source>,
        expires: Stamp,
        amount: NanoUsd,
    ) -> Result<Result<GrantId, TooManyGrants>, Fault> {
        let same = |grant: &&mut Grant| grant.source == source && grant.expires == expires;
        if let Some(grant) = self.grants.iter_mut().find(same) {
            grant.amount = grant.amount.checked_add(amount).ok_or(Fault::Overflow)?;
            return Ok(Ok(grant.id));
        }
        if self.grants.len() >= MAX_GRANTS {
            return Ok(Err(TooManyGrants));
        }
        self.given = self.given.checked_add(1).ok_or(Fault::Overflow)?;
        let id = GrantId(self.given);
        self.grants.push(Grant::new(id, source, expires, amount));
        Ok(Ok(id))
    }

    /// Takes money in under an id that was given before, when a restored wallet is brought forward.
    ///
    /// # Errors
    /// When an amount cannot hold the sum.
    pub(super) fn receive_as(
        &mut self,
        id: GrantId,
        source: Option<Source>,
        expires: Stamp,
        amount: NanoUsd,
    ) -> Result<(), Fault> {
        self.given = self.given.max(id.0);
        if let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == id) {
            grant.amount = grant.amount.checked_add(amount).ok_or(Fault::Overflow)?;
        } else {
            self.grants.push(Grant::new(id, source, expires, amount));
        }
        Ok(())
    }

    /// What would be given back to make up this amount: latest end first, so that what is about to expire is left to be spent.
    ///
    /// # Errors
    /// When there is not that much.
    pub fn refundable(&self, amount: NanoUsd, at: Stamp) -> Result<Parts, Fault> {
        Parts::new(self.free_parts(at)?).give_back(amount)
    }

    /// Gives an amount of a grant back, and tells to where.
    ///
    /// # Errors
    /// When the grant is not there.
    pub(super) fn refund(&mut self, id: GrantId, amount: NanoUsd) -> Result<Option<Source>, Fault> {
        let grant = self.get_mut(id)?;
        grant.refunded = grant.refunded.checked_add(amount).ok_or(Fault::Overflow)?;
        Ok(grant.source.clone())
    }

    /// Counts what was given on from a grant.
    ///
    /// # Errors
    /// When the grant is not there.
    pub(super) fn give_on(&mut self, id: GrantId, amount: NanoUsd) -> Result<(), Fault> {
        let grant = self.get_mut(id)?;
        grant.funded_down = grant
            .funded_down
            .checked_add(amount)
            .ok_or(Fault::Overflow)?;
        Ok(())
    }

    /// Takes back what was given on.
    ///
    /// # Errors
    /// When the grant is not there or gave less than that.
    pub fn take_back(&mut self, id: GrantId, amount: NanoUsd) -> Result<(), Fault> {
        let grant = self.get_mut(id)?;
        let rest = grant
            .funded_down
            .checked_sub(amount)
            .filter(|rest| rest.0 >= 0);
        grant.funded_down = rest.ok_or(Fault::Broken("a grant gave less than comes back"))?;
        Ok(())
    }

    /// The soonest end among these parts.
    pub fn first_end(&self, parts: &Parts) -> Stamp {
        let ends = parts
            .iter()
            .filter_map(|(id, _)| self.grant(id))
            .map(|grant| grant.expires);
        ends.min().unwrap_or(Stamp::NEVER)
    }

    /// Money that is with nodes.
    ///
    /// # Errors
    /// When an amount cannot hold it.
    pub fn out(&self) -> Result<NanoUsd, Fault> {
        self.grants
            .iter()
            .flat_map(|grant| [grant.leased, grant.suspense])
            .try_fold(NanoUsd(0), NanoUsd::checked_add)
            .ok_or(Fault::Overflow)
    }

    fn free_parts(&self, at: Stamp) -> Result<Vec<(GrantId, NanoUsd)>, Fault> {
        let mut alive: Vec<&Grant> = self
            .grants
            .iter()
            .filter(|grant| !grant.is_over(at))
            .collect();
        alive.sort_by_key(|grant| (grant.expires, grant.id));
        alive
            .into_iter()
            .map(|grant| Ok((grant.id, grant.free()?)))
            .collect()
    }

    fn get_mut(&mut self, id: GrantId) -> Result<&mut Grant, Fault> {
        let found = self.grants.iter_mut().find(|grant| grant.id == id);
        found.ok_or(Fault::Broken("a grant that is used is not open"))
    }
}

impl Closed {
    fn with(self, grant: &Grant) -> Option<Self> {
        Some(Self {
            amount: self.amount.checked_add(grant.amount)?,
            funded_down: self.funded_down.checked_add(grant.funded_down)?,
            settled: self.settled.checked_add(grant.settled)?,
            expired: self.expired.checked_add(grant.expired)?,
            refunded: self.refunded.checked_add(grant.refunded)?,
        })
    }
}
