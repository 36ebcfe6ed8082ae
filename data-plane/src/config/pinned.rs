//! The configuration in force, made ready for requests: compiled snapshot, header values of upstream keys, turns of pools.
//!
//! Invariants: a [`Pinned`] never changes but for its turns; the turn of a pool goes on across configurations as long as the
//! pool keeps its name; the pointer never moves to an older version (law 9).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use proxyxai_core::{
    account::key::{KeyDigest, Pepper},
    route::pool::{PoolIndex, UpstreamKeyIndex},
    secret::ExposeSecret,
    snapshot::{Rejection, ResourceKind, ResourceName, Snapshot, UpstreamKey, Version},
};

/// One configuration as requests use it.
pub struct Pinned {
    /// The compiled configuration.
    pub snapshot: Snapshot,
    /// Turns, by pool index; use [`Pinned::turn`].
    pub cursors: Vec<Arc<AtomicUsize>>,
    /// Header values, by upstream key index.
    pub credentials: Vec<UpstreamCredential>,
    /// Keys the digests of virtual keys; `None` until the control plane was heard once.
    pub pepper: Option<Pepper>,
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
            cursors: Vec::new(),
            credentials: Vec::new(),
            pepper: None,
        }
    }

    /// Makes a snapshot ready, going on with the turns of `previous`.
    ///
    /// # Errors
    /// Names an upstream key whose secret cannot stand in a header.
    pub fn build(snapshot: Snapshot, pepper: Pepper, previous: &Self) -> Result<Self, Rejection> {
        let turns: HashMap<&str, &Arc<AtomicUsize>> = previous
            .snapshot
            .pools
            .iter()
            .map(|pool| pool.name.as_str())
            .zip(&previous.cursors)
            .collect();
        let cursors = snapshot
            .pools
            .iter()
            .map(|pool| {
                turns
                    .get(pool.name.as_str())
                    .map_or_else(Arc::default, |t| Arc::clone(t))
            })
            .collect();
        let credentials = snapshot
            .upstream_keys
            .iter()
            .map(|key| {
                let provider = snapshot.providers.get(key.provider.0);
                UpstreamCredential::of(key, provider.map_or("", |one| one.base.authority()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            snapshot,
            cursors,
            credentials,
            pepper: Some(pepper),
        })
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

/// Where a node stands towards its control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NodeState {
    /// Holds no configuration: every request is refused for now.
    Waiting = 0,
    /// Connected, and behind; serves what it holds, if anything.
    Syncing = 1,
    /// Holds the newest configuration.
    Current = 2,
    /// Missed three bookmarks; serves what it holds.
    Stale = 3,
}

impl NodeState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Syncing, Self::Current, Self::Stale];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Syncing => "syncing",
            Self::Current => "current",
            Self::Stale => "stale",
        }
    }
}

/// The pointer to the configuration in force. Cheap to clone; shared by all cores.
#[derive(Clone)]
pub struct ConfigHandle {
    shared: Arc<Shared>,
}

struct Shared {
    pinned: ArcSwap<Pinned>,
    state: AtomicU8,
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
}

impl Default for ConfigHandle {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                pinned: ArcSwap::from_pointee(Pinned::empty()),
                state: AtomicU8::new(NodeState::Waiting as u8),
                counters: ConfigCounters::default(),
            }),
        }
    }
}

impl ConfigHandle {
    /// A handle that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
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
        let state = self.shared.state.load(Ordering::Acquire);
        NodeState::ALL
            .into_iter()
            .find(|s| *s as u8 == state)
            .unwrap_or(NodeState::Waiting)
    }

    /// Whether requests can be served: a configuration is in force, however old.
    pub fn is_ready(&self) -> bool {
        !self.shared.pinned.load().is_empty()
    }

    /// What happened so far.
    pub fn counters(&self) -> &ConfigCounters {
        &self.shared.counters
    }

    /// Puts a configuration in force, unless a newer one is already. There is one writer.
    pub fn install(&self, next: Pinned) {
        if next.snapshot.version >= self.version() {
            self.shared.pinned.store(Arc::new(next));
            self.shared.counters.applied.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes where the node stands.
    pub fn set_state(&self, state: NodeState) {
        let before = self.shared.state.swap(state as u8, Ordering::AcqRel);
        if state == NodeState::Stale && before != state as u8 {
            self.shared
                .counters
                .went_stale
                .fetch_add(1, Ordering::Relaxed);
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
        Pinned::build(
            Snapshot::compile(version, &content).unwrap(),
            Pepper::new([7; 32]),
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
        let handle = ConfigHandle::new();
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
