//! The terms of those virtual keys that have some, by digest: 1,024 immutable shards, of which a change copies one or two.
//!
//! Invariants: what is kept for a key goes with it, when all that is known is its current digest; equal lists are kept once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use proxyxai_proto::config::v1 as proto;

use crate::account::{
    key::KeyDigest,
    limits::{InvalidLimit, Limits},
    terms::{self, Terms},
};

const SHARDS: usize = 1024;

/// What is kept by one digest.
#[derive(Debug, Clone)]
enum Kept {
    /// By the current one: the terms, and the digest before it, if that still leads here.
    Terms(Terms, Option<KeyDigest>),
    /// By the one before it: where to go on, and how long it works.
    Replaced {
        current: KeyDigest,
        until_unix_ms: i64,
    },
}

type Shard = HashMap<KeyDigest, Kept>;

/// Terms by digest. Cloning shares every shard.
#[derive(Clone)]
pub struct KeyTerms {
    shards: Arc<[Arc<Shard>]>,
    /// Each different set of lists once. Those that no key has any more leave as new ones come.
    limits: Arc<HashSet<Arc<Limits>>>,
}

impl Default for KeyTerms {
    fn default() -> Self {
        let empty = Arc::new(Shard::default());
        Self {
            shards: std::iter::repeat_n(empty, SHARDS).collect(),
            limits: Arc::default(),
        }
    }
}

impl KeyTerms {
    /// The terms of the key with this current digest; `None` when it has none of its own.
    pub fn get(&self, digest: &KeyDigest) -> Option<&Terms> {
        match self.kept(digest)? {
            Kept::Terms(terms, _) => Some(terms),
            Kept::Replaced { .. } => None,
        }
    }

    /// The current digest of the key that had this one before its last rotation, and until when that works, in Unix milliseconds.
    pub fn replaced(&self, digest: &KeyDigest) -> Option<(KeyDigest, i64)> {
        match self.kept(digest)? {
            Kept::Terms(..) => None,
            Kept::Replaced {
                current,
                until_unix_ms,
            } => Some((*current, *until_unix_ms)),
        }
    }

    /// Keeps the terms of a key; one without any costs nothing.
    ///
    /// # Errors
    /// The first entry of a list that cannot be used.
    pub fn put(&mut self, digest: KeyDigest, key: &proto::VirtualKey) -> Result<(), InvalidLimit> {
        if !terms::has_terms(key) {
            return Ok(());
        }
        let mut own = Terms::of(key)?;
        own.limits = own.limits.map(|limits| self.shared(limits));
        let previous = terms::previous_digest(key).filter(|previous| *previous != digest);
        if let Some(previous) = previous {
            let kept = Kept::Replaced {
                current: digest,
                until_unix_ms: key.previous_expires_unix_ms,
            };
            self.change(previous, |shard| shard.insert(previous, kept));
        }
        let kept = Kept::Terms(own, previous);
        self.change(digest, |shard| shard.insert(digest, kept));
        Ok(())
    }

    /// Forgets what is kept for the key with this current digest.
    pub fn remove(&mut self, digest: &KeyDigest) {
        let Some(Kept::Terms(_, previous)) = self.kept(digest) else {
            return;
        };
        for gone in [Some(*digest), *previous].into_iter().flatten() {
            self.change(gone, |shard| shard.remove(&gone));
        }
    }

    fn kept(&self, digest: &KeyDigest) -> Option<&Kept> {
        self.shards.get(shard_of(digest))?.get(digest)
    }

    fn change(&mut self, digest: KeyDigest, change: impl FnOnce(&mut Shard) -> Option<Kept>) {
        let shards = Arc::make_mut(&mut self.shards);
        if let Some(shard) = shards.get_mut(shard_of(&digest)) {
            let _before = change(Arc::make_mut(shard));
        }
    }

    /// The lists that are equal to these; these join them when there are none.
    fn shared(&mut self, limits: Arc<Limits>) -> Arc<Limits> {
        if let Some(known) = self.limits.get(&limits) {
            return Arc::clone(known);
        }
        // Holders that are no key: this set, and the one that it is about to be copied from. Older ones that are still read may hold
        // more; what only they need leaves later.
        let sets = if Arc::get_mut(&mut self.limits).is_some() {
            1
        } else {
            2
        };
        let all = Arc::make_mut(&mut self.limits);
        all.insert(Arc::clone(&limits));
        if all.len().is_power_of_two() {
            all.retain(|one| Arc::ptr_eq(one, &limits) || Arc::strong_count(one) > sets);
        }
        limits
    }
}

impl std::fmt::Debug for KeyTerms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kept: usize = self.shards.iter().map(|shard| shard.len()).sum();
        write!(f, "KeyTerms({kept} digests)")
    }
}

fn shard_of(digest: &KeyDigest) -> usize {
    let [first, second, ..] = digest.0;
    usize::from(u16::from_be_bytes([first, second])) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(model: &str, previous: Option<u8>) -> proto::VirtualKey {
        proto::VirtualKey {
            allowed_models: vec![model.to_owned()],
            previous_digest: previous.map(|byte| vec![byte; 16]).unwrap_or_default(),
            previous_expires_unix_ms: 9,
            ..proto::VirtualKey::default()
        }
    }

    #[test]
    fn equal_lists_are_kept_once_and_unused_ones_leave() {
        let mut all = KeyTerms::default();
        for number in 0..200_u8 {
            let mut next = all.clone();
            next.put(KeyDigest([number; 16]), &key("gpt-*", None))
                .unwrap();
            all = next;
        }
        assert_eq!(all.limits.len(), 1);
        for round in 0..200 {
            let mut next = all.clone();
            let digest = KeyDigest([0; 16]);
            next.remove(&digest);
            next.put(digest, &key(&format!("m{round}"), None)).unwrap();
            all = next;
        }
        assert!(all.limits.len() <= 4, "{} are kept", all.limits.len());
    }

    #[test]
    fn what_is_kept_for_a_key_goes_with_it() {
        let (current, previous) = (KeyDigest([1; 16]), KeyDigest([2; 16]));
        let mut all = KeyTerms::default();
        all.put(current, &key("gpt-*", Some(2))).unwrap();
        let before = all.clone();
        assert_eq!(all.replaced(&previous), Some((current, 9)));
        assert!(all.get(&current).is_some() && all.get(&previous).is_none());
        all.remove(&previous);
        assert!(
            all.get(&current).is_some(),
            "only the current digest takes a key away"
        );
        all.remove(&current);
        assert_eq!(format!("{all:?}"), "KeyTerms(0 digests)");
        assert_eq!(
            format!("{before:?}"),
            "KeyTerms(2 digests)",
            "readers of the old one see it"
        );
    }

    #[test]
    fn a_plain_key_costs_nothing() {
        let mut all = KeyTerms::default();
        all.put(KeyDigest([1; 16]), &proto::VirtualKey::default())
            .unwrap();
        assert_eq!(format!("{all:?}"), "KeyTerms(0 digests)");
        assert!(size_of::<(KeyDigest, crate::snapshot::KeyRecord)>() <= 36);
    }
}
