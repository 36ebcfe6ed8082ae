//! Pools: the upstream keys that may serve a model in a dialect, by levels, compiled once per snapshot.

use std::sync::Arc;

use proxyxai_proto::config::v1 as proto;

use super::{
    mapping::Mapping,
    retry::{AttemptEnd, MAX_ATTEMPTS},
    turns,
};
use crate::{
    account::pattern::{Pattern, PatternList},
    dialect::Dialect,
    snapshot::ProviderIndex,
};

/// Highest number of a level; the lowest is 0, which is tried first.
pub const MAX_LEVEL: u32 = 10;

/// Where an upstream key stands in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamKeyIndex(pub usize);

/// Where a pool stands in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolIndex(pub usize);

/// Upstream keys that take turns, in levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Stays the same from snapshot to snapshot, so that the turn goes on.
    pub name: String,
    /// Enabled keys of enabled providers that speak the dialect; none is empty.
    pub levels: Vec<Level>,
    /// When the next level has its turn.
    pub switch_over: SwitchOver,
    /// What the upstream calls the models; `None` leaves names as they are.
    pub mapping: Option<Mapping>,
}

/// Keys among which the turn goes round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    members: Vec<Member>,
    /// One round of turns, as places in `members`.
    round: Box<[u32]>,
}

/// A key of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which key.
    pub key: UpstreamKeyIndex,
    /// Whose key it is.
    pub provider: ProviderIndex,
    /// How many turns it has among its neighbours: 1 to 100.
    pub weight: u32,
    /// The models that it serves, by the upstream's names.
    pub models: Arc<PatternList>,
}

/// When the next level is tried, after an attempt that may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwitchOver {
    /// When every key of the level was tried. The last attempt that a request has goes to the next level in any case.
    #[default]
    Exhausted,
    /// At once when the provider throttles (429); else as above.
    RateLimited,
    /// At once.
    AnyFailure,
}

impl std::fmt::Display for SwitchOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SwitchOver {
    /// Every rule.
    pub const ALL: [Self; 3] = [Self::Exhausted, Self::RateLimited, Self::AnyFailure];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::RateLimited => "rate_limited",
            Self::AnyFailure => "any_failure",
        }
    }

    /// The rule with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == word)
    }

    /// From the wire.
    pub fn from_proto(rule: proto::SwitchOver) -> Self {
        match rule {
            proto::SwitchOver::Unspecified | proto::SwitchOver::Exhausted => Self::Exhausted,
            proto::SwitchOver::RateLimited => Self::RateLimited,
            proto::SwitchOver::AnyFailure => Self::AnyFailure,
        }
    }

    /// To the wire.
    pub fn to_proto(self) -> proto::SwitchOver {
        match self {
            Self::Exhausted => proto::SwitchOver::Exhausted,
            Self::RateLimited => proto::SwitchOver::RateLimited,
            Self::AnyFailure => proto::SwitchOver::AnyFailure,
        }
    }

    fn leaves(self, end: AttemptEnd) -> bool {
        match self {
            Self::Exhausted => false,
            Self::RateLimited => matches!(
                end,
                AttemptEnd::Status(429) | AttemptEnd::FirstEventError(429)
            ),
            Self::AnyFailure => true,
        }
    }
}

impl Level {
    /// A level of these keys.
    pub fn new(members: Vec<Member>) -> Self {
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        Self {
            round: turns::round(&weights),
            members,
        }
    }

    /// The keys, the one whose turn it is first; those with more weight stand there several times.
    fn turns_from(&self, turn: usize) -> impl Iterator<Item = &Member> {
        let first = turn.checked_rem(self.round.len()).unwrap_or(0);
        let (before, after) = self.round.split_at_checked(first).unwrap_or_default();
        let places = after.iter().chain(before);
        places.filter_map(|place| self.members.get(usize::try_from(*place).ok()?))
    }
}

impl Pool {
    /// All keys, level by level.
    pub fn keys(&self) -> impl Iterator<Item = UpstreamKeyIndex> + '_ {
        self.levels
            .iter()
            .flat_map(|level| &level.members)
            .map(|member| member.key)
    }

    /// Whether any key serves the model; `None` asks for any key at all.
    pub fn serves(&self, model: Option<&str>) -> bool {
        let mut members = self.levels.iter().flat_map(|level| &level.members);
        members.any(|member| member.serves(model))
    }

    /// The pool with some of its keys.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(UpstreamKeyIndex) -> bool) -> Self {
        let some = |level: &Level| {
            let members = level.members.iter().filter(|member| wanted(member.key));
            Level::new(members.cloned().collect())
        };
        let levels = self.levels.iter().map(some);
        Self {
            levels: levels.filter(|level| !level.members.is_empty()).collect(),
            ..self.clone()
        }
    }
}

impl Member {
    fn serves(&self, model: Option<&str>) -> bool {
        model.is_none_or(|model| self.models.permits(model))
    }
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

/// The upstream keys that one request tries: each once, at most [`MAX_ATTEMPTS`] in all, and no more than it is left (law 16).
#[derive(Debug)]
pub struct Candidates<'a> {
    pool: &'a Pool,
    turn: usize,
    model: Option<&'a str>,
    level: usize,
    tried: [Option<UpstreamKeyIndex>; MAX_ATTEMPTS],
    attempts: usize,
    /// Providers whose other keys are not tried any more.
    left_out: Vec<ProviderIndex>,
    /// The one key that can serve the request, where only one can.
    only: Option<UpstreamKeyIndex>,
}

impl<'a> Candidates<'a> {
    /// Begins with the key whose turn it is, among those that serve the model (by the upstream's name).
    pub fn new(pool: &'a Pool, turn: usize, model: Option<&'a str>) -> Self {
        Self {
            pool,
            turn,
            model,
            level: 0,
            tried: [None; MAX_ATTEMPTS],
            attempts: 0,
            left_out: Vec::new(),
            only: None,
        }
    }

    /// Leaves this key alone to be tried.
    pub fn only(&mut self, key: UpstreamKeyIndex) {
        self.only = Some(key);
    }

    /// Leaves out the other keys of the provider of this one.
    pub fn leave_out(&mut self, key: UpstreamKeyIndex) {
        let mut members = self.pool.levels.iter().flat_map(|level| &level.members);
        let member = members.find(|member| member.key == key);
        self.left_out.extend(member.map(|member| member.provider));
    }

    /// Whether a key of another provider than that of this one could be tried too.
    pub fn another_than(&self, key: UpstreamKeyIndex) -> bool {
        let all = || self.pool.levels.iter().flat_map(|level| &level.members);
        let own = all().find(|member| member.key == key);
        all().any(|member| {
            own.is_none_or(|own| own.provider != member.provider) && self.fits(member)
        })
    }

    fn fits(&self, member: &Member) -> bool {
        member.serves(self.model)
            && !self.tried.contains(&Some(member.key))
            && !self.left_out.contains(&member.provider)
            && self.only.is_none_or(|only| only == member.key)
    }

    /// The next key to try, after the end of the attempt before, if there was one; `allowed` is how many attempts there may still be. Keys
    /// of further levels come before those of earlier ones that were passed over.
    pub fn next(&mut self, last: Option<AttemptEnd>, allowed: usize) -> Option<UpstreamKeyIndex> {
        let left = MAX_ATTEMPTS.saturating_sub(self.attempts).min(allowed);
        if left == 0 {
            return None;
        }
        let leaves = last.is_some_and(|end| left == 1 || self.pool.switch_over.leaves(end));
        let levels = self.pool.levels.len();
        let here = self.level;
        let further = here.saturating_add(1)..levels;
        let found = if leaves {
            let here = [here];
            self.find(further.chain(here).chain(0..self.level))
        } else {
            let here = [here];
            self.find(here.into_iter().chain(further).chain(0..self.level))
        };
        let (level, key) = found?;
        self.level = level;
        *self.tried.get_mut(self.attempts)? = Some(key);
        self.attempts = self.attempts.saturating_add(1);
        Some(key)
    }

    fn find(&self, levels: impl Iterator<Item = usize>) -> Option<(usize, UpstreamKeyIndex)> {
        for at in levels {
            let level = self.pool.levels.get(at)?;
            let mut members = level.turns_from(self.turn);
            if let Some(member) = members.find(|member| self.fits(member)) {
                return Some((at, member.key));
            }
        }
        None
    }
}
