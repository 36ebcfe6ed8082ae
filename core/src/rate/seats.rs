//! Requests at once: a limit whose leases are given back when requests end.
//!
//! Invariant: the seats that nodes may fill never sum to more than the limit that they were given under. A node renews its seats well within their
//! lifetime; one that is silent for longer has them taken, so a request that it still serves is not counted until it is back.

use std::collections::BTreeMap;

use crate::money::ledger::id::NodeId;

/// For how long a node may fill seats without a renewal, in milliseconds.
pub const SEATS_LIFETIME_MS: u64 = 10_000;

/// The seats of one limit, at the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seats {
    limit: u64,
    nodes: BTreeMap<NodeId, (u64, u64)>,
}

impl Seats {
    /// Seats of which none is taken.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            nodes: BTreeMap::new(),
        }
    }

    /// Another limit from now on. Nodes that have more keep what they fill, and get no other.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// A node fills `filled` seats and would like `wanted`: what it may fill now, and never less than it fills already.
    pub fn renew(&mut self, node: &NodeId, filled: u64, wanted: u64, now_ms: u64) -> u64 {
        self.nodes
            .retain(|other, (_, until)| other == node || *until > now_ms);
        let others = self
            .nodes
            .iter()
            .filter(|(other, _)| *other != node)
            .map(|(_, (seats, _))| *seats);
        let room = self
            .limit
            .saturating_sub(others.fold(0, u64::saturating_add));
        let seats = wanted.min(room).max(filled);
        self.nodes.insert(
            node.clone(),
            (seats, now_ms.saturating_add(SEATS_LIFETIME_MS)),
        );
        seats
    }

    /// A node went.
    pub fn leave(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }
}
