//! What accounts of a path say together of the age of what a node holds.

use std::time::Duration;

use super::{AccountIndex, AccountTree};
use crate::account::staleness::{Held, Looser, Staleness, TooOld};

/// What one walk to the root tells of a path.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Path {
    /// Whether there is such an account.
    pub(crate) known: bool,
    /// The nearest account that is suspended.
    pub(crate) suspended: Option<AccountIndex>,
    /// Whether any account has lists.
    pub(crate) limited: bool,
    /// Whether any says something of staleness.
    pub(crate) dated: bool,
}

impl AccountTree {
    /// Looks once at an account and at all above it.
    pub(crate) fn along(&self, index: AccountIndex) -> Path {
        let mut path = Path::default();
        for (at, place) in self.walk(index) {
            path.known = true;
            path.limited |= place.limited();
            path.dated |= place.dated();
            if path.suspended.is_none() && place.suspended() {
                path.suspended = Some(at);
            }
        }
        path
    }

    /// What the account and all above it say together.
    pub fn staleness(&self, index: AccountIndex) -> Staleness {
        let said = self.line(index).map(|at| self.said(at));
        said.fold(Staleness::default(), Staleness::meet)
    }

    /// Whether any account is let be served past the limit of the deployment by what it says itself.
    pub fn any_serves_expired(&self) -> bool {
        self.serving_expired > 0
    }

    /// Whether a node may serve the account from what it holds (law 15).
    ///
    /// # Errors
    /// Whose limit is over: the nearest account's, or the deployment's.
    pub fn fresh_enough<F>(&self, index: AccountIndex, held: Held<F>) -> Result<(), TooOld>
    where
        F: FnOnce() -> Duration,
    {
        let path = self.staleness(index);
        if let Some(most) = path.max_stale()
            && (held.age)() >= most
        {
            let whose = |at: &AccountIndex| self.said(*at).max_stale() == Some(most);
            let at = self.line(index).find(whose).unwrap_or(index);
            return Err(TooOld::Account {
                path: self.path(at),
                max_stale: most,
            });
        }
        match held.expired && !path.serves_expired() {
            true => Err(TooOld::Deployment),
            false => Ok(()),
        }
    }

    /// Whether what is to be said below `parent` would be more than it and those above it say. `gives` is whether who writes it may lift
    /// the limit of the deployment.
    pub fn looser(&self, parent: AccountIndex, said: Staleness, gives: bool) -> Vec<Looser> {
        let mut found = Vec::new();
        if let Some(seconds) = said.max_stale() {
            let above = self.line(parent);
            let shorter = above.filter_map(|at| Some((at, self.said(at).max_stale()?)));
            found.extend(
                shorter
                    .min_by_key(|(_, most)| *most)
                    .and_then(|(at, most)| {
                        (seconds > most).then(|| Looser::MaxStale {
                            seconds: seconds.as_secs(),
                            path: self.path(at),
                            most,
                        })
                    }),
            );
        }
        if said.serves_expired() {
            let forbids = |at: &AccountIndex| self.said(*at).forbids_expired();
            match self.line(parent).find(forbids) {
                Some(at) => found.push(Looser::Forbidden {
                    path: self.path(at),
                }),
                None if gives || self.staleness(parent).serves_expired() => {}
                None => found.push(Looser::NotGiven),
            }
        }
        found
    }

    pub(super) fn said(&self, at: AccountIndex) -> Staleness {
        self.node(at).map(|node| node.staleness).unwrap_or_default()
    }
}
