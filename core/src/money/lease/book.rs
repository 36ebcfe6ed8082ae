//! What a node may spend without asking, and what it holds.
//!
//! Invariants: a hold takes from every pool that applies or from none (law 14); what is charged is at most what was held, at each level
//! (law 3); a hold ends once, by settling. Amounts only move here: unheld → held → charged or unheld → returned. Time is the node's
//! monotonic clock. Hold and settle allocate nothing once the book has seen as many holds at once.

use std::time::Duration;

use super::size::Spend;
use crate::money::{
    amounts::Amounts,
    nano::NanoUsd,
    record::{Charge, Return, Target},
};

/// Most kinds of lease that one hold takes from: path, key, (path, model).
pub const MAX_KINDS: usize = 3;
/// Most leases that one hold takes from.
pub const MAX_DRAWS: usize = 8;

/// The leases of one scope at this node; the shell looks it up once per key and keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(usize);

/// A hold that is open.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct HoldId {
    slot: usize,
    turn: u64,
}

/// A lease, or a core's slice of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Number of the lease.
    pub lease: u64,
    /// No new hold from then on.
    pub ends: Duration,
    /// What is neither held nor spent.
    pub unheld: Amounts,
    /// Given for one request: the rest goes back when that has settled.
    pub single: bool,
}

#[derive(Debug, Clone)]
struct Held {
    slice: Slice,
    /// Holds that are open on it.
    holds: u32,
    recalled: bool,
    used: bool,
}

#[derive(Debug, Clone)]
struct Pool {
    /// In the order in which they came.
    leases: Vec<Held>,
    held: Amounts,
    spend: Spend,
    /// Numbers that were asked for and not answered.
    asked: Vec<u64>,
}

/// What a hold has of one lease.
#[derive(Debug, Clone, Copy)]
struct Draw {
    pool: usize,
    lease: u64,
    amounts: Amounts,
}

#[derive(Debug, Clone)]
struct Slot {
    turn: u64,
    draws: [Option<Draw>; MAX_DRAWS],
}

/// One core's leases and holds, or those of the node's money thread.
#[derive(Debug, Clone, Default)]
pub struct Book {
    pools: Vec<Pool>,
    slots: Vec<Slot>,
    idle: Vec<usize>,
}

/// Nothing was held: this pool has not enough, and should ask for what the hold needs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short(pub PoolId);

/// What an attempt was charged beyond its hold, which is settled whole then: the bound was too low. It is the operator's loss, and an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Over(pub NanoUsd);

impl Book {
    /// A pool for a scope of this many levels.
    pub fn add_pool(&mut self, depth: usize) -> PoolId {
        let pool = Pool {
            leases: Vec::new(),
            held: Amounts::zero(depth),
            spend: Spend::none(depth),
            asked: Vec::new(),
        };
        self.pools.push(pool);
        PoolId(self.pools.len().saturating_sub(1))
    }

    /// Holds amounts, one for each pool that applies, on leases that have not ended. The first that come are used first.
    ///
    /// # Errors
    /// When a pool has not enough, or only in more leases than a hold takes from; nothing is held then.
    pub fn hold(&mut self, asks: &[(PoolId, Amounts)], now: Duration) -> Result<HoldId, Short> {
        let mut draws = [None; MAX_DRAWS];
        let mut free = draws.iter_mut();
        for (pool, amounts) in asks {
            let mut missing = *amounts;
            let leases = self.pools.get(pool.0).map_or(&[][..], |pool| &pool.leases);
            for held in leases.iter().filter(|held| held.usable(now)) {
                let part = missing.least(&held.slice.unheld);
                if part.is_zero() {
                    continue;
                }
                let Some(place) = free.next() else { break };
                *place = Some(Draw {
                    pool: pool.0,
                    lease: held.slice.lease,
                    amounts: part,
                });
                missing = missing.beyond(&part);
                if missing.is_zero() {
                    break;
                }
            }
            if !missing.is_zero() {
                return Err(Short(*pool));
            }
        }
        for draw in draws.iter().flatten() {
            if let Some(pool) = self.pools.get_mut(draw.pool) {
                pool.take(draw);
            }
        }
        Ok(self.open(draws))
    }

    /// Ends a hold: charges its leases in their order, as far as it goes, and frees the rest. A charge is what the attempt costs a pool, and
    /// its list cost; a pool without one is charged nothing. What the leases are charged is added to `out`, for the journal.
    pub fn settle(
        &mut self,
        hold: HoldId,
        charges: &[(PoolId, Amounts, NanoUsd)],
        now: Duration,
        out: &mut Vec<Charge>,
    ) -> Over {
        let mut owed = [None; MAX_KINDS];
        for (place, charge) in owed.iter_mut().zip(charges) {
            *place = Some(*charge);
        }
        let Some(slot) = self
            .slots
            .get_mut(hold.slot)
            .filter(|slot| slot.turn == hold.turn)
        else {
            return Over::default();
        };
        slot.turn = slot.turn.wrapping_add(1);
        let draws = std::mem::replace(&mut slot.draws, [None; MAX_DRAWS]);
        self.idle.push(hold.slot);
        for draw in draws.iter().flatten() {
            let charge = owed
                .iter_mut()
                .flatten()
                .find(|(pool, _, _)| pool.0 == draw.pool);
            let (part, listed) = charge.map_or(
                (Amounts::zero(draw.amounts.depth()), NanoUsd(0)),
                |(_, owed, listed)| {
                    let part = owed.least(&draw.amounts);
                    *owed = owed.beyond(&part);
                    (part, std::mem::take(listed))
                },
            );
            if let Some(pool) = self.pools.get_mut(draw.pool) {
                pool.end(draw, &part, now);
            }
            if !part.is_zero() || listed.0 != 0 {
                out.push(Charge {
                    target: Target::Lease(draw.lease),
                    amounts: part,
                    listed,
                });
            }
        }
        Over(
            owed.iter()
                .flatten()
                .map(|(_, owed, _)| owed.largest())
                .max()
                .unwrap_or_default(),
        )
    }

    /// What a hold has of each lease, for its intent.
    pub fn held(&self, hold: &HoldId) -> impl Iterator<Item = (u64, Amounts)> + '_ {
        let slot = self
            .slots
            .get(hold.slot)
            .filter(|slot| slot.turn == hold.turn);
        let draws = slot
            .into_iter()
            .flat_map(|slot| slot.draws.iter().flatten());
        draws.map(|draw| (draw.lease, draw.amounts))
    }

    /// What to ask for, so that a request that needs `min` can go on and the next ones need not ask: open holds and what is spent
    /// in the time ahead, less what is there. `None` while at least half of that is there and nothing waits.
    pub fn ask(&mut self, pool: PoolId, min: &Amounts, now: Duration) -> Option<Amounts> {
        let pool = self.pools.get_mut(pool.0)?;
        let target = pool
            .spend
            .lately(now)
            .checked_add(&pool.held)
            .unwrap_or(pool.held);
        let unheld = pool.unheld(now);
        let enough = unheld.covers(&target.share(1, 2)) || !pool.asked.is_empty();
        let want = target.beyond(&unheld).most(min);
        let needless = want.is_zero() || (enough && min.is_zero());
        (!needless).then_some(want)
    }

    /// A lease with this number was asked for.
    pub fn asked(&mut self, pool: PoolId, lease: u64) {
        if let Some(pool) = self.pools.get_mut(pool.0) {
            pool.asked.push(lease);
        }
    }

    /// The answer to an ask: a slice, or nothing. One that was not asked for, or answered before, changes nothing; `false` says so.
    pub fn answered(&mut self, pool: PoolId, lease: u64, slice: Option<Slice>) -> bool {
        let Some(pool) = self.pools.get_mut(pool.0) else {
            return false;
        };
        let Some(at) = pool.asked.iter().position(|asked| *asked == lease) else {
            return false;
        };
        pool.asked.swap_remove(at);
        if let Some(slice) = slice {
            pool.put(slice);
        }
        true
    }

    /// Takes a slice of what is unheld, of one lease that has not ended, as much of `want` as it has.
    pub fn carve(&mut self, pool: PoolId, want: &Amounts, now: Duration) -> Option<Slice> {
        let leases = &mut self.pools.get_mut(pool.0)?.leases;
        let held = leases
            .iter_mut()
            .find(|held| held.usable(now) && !want.least(&held.slice.unheld).is_zero())?;
        let part = want.least(&held.slice.unheld);
        held.slice.unheld = held.slice.unheld.beyond(&part);
        Some(Slice {
            unheld: part,
            ..held.slice
        })
    }

    /// Takes a slice in.
    pub fn put(&mut self, pool: PoolId, slice: Slice) {
        if let Some(pool) = self.pools.get_mut(pool.0) {
            pool.put(slice);
        }
    }

    /// The control plane asks for a lease back: no new hold on it.
    pub fn recall(&mut self, lease: u64) {
        let leases = self.pools.iter_mut().flat_map(|pool| &mut pool.leases);
        leases
            .filter(|held| held.slice.lease == lease)
            .for_each(|held| held.recalled = true);
    }

    /// At stop: no new hold on anything.
    pub fn recall_all(&mut self) {
        let leases = self.pools.iter_mut().flat_map(|pool| &mut pool.leases);
        leases.for_each(|held| held.recalled = true);
    }

    /// Takes out what is unheld of leases that no new hold may use, as returns for the journal. What their open holds leave comes with a
    /// later call.
    pub fn returns(&mut self, now: Duration, out: &mut Vec<Return>) {
        for pool in &mut self.pools {
            for held in pool
                .leases
                .iter_mut()
                .filter(|held| !held.usable(now) || held.is_used_up())
            {
                let amounts =
                    std::mem::replace(&mut held.slice.unheld, Amounts::zero(pool.held.depth()));
                out.extend((!amounts.is_zero()).then_some(Return {
                    lease: held.slice.lease,
                    amounts,
                }));
            }
            pool.leases
                .retain(|held| held.holds > 0 || (held.usable(now) && !held.is_used_up()));
        }
    }

    fn open(&mut self, draws: [Option<Draw>; MAX_DRAWS]) -> HoldId {
        if let Some(slot) = self.idle.pop()
            && let Some(place) = self.slots.get_mut(slot)
        {
            place.draws = draws;
            return HoldId {
                slot,
                turn: place.turn,
            };
        }
        self.slots.push(Slot { turn: 0, draws });
        HoldId {
            slot: self.slots.len().saturating_sub(1),
            turn: 0,
        }
    }
}

impl Held {
    fn usable(&self, now: Duration) -> bool {
        !self.recalled && now < self.slice.ends
    }

    /// Nothing is held on it, and nothing more shall be: all of it is spent, or the one request that it was for has come and gone.
    fn is_used_up(&self) -> bool {
        self.holds == 0 && (self.slice.unheld.is_zero() || (self.slice.single && self.used))
    }
}

impl Pool {
    fn unheld(&self, now: Duration) -> Amounts {
        let usable = self.leases.iter().filter(|held| held.usable(now));
        usable.fold(Amounts::zero(self.held.depth()), |sum, held| {
            sum.checked_add(&held.slice.unheld).unwrap_or(sum)
        })
    }

    fn lease(&mut self, lease: u64) -> Option<&mut Held> {
        self.leases
            .iter_mut()
            .find(|held| held.slice.lease == lease)
    }

    fn put(&mut self, slice: Slice) {
        if let Some(held) = self.lease(slice.lease) {
            held.slice.unheld = held
                .slice
                .unheld
                .checked_add(&slice.unheld)
                .unwrap_or(held.slice.unheld);
        } else {
            self.leases.push(Held {
                slice,
                holds: 0,
                recalled: false,
                used: false,
            });
        }
    }

    fn take(&mut self, draw: &Draw) {
        self.held = self.held.checked_add(&draw.amounts).unwrap_or(self.held);
        if let Some(held) = self.lease(draw.lease) {
            held.slice.unheld = held.slice.unheld.beyond(&draw.amounts);
            held.holds = held.holds.saturating_add(1);
            held.used = true;
        }
    }

    fn end(&mut self, draw: &Draw, charged: &Amounts, now: Duration) {
        self.held = self.held.beyond(&draw.amounts);
        self.spend.add(charged, now);
        let rest = draw.amounts.beyond(charged);
        if let Some(held) = self.lease(draw.lease) {
            held.holds = held.holds.saturating_sub(1);
            held.slice.unheld = held
                .slice
                .unheld
                .checked_add(&rest)
                .unwrap_or(held.slice.unheld);
        }
    }
}
