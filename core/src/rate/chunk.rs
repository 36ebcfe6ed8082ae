//! What a node may admit without asking.
//!
//! Invariants: a chunk is not spent after its lifetime; its rest comes back. Tokens reserve an estimate and settle: what they cost less
//! comes back, what they cost more is a debt that is taken from the next chunks, and told to the leader.

use super::counter::{CHUNK_LIFETIME_MS, Slot};

/// Below this many per minute and node a limit is asked for request by request: there is nothing to split.
pub const SMALL_PER_NODE: u64 = 10;

/// How much to ask for: the demand of a second, but what the request that waits needs at least; of a small limit nothing more.
pub fn ask(needed: u64, demand_per_second: u64, limit_per_minute: u64, nodes: u64) -> u64 {
    let small = limit_per_minute < SMALL_PER_NODE.saturating_mul(nodes.max(1));
    if small {
        needed
    } else {
        needed.max(demand_per_second)
    }
}

/// What a node may go on with while no leader answers, per window and for a grace time: its part of the last known split, or an equal one, and
/// never more than all parts together may have.
pub fn safe_share(limit: u64, own_part: u64, all_parts: u64, nodes: u64) -> u64 {
    let (part, whole) = if all_parts == 0 {
        (1, nodes.max(1))
    } else {
        (own_part.min(all_parts), all_parts)
    };
    let share = u128::from(limit)
        .saturating_mul(u128::from(part))
        .checked_div(u128::from(whole));
    share
        .and_then(|share| u64::try_from(share).ok())
        .unwrap_or(0)
}

/// The chunks of one limit at one node. Times are the node's monotonic milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunks {
    /// Those that are not over, oldest first.
    chunks: Vec<Chunk>,
    /// What goes back at the next report.
    rests: Vec<(Slot, u64)>,
    debt: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    slot: Slot,
    left: u64,
    ends_ms: u64,
}

/// What a node tells the leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Not spent, by the slot in which it was given: refunds.
    pub rests: Vec<(Slot, u64)>,
    /// Spent beyond what was given: it counts as given now.
    pub debt: u64,
}

impl Chunks {
    /// A chunk came that was given in this slot, and asked for at this time. It first pays what is owed.
    pub fn put(&mut self, slot: Slot, amount: u64, asked_ms: u64) {
        let ends_ms = asked_ms.saturating_add(CHUNK_LIFETIME_MS);
        self.chunks.push(Chunk {
            slot,
            left: amount,
            ends_ms,
        });
        self.pay();
    }

    /// Spends an amount of one chunk, and tells which one's; `None` when none has that much.
    pub fn take(&mut self, amount: u64, now_ms: u64) -> Option<Slot> {
        let chunk = self
            .chunks
            .iter_mut()
            .find(|chunk| now_ms < chunk.ends_ms && chunk.left >= amount)?;
        chunk.left = chunk.left.saturating_sub(amount);
        Some(chunk.slot)
    }

    /// A request that had reserved an estimate of a chunk has cost this. What it cost less is spent again only while the chunk lives: later it
    /// would no longer count in the window in which it was given.
    pub fn settle(&mut self, slot: Slot, estimate: u64, cost: u64, now_ms: u64) {
        let rest = estimate.saturating_sub(cost);
        match self
            .chunks
            .iter_mut()
            .find(|chunk| chunk.slot == slot && now_ms < chunk.ends_ms)
        {
            Some(chunk) => chunk.left = chunk.left.saturating_add(rest),
            None if rest > 0 => self.rests.push((slot, rest)),
            None => {}
        }
        self.debt = self.debt.saturating_add(cost.saturating_sub(estimate));
        self.pay();
    }

    /// What there is to tell the leader: rests of chunks that are over, and what no chunk could pay.
    pub fn report(&mut self, now_ms: u64) -> Report {
        let over = |chunk: &Chunk| now_ms >= chunk.ends_ms;
        let rests = self
            .chunks
            .iter()
            .filter(|chunk| over(chunk) && chunk.left > 0);
        self.rests
            .extend(rests.map(|chunk| (chunk.slot, chunk.left)));
        self.chunks.retain(|chunk| !over(chunk));
        Report {
            rests: std::mem::take(&mut self.rests),
            debt: std::mem::take(&mut self.debt),
        }
    }

    fn pay(&mut self) {
        for chunk in &mut self.chunks {
            let paid = self.debt.min(chunk.left);
            chunk.left = chunk.left.saturating_sub(paid);
            self.debt = self.debt.saturating_sub(paid);
        }
    }
}
