//! The content in force in plain, and the two ways to a newer one: a whole content, or the difference to it.
//!
//! Invariants: what is held always has the digest that the control plane named for it; a refused content or difference leaves
//! all as it was (law 10). A difference costs its own size, however large the content is.

use std::sync::Arc;

use proxyxai_core::{
    account::key::Pepper,
    snapshot::{Change, Content, Digest, Rejection, ResourceName, Snapshot, Version},
};

use super::pinned::{ConfigHandle, Pinned};

/// What a node holds. The secrets of upstream keys are in it.
pub(super) struct Held {
    config: ConfigHandle,
    content: Content,
}

impl Held {
    pub(super) fn new(config: ConfigHandle) -> Self {
        Self {
            config,
            content: Content::default(),
        }
    }

    /// The version in force; the default one when there is none.
    pub(super) fn version(&self) -> Version {
        self.config.version()
    }

    /// The digest of the content in force.
    pub(super) fn digest(&self) -> Digest {
        self.content.digest()
    }

    /// The pointer that requests read.
    pub(super) fn config(&self) -> &ConfigHandle {
        &self.config
    }

    /// Keys digests anew, when the control plane names another pepper than the one in force.
    pub(super) fn use_pepper(&self, pepper: &Pepper) {
        let current = self.config.current();
        let differs = current
            .pepper
            .as_ref()
            .is_some_and(|old| old.expose() != pepper.expose());
        if differs
            && let Ok(next) = Pinned::build(current.snapshot.clone(), pepper.clone(), &current)
        {
            self.config.install(next);
        }
    }

    /// Puts a whole content in force.
    ///
    /// # Errors
    /// [`Refusal`]; what was in force still is.
    pub(super) fn replace(
        &mut self,
        version: Version,
        digest: Digest,
        content: Content,
        pepper: &Pepper,
    ) -> Result<(), Refusal> {
        if content.digest() != digest {
            return Err(Refusal::Digest { version });
        }
        if version == self.version() && digest == self.digest() {
            return Ok(());
        }
        let snapshot = Snapshot::compile(version, &content).map_err(Refusal::Rejected)?;
        self.install(snapshot, pepper)?;
        self.content = content;
        Ok(())
    }

    /// Puts the content in force that `changes` lead to.
    ///
    /// # Errors
    /// [`Refusal`]; what was in force still is.
    pub(super) fn advance(
        &mut self,
        version: Version,
        digest: Digest,
        changes: &[Change],
        pepper: &Pepper,
    ) -> Result<(), Refusal> {
        let before = self.touched(changes);
        changes
            .iter()
            .for_each(|change| self.content.apply(change.clone()));
        let result = self.adopt(version, digest, changes, &before, pepper);
        if result.is_err() {
            self.undo(changes, &before);
        }
        result
    }

    fn adopt(
        &self,
        version: Version,
        digest: Digest,
        changes: &[Change],
        before: &Content,
        pepper: &Pepper,
    ) -> Result<(), Refusal> {
        if self.content.digest() != digest {
            return Err(Refusal::Digest { version });
        }
        let current = self.config.current();
        let snapshot = current
            .snapshot
            .advance(version, &self.content, changes, before)
            .map_err(Refusal::Rejected)?;
        self.install(snapshot, pepper)
    }

    fn install(&self, snapshot: Snapshot, pepper: &Pepper) -> Result<(), Refusal> {
        let next = Pinned::build(snapshot, pepper.clone(), &self.config.current())
            .map_err(|r| Refusal::Rejected(vec![r]))?;
        self.config.install(next);
        Ok(())
    }

    /// What the changes are about to replace or take away.
    fn touched(&self, changes: &[Change]) -> Content {
        let names = changes.iter().filter_map(name_of);
        names
            .filter_map(|name| self.content.get(&name))
            .map(Arc::clone)
            .collect()
    }

    fn undo(&mut self, changes: &[Change], before: &Content) {
        for name in changes.iter().filter_map(name_of) {
            match before.get(&name) {
                Some(old) => self.content.upsert(Arc::clone(old)),
                None => self.content.remove(&name),
            }
        }
    }
}

fn name_of(change: &Change) -> Option<ResourceName> {
    match change {
        Change::Upsert(resource) => ResourceName::of(resource),
        Change::Remove(name) => Some(name.clone()),
    }
}

/// Why a content was not put in force.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not what the control plane has: something was lost on the way.
    Digest {
        /// Of the content that was refused.
        version: Version,
    },
    /// Resources that do not fit.
    Rejected(Vec<Rejection>),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxyxai_core::{account::key::KeyDigest, snapshot::ResourceKind};
    use proxyxai_proto::config::v1::{VirtualKey, resource::Kind};

    use super::*;
    use crate::config::sample;

    fn pepper() -> Pepper {
        Pepper::new([7; 32])
    }

    fn version(revision: u64) -> Version {
        Version {
            generation: 1,
            revision,
        }
    }

    fn key_of(account: &str, id: u8) -> Change {
        let key = VirtualKey {
            account_id: account.into(),
            ..sample::virtual_key(&format!("k{id}"), id)
        };
        Change::Upsert(Arc::new(sample::resource(Kind::VirtualKey(key))))
    }

    fn held() -> Held {
        let mut held = Held::new(ConfigHandle::new());
        let content: Content = sample::resources(&["a"])
            .into_iter()
            .map(Arc::new)
            .collect();
        held.replace(version(1), content.digest(), content, &pepper())
            .unwrap();
        held
    }

    fn after(held: &Held, changes: &[Change]) -> Content {
        let mut content = held.content.clone();
        changes
            .iter()
            .for_each(|change| content.apply(change.clone()));
        content
    }

    proptest! {
        #[test]
        fn law_10_a_refused_difference_changes_nothing(steps in prop::collection::vec((0_u8..6, 0_u8..4), 1..20)) {
            let mut held = held();
            for (number, (id, what)) in (2..).zip(steps) {
                let (change, flaw) = match what {
                    0 => (key_of("root", id), false),
                    1 => (Change::Remove(ResourceName { kind: ResourceKind::VirtualKey, id: sample::virtual_key(&format!("k{id}"), id).id }), false),
                    2 => (key_of("nowhere", id), true),
                    _ => (key_of("root", id), true),
                };
                let changes = [change];
                let (then, before) = (after(&held, &changes), held.content.clone());
                let digest = if what == 3 { Digest([9; 32]) } else { then.digest() };
                let result = held.advance(version(number), digest, &changes, &pepper());
                prop_assert_eq!(result.is_err(), flaw);
                let expected = if flaw { before } else { then };
                prop_assert!(held.content == expected);
                prop_assert_eq!(held.digest(), expected.digest());
                let pinned = held.config.current();
                prop_assert_eq!(pinned.snapshot.digest, expected.digest());
                prop_assert_eq!(pinned.snapshot.keys.len(), expected.of_kind(ResourceKind::VirtualKey).count());
            }
        }
    }

    #[test]
    fn another_pepper_keys_digests_anew() {
        let held = held();
        let before = held.config.current().digest("x");
        held.use_pepper(&Pepper::new([8; 32]));
        let after = held.config.current().digest("x");
        assert_ne!(before, after);
        assert_eq!(after, Some(Pepper::new([8; 32]).digest("x")));
        assert_eq!(
            held.config.current().snapshot.keys.get(&KeyDigest([1; 16])),
            None
        );
    }
}
