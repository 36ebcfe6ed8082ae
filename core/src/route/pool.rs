//! Pools: the upstream keys that may serve a model in a dialect, compiled once per snapshot.

use crate::{account::pattern::Pattern, dialect::Dialect};

use super::retry::MAX_ATTEMPTS;

/// Where an upstream key stands in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamKeyIndex(pub usize);

/// Where a pool stands in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolIndex(pub usize);

/// Upstream keys that take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Stays the same from snapshot to snapshot, so that the turn goes on.
    pub name: String,
    /// Enabled keys of enabled providers that speak the dialect.
    pub keys: Vec<UpstreamKeyIndex>,
}

/// Which pool serves a model: for each dialect its routes, the most specific first, then the default.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    routes: Vec<(Dialect, Pattern, PoolIndex)>,
    defaults: Vec<(Dialect, PoolIndex)>,
}

impl RouteTable {
    /// Orders the routes: most literal characters first, ties by the order given.
    pub fn new(
        mut routes: Vec<(Dialect, Pattern, PoolIndex)>,
        defaults: Vec<(Dialect, PoolIndex)>,
    ) -> Self {
        routes.sort_by_key(|(_, pattern, _)| std::cmp::Reverse(pattern.literal_len()));
        Self { routes, defaults }
    }

    /// The pool for a model.
    pub fn find(&self, dialect: Dialect, model: &str) -> Option<PoolIndex> {
        let routed = self
            .routes
            .iter()
            .find(|(d, pattern, _)| *d == dialect && pattern.matches(model));
        routed
            .map(|(_, _, pool)| *pool)
            .or_else(|| self.default_of(dialect))
    }

    /// The pool for models that no route names, and for requests without a model.
    pub fn default_of(&self, dialect: Dialect) -> Option<PoolIndex> {
        self.defaults
            .iter()
            .find(|(d, _)| *d == dialect)
            .map(|(_, pool)| *pool)
    }
}

/// The upstream keys to try, in order: the pool from its turn on, each key once, at most [`MAX_ATTEMPTS`].
pub fn candidates(pool: &Pool, turn: usize) -> impl Iterator<Item = UpstreamKeyIndex> + '_ {
    let first = turn.checked_rem(pool.keys.len()).unwrap_or(0);
    pool.keys
        .iter()
        .cycle()
        .skip(first)
        .take(pool.keys.len().min(MAX_ATTEMPTS))
        .copied()
}
