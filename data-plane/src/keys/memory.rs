//! What is remembered of looked-up keys and accounts: moka for room, the invalidation log beside it for truth.
//!
//! Invariants: nothing goes in but under the lock of the log and admitted by it, and whoever notes a change takes out what it
//! names under the same lock; so once a change was noted, nothing from before it is found (law 11). Keys and accounts are apart:
//! a changed account takes one entry away, however many keys are below it. A newer answer never gives way to an older one.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::{ops::compute::Op, sync::Cache};
use proxyxai_core::{
    account::{
        key::KeyDigest,
        terms::{self, Key, Terms},
        tree::{AccountIndex, AccountTree, MAX_DEPTH},
    },
    snapshot::{
        Heard, InvalidationLog, KeyId, KeyRecord, ResourceKind, ResourceName, Version,
        compile::{key_at, key_in},
    },
};
use proxyxai_proto::config::v1 as proto;

use super::{Answer, Resolved};

/// Keys that do not exist, of which fewer are worth remembering.
const ABSENT: u64 = 50_000;

/// All that is remembered.
pub(super) struct Memory {
    log: Mutex<InvalidationLog>,
    /// How many changes were noted.
    noted: AtomicU64,
    /// What was learned in an earlier era may be out of date.
    era: AtomicU64,
    /// Which lines of accounts may be out of date.
    trees: AtomicU64,
    keys: Cache<KeyId, Arc<Known>>,
    absent: Cache<KeyId, Absent>,
    accounts: Cache<Arc<str>, Arc<KnownAccount>>,
    lines: Cache<Arc<str>, Line>,
}

/// A key that exists.
struct Known {
    as_of: Version,
    era: u64,
    learned: Duration,
    digest: KeyDigest,
    /// Its account is not the place in any tree.
    record: KeyRecord,
    terms: Terms,
    key: proto::VirtualKey,
    account: Arc<str>,
}

impl Known {
    /// What the secret with this digest is to the key, if anything.
    fn terms_by(&self, digest: &KeyDigest) -> Option<Terms> {
        terms_by(&self.key, &self.terms, self.digest, digest)
    }
}

/// The terms of a key by the secret that was shown; `None` when it is none of its secrets.
fn terms_by(
    key: &proto::VirtualKey,
    terms: &Terms,
    current: KeyDigest,
    shown: &KeyDigest,
) -> Option<Terms> {
    if current == *shown {
        return Some(terms.clone());
    }
    let replaced = terms::previous_digest(key) == Some(*shown);
    replaced.then(|| terms.clone().by_previous(key.previous_expires_unix_ms))
}

/// A key that does not.
#[derive(Clone, Copy)]
struct Absent {
    as_of: Version,
    era: u64,
    digest: KeyDigest,
}

struct KnownAccount {
    as_of: Version,
    era: u64,
    account: proto::Account,
}

/// An account and all above it, compiled.
#[derive(Clone)]
struct Line {
    trees: u64,
    tree: Arc<AccountTree>,
    index: AccountIndex,
}

/// What is remembered of a key.
pub(super) enum Recall {
    /// It exists; since when that is known.
    Found(Resolved, Duration),
    /// It did not exist.
    Absent,
    /// Nothing.
    Unknown,
}

/// What was made of an answer of the control plane.
pub(super) enum Learned {
    /// It may be handed out.
    Admitted(Answer),
    /// It is from before a change: ask again.
    Outrun,
    /// It cannot be used.
    Unfit,
}

/// What an earlier process remembered: all true at one version, or newer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Remembered {
    /// Up to where changes were noted.
    pub(crate) through: Version,
    /// Keys that exist.
    pub(crate) keys: Vec<proto::VirtualKey>,
    /// Accounts.
    pub(crate) accounts: Vec<proto::Account>,
}

impl Memory {
    pub(super) fn new(keys: u64) -> Self {
        Self {
            log: Mutex::default(),
            noted: AtomicU64::new(0),
            era: AtomicU64::new(0),
            trees: AtomicU64::new(0),
            keys: Cache::new(keys),
            absent: Cache::new(ABSENT),
            accounts: Cache::new(keys),
            lines: Cache::new(keys),
        }
    }

    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.keys.entry_count(), self.accounts.entry_count())
    }

    /// How many changes were noted so far.
    pub(super) fn noted(&self) -> u64 {
        self.noted.load(Ordering::Acquire)
    }

    pub(super) fn through(&self) -> Version {
        self.log().through()
    }

    /// An answer must be at least this new.
    pub(super) fn at_least(&self) -> Version {
        self.log().at_least()
    }

    /// All questions that are still open ask for at least this version.
    pub(super) fn forget(&self, asked: Option<Version>) {
        let mut log = self.log();
        let asked = asked.unwrap_or(log.at_least());
        log.forget(asked);
    }

    pub(super) fn advance(&self, to: Version) {
        self.log().advance(to);
    }

    pub(super) fn note(&self, names: impl IntoIterator<Item = ResourceName>, at: Version) {
        let names: Vec<ResourceName> = names.into_iter().collect();
        let mut log = self.log();
        log.note(names.iter().cloned(), at);
        self.take_out(&names, at);
    }

    pub(super) fn take(
        &self,
        from: Version,
        to: Version,
        names: impl IntoIterator<Item = ResourceName>,
    ) {
        let names: Vec<ResourceName> = names.into_iter().collect();
        let mut log = self.log();
        match log.take(from, to, names.iter().cloned()) {
            Heard::Named => self.take_out(&names, to),
            Heard::Missed => self.new_era(),
        }
    }

    pub(super) fn miss(&self, to: Version) {
        let mut log = self.log();
        log.miss(to);
        self.new_era();
    }

    /// Call with the log locked.
    fn take_out(&self, names: &[ResourceName], at: Version) {
        for name in names {
            match name.kind {
                ResourceKind::VirtualKey => {
                    if let Some(id) = KeyId::new(&name.id) {
                        self.keys.entry(id).and_compute_with(|old| match old {
                            Some(old) if old.value().as_of < at => Op::Remove,
                            Some(_) | None => Op::Nop,
                        });
                        self.absent.entry(id).and_compute_with(|old| match old {
                            Some(old) if old.value().as_of < at => Op::Remove,
                            Some(_) | None => Op::Nop,
                        });
                    }
                }
                ResourceKind::Account => {
                    let account: Arc<str> = name.id.as_str().into();
                    self.accounts
                        .entry(account)
                        .and_compute_with(|old| match old {
                            Some(old) if old.value().as_of < at => Op::Remove,
                            Some(_) | None => Op::Nop,
                        });
                    self.trees.fetch_add(1, Ordering::AcqRel);
                }
                ResourceKind::Provider
                | ResourceKind::UpstreamKey
                | ResourceKind::Route
                | ResourceKind::PriceTable => {}
            }
        }
        self.noted.fetch_add(1, Ordering::AcqRel);
    }

    /// Call with the log locked.
    fn new_era(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
        self.trees.fetch_add(1, Ordering::AcqRel);
        self.noted.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn recall(&self, id: &KeyId, digest: &KeyDigest) -> Recall {
        let era = self.era.load(Ordering::Acquire);
        if let Some(known) = self.keys.get(id)
            && let Some(terms) = known.terms_by(digest)
        {
            let line = (known.era == era).then(|| self.line(&known.account));
            return match line.flatten() {
                Some(line) => Recall::Found(line.resolved(known.record, terms), known.learned),
                None => Recall::Unknown,
            };
        }
        match self.absent.get(id) {
            Some(absent) if absent.digest == *digest && absent.era == era => Recall::Absent,
            Some(_) | None => Recall::Unknown,
        }
    }

    /// An account and all above it, from what is remembered of each.
    fn line(&self, leaf: &Arc<str>) -> Option<Line> {
        let (trees, era) = (
            self.trees.load(Ordering::Acquire),
            self.era.load(Ordering::Acquire),
        );
        if let Some(line) = self.lines.get(leaf)
            && line.trees == trees
        {
            return Some(line);
        }
        let mut accounts: Vec<Arc<KnownAccount>> = Vec::new();
        let mut next = leaf.to_string();
        while !next.is_empty() && accounts.len() <= MAX_DEPTH {
            let account = self.accounts.get(next.as_str())?;
            if account.era != era {
                return None;
            }
            next.clone_from(&account.account.parent_id);
            accounts.push(account);
        }
        let tree = AccountTree::build(accounts.iter().map(|known| &known.account)).ok()?;
        let line = Line {
            index: tree.get(leaf)?,
            tree: Arc::new(tree),
            trees,
        };
        self.lines.insert(Arc::clone(leaf), line.clone());
        Some(line)
    }

    /// Takes an answer of the control plane about the key that was asked for; `None` says that there is no such key.
    pub(super) fn learn(
        &self,
        id: KeyId,
        digest: KeyDigest,
        as_of: Version,
        found: Option<(proto::VirtualKey, Vec<proto::Account>)>,
        now: Duration,
    ) -> Learned {
        let log = self.log();
        let era = self.era.load(Ordering::Acquire);
        let noted = self.noted();
        let name = |kind: ResourceKind, id: &str| ResourceName {
            kind,
            id: id.to_owned(),
        };
        if !log.admits(&name(ResourceKind::VirtualKey, id.as_str()), as_of) {
            return Learned::Outrun;
        }
        let Some((key, accounts)) = found else {
            self.absent.entry(id).and_compute_with(|old| match old {
                Some(old) if old.value().as_of > as_of => Op::Nop,
                Some(_) | None => Op::Put(Absent { as_of, era, digest }),
            });
            self.keys.entry(id).and_compute_with(|old| match old {
                Some(old)
                    if old.value().terms_by(&digest).is_some() && old.value().as_of < as_of =>
                {
                    Op::Remove
                }
                Some(_) | None => Op::Nop,
            });
            return Learned::Admitted(Answer { found: None, noted });
        };
        let outrun = |account: &proto::Account| {
            !log.admits(&name(ResourceKind::Account, &account.id), as_of)
        };
        if accounts.iter().any(outrun) {
            return Learned::Outrun;
        }
        let tree = match AccountTree::build(&accounts) {
            Ok(tree) => tree,
            Err(faults) => {
                tracing::error!(
                    key = key.id,
                    ?faults,
                    "the accounts of a key do not fit; update this node or the control plane"
                );
                return Learned::Unfit;
            }
        };
        let fitted = key_in(&key, &tree).and_then(|(current, record)| {
            let terms = Terms::of(&key).map_err(|error| error.to_string())?;
            Ok((current, record, terms))
        });
        let (current, record, terms) = match fitted {
            Ok(fitted) => fitted,
            Err(reason) => {
                tracing::error!(
                    key = key.id,
                    reason,
                    "a key does not fit; update this node or the control plane"
                );
                return Learned::Unfit;
            }
        };
        let shown = terms_by(&key, &terms, current, &digest);
        let Some(shown) = shown.filter(|_| record.id == id) else {
            return Learned::Unfit;
        };
        for account in accounts {
            self.keep_account(account, as_of, era);
        }
        self.keep_key((current, record, terms), key, as_of, era, now);
        let found = Resolved {
            key: Key {
                record,
                terms: shown,
            },
            accounts: Arc::new(tree),
        };
        Learned::Admitted(Answer {
            found: Some(found),
            noted,
        })
    }

    fn keep_account(&self, account: proto::Account, as_of: Version, era: u64) {
        let id: Arc<str> = account.id.as_str().into();
        self.accounts.entry(id).and_compute_with(|old| match old {
            Some(old) if old.value().as_of > as_of && old.value().era == era => Op::Nop,
            Some(_) | None => Op::Put(Arc::new(KnownAccount {
                as_of,
                era,
                account,
            })),
        });
    }

    fn keep_key(
        &self,
        (digest, record, terms): (KeyDigest, KeyRecord, Terms),
        key: proto::VirtualKey,
        as_of: Version,
        era: u64,
        learned: Duration,
    ) {
        self.keys
            .entry(record.id)
            .and_compute_with(|old| match old {
                Some(old) if old.value().as_of > as_of && old.value().era == era => Op::Nop,
                Some(_) | None => Op::Put(Arc::new(Known {
                    as_of,
                    era,
                    learned,
                    digest,
                    record,
                    terms,
                    account: key.account_id.as_str().into(),
                    key,
                })),
            });
    }

    pub(super) fn export(&self) -> Remembered {
        let log = self.log();
        let era = self.era.load(Ordering::Acquire);
        let keys = self.keys.iter().filter(|(_, known)| known.era == era);
        let accounts = self.accounts.iter().filter(|(_, known)| known.era == era);
        Remembered {
            through: log.through(),
            keys: keys.map(|(_, known)| known.key.clone()).collect(),
            accounts: accounts.map(|(_, known)| known.account.clone()).collect(),
        }
    }

    pub(super) fn import(&self, remembered: Remembered, now: Duration) {
        let mut log = self.log();
        *log = InvalidationLog::since(remembered.through);
        let (as_of, era) = (remembered.through, self.era.load(Ordering::Acquire));
        let placeholder = AccountIndex(0);
        for key in remembered.keys {
            let (Ok((digest, record)), Ok(terms)) = (key_at(&key, placeholder), Terms::of(&key))
            else {
                continue;
            };
            self.keep_key((digest, record, terms), key, as_of, era, now);
        }
        for account in remembered.accounts {
            self.keep_account(account, as_of, era);
        }
    }

    #[cfg(test)]
    pub(super) fn admits(&self, name: &ResourceName, as_of: Version) -> bool {
        self.log().admits(name, as_of)
    }

    fn log(&self) -> MutexGuard<'_, InvalidationLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn resolved(self, record: KeyRecord, terms: Terms) -> Resolved {
        let record = KeyRecord {
            account: self.index,
            ..record
        };
        Resolved {
            key: Key { record, terms },
            accounts: self.tree,
        }
    }
}

#[cfg(test)]
mod tests;
