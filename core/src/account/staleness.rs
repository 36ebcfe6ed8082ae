//! How old the configuration of a node may become before it refuses an account, and how what accounts say of it meets along a path.
//!
//! Invariants: a `max_stale` of an account binds it and all below it, whatever they say themselves (law 15). `serve_expired` lifts the
//! limit of the deployment alone, never one that an account of the path has; one account of the path that forbids it outweighs all that
//! allow it.

use std::{num::NonZeroU32, time::Duration};

use proxyxai_proto::config::v1::{Account, ServeExpired};

use crate::settings::{InvalidSetting, check_max_stale};

/// What an account says, or all accounts of a path together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Staleness {
    max_stale_seconds: Option<NonZeroU32>,
    serve_expired: Option<bool>,
}

impl Staleness {
    /// What an account says itself.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn of(account: &Account) -> Result<Self, InvalidSetting> {
        check_max_stale(account.max_stale_seconds, "says nothing")?;
        let seconds = u32::try_from(account.max_stale_seconds).unwrap_or(u32::MAX);
        let serve_expired = match ServeExpired::try_from(account.serve_expired) {
            Ok(ServeExpired::Unspecified) => None,
            Ok(ServeExpired::Allowed) => Some(true),
            Ok(ServeExpired::Forbidden) => Some(false),
            Err(_) => {
                return Err(InvalidSetting {
                    field: "serve_expired",
                    what: "it is allowed, forbidden, or not said".to_owned(),
                });
            }
        };
        Ok(Self {
            max_stale_seconds: NonZeroU32::new(seconds),
            serve_expired,
        })
    }

    /// Whether nothing is said.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The age from which on it is refused, whatever the deployment says.
    pub fn max_stale(self) -> Option<Duration> {
        self.max_stale_seconds
            .map(|seconds| Duration::from_secs(u64::from(seconds.get())))
    }

    /// Whether it is served past the limit of the deployment.
    pub fn serves_expired(self) -> bool {
        self.serve_expired == Some(true)
    }

    /// Whether this says itself that it is not.
    pub fn forbids_expired(self) -> bool {
        self.serve_expired == Some(false)
    }

    /// Both together: the shorter limit, and what one of them forbids is forbidden.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        let shorter = |a: NonZeroU32, b: NonZeroU32| a.min(b);
        Self {
            max_stale_seconds: either(self.max_stale_seconds, other.max_stale_seconds, shorter),
            serve_expired: either(self.serve_expired, other.serve_expired, |a, b| a && b),
        }
    }
}

fn either<T>(one: Option<T>, other: Option<T>, both: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(both(one, other)),
        (one, other) => one.or(other),
    }
}

/// What a node knows of the age of what it holds.
#[derive(Debug, Clone, Copy)]
pub struct Held<F> {
    /// Whether that is past the limit of the deployment.
    pub expired: bool,
    /// Tells how old it is; asked only where an account says something of it, as it takes a look at a clock.
    pub age: F,
}

impl Held<fn() -> Duration> {
    /// What was proved to be the newest this very moment.
    pub fn fresh() -> Self {
        Self {
            expired: false,
            age: || Duration::ZERO,
        }
    }
}

/// Why an account is refused by a node that was not told for too long that what it holds is the newest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooOld {
    /// It is past the limit of the deployment.
    #[error(
        "the gateway has not reached its control plane for too long to go on serving what it holds; an administrator must bring the control plane back"
    )]
    Deployment,
    /// It is past the limit of this account, or of one above it.
    #[error(
        "the gateway has not reached its control plane for longer than the {} seconds that the account `{path}` allows; an administrator must bring the control plane back", .max_stale.as_secs()
    )]
    Account {
        /// The account.
        path: String,
        /// Its limit.
        max_stale: Duration,
    },
}

/// What an account may not say of staleness below those above it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Looser {
    /// It is longer than a limit above.
    #[error(
        "{seconds} seconds are more than the {} of the account `{path}`; an account below it may only say less", .most.as_secs()
    )]
    MaxStale {
        /// What was said.
        seconds: u64,
        /// The account above.
        path: String,
        /// What that says.
        most: Duration,
    },
    /// It is forbidden above.
    #[error("the account `{path}` forbids it to all below it")]
    Forbidden {
        /// The account above.
        path: String,
    },
    /// Nobody above has it.
    #[error(
        "no account above has it to hand on; root alone gives it to an account, as it lifts the `max_stale` of the deployment"
    )]
    NotGiven,
}

impl Looser {
    /// The field that says too much.
    pub fn field(&self) -> &'static str {
        match self {
            Self::MaxStale { .. } => "max_stale_seconds",
            Self::Forbidden { .. } | Self::NotGiven => "serve_expired",
        }
    }
}
