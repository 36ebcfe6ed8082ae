//! How far a node may trust what it holds: its state, from what it heard of its control plane and when.
//!
//! Invariants: the age of what is held grows with time and is zeroed only by proof that it is the newest; past its limit nothing
//! is served, whoever is connected. Times are monotonic, since one arbitrary start; nothing here reads a clock.

use std::time::Duration;

/// How long a node may serve without proof, unless its deployment says something else.
pub const MAX_STALE: Duration = Duration::from_secs(72 * 3600);
/// Longest that a deployment may say instead.
pub const LONGEST_STALE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Between bookmarks, where the control plane does not say it.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);
/// Bookmarks that may be missed.
const MISSED: u32 = 3;

/// Where a node stands towards its control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NodeState {
    /// Holds no configuration: every request is refused for now.
    Waiting = 0,
    /// Serves its disk copy; no control plane was heard yet.
    Cached = 1,
    /// Connected, and behind; serves what it holds, if anything.
    Syncing = 2,
    /// Holds the newest configuration.
    Current = 3,
    /// Missed three bookmarks; serves what it holds.
    Stale = 4,
    /// Holds a configuration that is too old to be served.
    Expired = 5,
}

impl NodeState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Cached,
        Self::Syncing,
        Self::Current,
        Self::Stale,
        Self::Expired,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Cached => "cached",
            Self::Syncing => "syncing",
            Self::Current => "current",
            Self::Stale => "stale",
            Self::Expired => "expired",
        }
    }

    /// Whether requests are served.
    pub fn serves(self) -> bool {
        match self {
            Self::Waiting | Self::Expired => false,
            Self::Cached | Self::Syncing | Self::Current | Self::Stale => true,
        }
    }
}

/// What a node knows of the age of what it holds.
#[derive(Debug, Clone)]
pub struct Freshness {
    own_limit: Duration,
    /// The limit that the control plane named.
    named_limit: Option<Duration>,
    interval: Duration,
    /// Whether a control plane speaks to the node now.
    greeted: bool,
    /// Whether nothing newer was heard of.
    newest: bool,
    held: Option<Held>,
}

/// The age of what is held.
#[derive(Debug, Clone, Copy)]
struct Held {
    age: Duration,
    /// When it was this old.
    at: Duration,
    origin: Origin,
}

/// What the age counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A disk copy, whose proof an earlier process had.
    Disk,
    /// It came over the stream and was not proved yet.
    Stream,
    /// Proof that it was the newest.
    Proof,
}

impl Freshness {
    /// Holds nothing. `max_stale` is the node's own limit, which only shortens what its control plane names.
    pub fn new(max_stale: Duration) -> Self {
        Self {
            own_limit: max_stale,
            named_limit: None,
            interval: BOOKMARK_INTERVAL,
            greeted: false,
            newest: false,
            held: None,
        }
    }

    /// A disk copy of this age is in force, with the limit that was named then.
    pub fn restored(&mut self, now: Duration, age: Duration, named_limit: Option<Duration>) {
        self.named_limit = named_limit;
        self.held = Some(Held {
            age,
            at: now,
            origin: Origin::Disk,
        });
    }

    /// A control plane spoke first: how often it sends bookmarks, and its limit, as for [`Self::limited`]. Zero says nothing.
    pub fn greeted(&mut self, interval: Duration, max_stale: Duration) {
        self.greeted = true;
        if !interval.is_zero() {
            self.interval = interval;
        }
        self.limited(max_stale);
    }

    /// A control plane named its limit. Zero says nothing, and leaves the one that was named before.
    pub fn limited(&mut self, max_stale: Duration) {
        if !max_stale.is_zero() {
            self.named_limit = Some(max_stale);
        }
    }

    /// What is held was compared with the head that was heard of last. `applied` says that something is held at all.
    pub fn compared(&mut self, now: Duration, applied: bool, newest: bool) {
        self.newest = newest;
        if !applied {
            return;
        }
        let (origin, due) = match newest {
            true => (Origin::Proof, true),
            false => (Origin::Stream, self.held.is_none()),
        };
        if due {
            self.held = Some(Held {
                age: Duration::ZERO,
                at: now,
                origin,
            });
        }
    }

    /// The stream ended.
    pub fn lost(&mut self) {
        self.greeted = false;
    }

    /// How long after a message the next one has to come, before the stream is of no use.
    pub fn patience(&self) -> Duration {
        self.interval.saturating_mul(MISSED)
    }

    /// The limit in force.
    pub fn max_stale(&self) -> Duration {
        self.own_limit.min(self.named_limit.unwrap_or(MAX_STALE))
    }

    /// The limit that the control plane named, if it did.
    pub fn named_limit(&self) -> Option<Duration> {
        self.named_limit
    }

    /// How long ago what is held was known to be the newest; `None` when nothing is held.
    pub fn age(&self, now: Duration) -> Option<Duration> {
        self.held
            .map(|held| held.age.saturating_add(now.saturating_sub(held.at)))
    }

    /// Where the node stands.
    pub fn state(&self, now: Duration) -> NodeState {
        let (Some(held), Some(age)) = (self.held, self.age(now)) else {
            return match self.greeted {
                true => NodeState::Syncing,
                false => NodeState::Waiting,
            };
        };
        if age >= self.max_stale() {
            return NodeState::Expired;
        }
        match held.origin {
            Origin::Disk if self.greeted => NodeState::Syncing,
            Origin::Disk => NodeState::Cached,
            Origin::Stream | Origin::Proof if age >= self.patience() => NodeState::Stale,
            Origin::Stream | Origin::Proof if self.newest => NodeState::Current,
            Origin::Stream | Origin::Proof => NodeState::Syncing,
        }
    }

    /// Whether the control plane speaks to the node and has told it of every change so far.
    pub fn in_touch(&self, now: Duration) -> bool {
        self.greeted && self.state(now) == NodeState::Current
    }

    /// When the state changes next by time alone.
    pub fn next_change(&self, now: Duration) -> Option<Duration> {
        let held = self.held?;
        let at = |age: Duration| held.at.saturating_add(age.saturating_sub(held.age));
        let limits = match held.origin {
            Origin::Disk => [None, Some(self.max_stale())],
            Origin::Stream | Origin::Proof => [Some(self.patience()), Some(self.max_stale())],
        };
        let times = limits.into_iter().flatten().map(at);
        times.filter(|time| *time > now).min()
    }
}

/// The age of a disk copy at boot: the larger of the stored age, and what the wall clock says has passed since its last proof. A
/// clock that was set back cannot make it younger than it was stored.
pub fn age_at_boot(stored: Duration, proved_unix_ms: i64, now_unix_ms: i64) -> Duration {
    let passed = u64::try_from(now_unix_ms.saturating_sub(proved_unix_ms)).unwrap_or(0);
    stored.max(Duration::from_millis(passed))
}
