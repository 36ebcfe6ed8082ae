//! The configuration in force, made ready for requests: compiled snapshot, header values of upstream keys, turns of pools.
//!
//! Invariants: a [`Pinned`] never changes but for its turns; the turn of a pool goes on across configurations as long as the
//! pool keeps its name; the pointer never moves to an older version (law 9).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use proxyxai_core::{
    account::{
        key::{KeyDigest, Pepper},
        staleness,
    },
    freshness::{Freshness, MAX_STALE, NodeState},
    route::pool::{PoolIndex, UpstreamKeyIndex},
    secret::ExposeSecret,
    snapshot::{Rejection, ResourceKind, ResourceName, Snapshot, UpstreamKey, Version},
};

use super::{held::View, standing::Standing};
use crate::cascade::Deployment;

/// One configuration as requests use it.
pub struct Pinned {
    /// The compiled configuration.
    pub snapshot: Snapshot,
    /// Turns, by pool index; use [`Pinned::turn`].
    pub cursors: Arc<[Arc<AtomicUsize>]>,
    /// Header values, by upstream key index.
    pub credentials: Arc<[UpstreamCredential]>,
    /// Whether virtual keys, and accounts but the root, are looked up on demand.
    pub keyed: bool,
    /// Keys the digests of virtual keys; `None` until the control plane was heard once.
    pub pepper: Option<Pepper>,
    /// Which deployment this is, as other gateways are told.
    pub deployment: Option<Arc<Deployment>>,
}

/// What using an upstream key takes, as header values. Secrets are marked sensitive: they are not printed.
#[derive(Debug, Clone)]
pub struct UpstreamCredential {
    /// `Bearer` and the secret, for `authorization`.
    pub bearer: HeaderValue,
    /// The secret alone, for `x-api-key`.
    pub raw: HeaderValue,
    /// The provider's authority, for `host`.
    pub host: HeaderValue,
}

impl Pinned {
    /// What a node has before it ever heard of its control plane.
    pub fn empty() -> Self {
        Self {
            snapshot: Snapshot::empty(),
            cursors: Arc::default(),
            credentials: Arc::default(),
            keyed: false,
            pepper: None,
            deployment: None,
        }
    }

    /// Makes a snapshot ready, going on with the turns of `previous`. What did not change since then is taken over.
    ///
    /// # Errors
    /// Names an upstream key whose secret cannot stand in a header.
    pub(crate) fn build(
        snapshot: Snapshot,
        view: View,
        previous: &Self,
    ) -> Result<Self, Rejection> {
        let cursors = if Arc::ptr_eq(&snapshot.pools, &previous.snapshot.pools) {
            Arc::clone(&previous.cursors)
        } else {
            previous.turns(&snapshot)
        };
        let known = &previous.snapshot.upstream_keys;
        let credentials = if Arc::ptr_eq(&snapshot.upstream_keys, known) {
            Arc::clone(&previous.credentials)
        } else {
            let keys = snapshot.upstream_keys.iter();
            keys.map(|key| {
                let provider = snapshot.providers.get(key.provider.0);
                UpstreamCredential::of(key, provider.map_or("", |one| one.base.authority()))
            })
            .collect::<Result<_, _>>()?
        };
        Ok(Self {
            snapshot,
            cursors,
            credentials,
            keyed: view.keyed,
            pepper: Some(view.pepper),
            deployment: Deployment::new(&view.deployment).map(Arc::new),
        })
    }

    /// The turns for another snapshot, by the names of pools.
    fn turns(&self, snapshot: &Snapshot) -> Arc<[Arc<AtomicUsize>]> {
        let turns: HashMap<&str, &Arc<AtomicUsize>> = self
            .snapshot
            .pools
            .iter()
            .map(|pool| pool.name.as_str())
            .zip(self.cursors.iter())
            .collect();
        snapshot
            .pools
            .iter()
            .map(|pool| {
                turns
                    .get(pool.name.as_str())
                    .map_or_else(Arc::default, |t| Arc::clone(t))
            })
            .collect()
    }

    /// Digest of a virtual key; `None` before the control plane was heard once, when no key can be told from another.
    pub fn digest(&self, key_text: &str) -> Option<KeyDigest> {
        self.pepper.as_ref().map(|pepper| pepper.digest(key_text))
    }

    /// Takes the next turn of a pool.
    pub fn turn(&self, pool: PoolIndex) -> usize {
        self.cursors
            .get(pool.0)
            .map_or(0, |turn| turn.fetch_add(1, Ordering::Relaxed))
    }

    /// What to send to use an upstream key.
    pub fn credential(&self, key: UpstreamKeyIndex) -> Option<&UpstreamCredential> {
        self.credentials.get(key.0)
    }

    /// Whether this is a configuration at all.
    pub fn is_empty(&self) -> bool {
        self.snapshot.version == Version::default()
    }
}

impl UpstreamCredential {
    fn of(key: &UpstreamKey, authority: &str) -> Result<Self, Rejection> {
        let value = |text: &str, what: &str| {
            HeaderValue::from_str(text).map_err(|_| Rejection {
                name: ResourceName {
                    kind: ResourceKind::UpstreamKey,
                    id: key.id.to_string(),
                },
                reason: format!("{what} has characters that cannot stand in a header"),
            })
        };
        let sensitive = |text: &str| {
            let mut value = value(text, "its secret")?;
            value.set_sensitive(true);
            Ok(value)
        };
        let secret = key.secret.expose_secret();
        Ok(Self {
            bearer: sensitive(&format!("Bearer {secret}"))?,
            raw: sensitive(secret)?,
            host: value(authority, "its provider's host")?,
        })
    }
}

/// The pointer to the configuration in force. Cheap to clone; shared by all cores.
#[derive(Clone)]
pub struct ConfigHandle {
    shared: Arc<Shared>,
}

struct Shared {
    pinned: ArcSwap<Pinned>,
    standing: Standing,
    counters: ConfigCounters,
}

/// What happened to the configuration of this process so far.
#[derive(Debug, Default)]
pub struct ConfigCounters {
    /// Versions put in force.
    pub applied: AtomicU64,
    /// Versions refused.
    pub refused: AtomicU64,
    /// Streams that ended, whatever the reason.
    pub disconnects: AtomicU64,
    /// Times that the node became stale.
    pub went_stale: AtomicU64,
    /// Times that what is held became too old to be served.
    pub went_expired: AtomicU64,
    /// Files of the disk copy that were written.
    pub copied: AtomicU64,
    /// Files of the disk copy that could not be written.
    pub copy_failures: AtomicU64,
}

impl Default for ConfigHandle {
    fn default() -> Self {
        Self::new(MAX_STALE)
    }
}

impl ConfigHandle {
    /// A handle that holds nothing yet. `max_stale` is how old what it holds may become; where the control plane says less, that.
    pub fn new(max_stale: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                pinned: ArcSwap::from_pointee(Pinned::empty()),
                standing: Standing::new(max_stale),
                counters: ConfigCounters::default(),
            }),
        }
    }

    /// The configuration in force now. Pin it once per request.
    pub fn current(&self) -> Arc<Pinned> {
        self.shared.pinned.load_full()
    }

    /// The version in force now.
    pub fn version(&self) -> Version {
        self.shared.pinned.load().snapshot.version
    }

    /// Where the node stands.
    pub fn state(&self) -> NodeState {
        self.shared.standing.state()
    }

    /// The same, as requests are judged by it: one atomic word, no lock.
    pub(crate) fn held(&self) -> staleness::Held<impl FnOnce() -> Duration + use<'_>> {
        let standing = &self.shared.standing;
        let word = standing.word();
        staleness::Held {
            expired: word.is_expired(),
            age: move || standing.age(word),
        }
    }

    /// How long ago what is in force was known to be the newest; `None` when nothing is.
    pub fn age(&self) -> Option<Duration> {
        self.shared.standing.ask(Freshness::age)
    }

    /// Whether the control plane speaks to the node and has told it of every change so far.
    pub(crate) fn in_touch(&self) -> bool {
        self.shared.standing.ask(Freshness::in_touch)
    }

    /// How old it may become.
    pub fn max_stale(&self) -> Duration {
        self.ask(Freshness::max_stale)
    }

    /// Asks what is known of the age.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Freshness) -> T) -> T {
        self.shared.standing.ask(|facts, _| question(facts))
    }

    /// Whether requests can be served: a configuration is in force that is not too old, or one that lets an account be served though it
    /// is. A node that refuses everybody else is worth more to those accounts than none: when the control plane is away for so long, all
    /// nodes are like this one.
    pub fn is_ready(&self) -> bool {
        let pinned = self.shared.pinned.load();
        let serves = || match self.state() {
            NodeState::Expired => pinned.snapshot.accounts.any_serves_expired(),
            NodeState::Waiting
            | NodeState::Cached
            | NodeState::Syncing
            | NodeState::Current
            | NodeState::Stale => true,
        };
        !pinned.is_empty() && serves()
    }

    /// What happened so far.
    pub fn counters(&self) -> &ConfigCounters {
        &self.shared.counters
    }

    /// Time since this handle was made, for the age of what is remembered.
    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.standing.elapsed()
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.shared.standing
    }

    /// Puts a configuration in force, unless a newer one is already. There is one writer.
    pub(crate) fn install(&self, next: Pinned) {
        self.install_shared(Arc::new(next));
    }

    /// Like [`Self::install`].
    pub(crate) fn install_shared(&self, next: Arc<Pinned>) {
        if next.snapshot.version >= self.version() {
            self.shared.pinned.store(next);
            self.shared.counters.applied.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes what was heard of the control plane, or that time passed, and says in the log when the node begins to be too old.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Freshness, Duration)) {
        let (before, state) = self.shared.standing.note(change);
        if before == state {
            return;
        }
        let counters = &self.shared.counters;
        match state {
            NodeState::Stale => {
                counters.went_stale.fetch_add(1, Ordering::Relaxed);
                tracing::error!(version = %self.version(), "the control plane fell silent; serving the configuration held");
            }
            NodeState::Expired => {
                counters.went_expired.fetch_add(1, Ordering::Relaxed);
                tracing::error!(version = %self.version(), max_stale = ?self.max_stale(), "the configuration held is too old; refusing requests, but of accounts with serve_expired, until the control plane is back");
            }
            NodeState::Waiting | NodeState::Cached | NodeState::Syncing | NodeState::Current => {
                tracing::info!(state = state.as_str(), version = %self.version(), "node state");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proxyxai_core::snapshot::Content;

    use crate::config::sample;

    use super::*;

    fn pinned(revision: u64, routes: &[&str], previous: &Pinned) -> Pinned {
        let content: Content = sample::resources(routes)
            .into_iter()
            .map(Arc::new)
            .collect();
        let version = Version {
            generation: 1,
            revision,
        };
        let view = View {
            pepper: Pepper::new([7; 32]),
            deployment: "d".into(),
            keyed: false,
        };
        Pinned::build(
            Snapshot::compile(version, &content).unwrap(),
            view,
            previous,
        )
        .unwrap()
    }

    fn pool(pinned: &Pinned, name: &str) -> PoolIndex {
        PoolIndex(
            pinned
                .snapshot
                .pools
                .iter()
                .position(|p| p.name == name)
                .unwrap(),
        )
    }

    #[test]
    fn turns_go_on_by_pool_name() {
        let first = pinned(1, &["b"], &Pinned::empty());
        let name = "b/openai_chat";
        assert_eq!(
            (
                first.turn(pool(&first, name)),
                first.turn(pool(&first, name))
            ),
            (0, 1)
        );
        let second = pinned(2, &["a", "b"], &first);
        assert_eq!(
            second.turn(pool(&second, name)),
            2,
            "the pool moved, its turn went on"
        );
        assert_eq!(
            first.turn(pool(&first, name)),
            3,
            "requests that pinned the old one share the turn"
        );
        assert_eq!(second.turn(pool(&second, "a/openai_chat")), 0);
    }

    #[test]
    fn law_9_the_pointer_never_goes_back() {
        let handle = ConfigHandle::default();
        handle.install(pinned(5, &[], &Pinned::empty()));
        handle.install(pinned(4, &[], &Pinned::empty()));
        assert_eq!(handle.version().revision, 5);
        let mut restored = pinned(1, &[], &Pinned::empty());
        restored.snapshot.version.generation = 2;
        handle.install(restored);
        assert_eq!(
            handle.version(),
            Version {
                generation: 2,
                revision: 1
            },
            "a higher generation is newer"
        );
    }

    #[test]
    fn law_21_credentials_are_not_printed() {
        let pinned = pinned(1, &[], &Pinned::empty());
        let credential = pinned.credential(UpstreamKeyIndex(0)).unwrap();
        assert_eq!(credential.bearer.to_str().unwrap(), "Bearer sk-upstream");
        assert_eq!(credential.raw.to_str().unwrap(), "sk-upstream");
        assert!(!format!("{credential:?}").contains("upstream"));
    }
}
