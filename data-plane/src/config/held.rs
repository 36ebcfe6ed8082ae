//! What is in force: virtual keys in the snapshot's table alone, everything else in plain beside it, and the ways to a newer one.
//!
//! Invariants: what is held always has the digest that the control plane named for it; a refused content or difference leaves
//! all as it was (law 10). A difference of virtual keys costs its own size, however many keys there are.

use std::sync::Arc;

use proxyxai_core::{
    account::key::Pepper,
    snapshot::{
        Change, Content, Digest, KeyTableBuilder, Rejection, ResourceName, Snapshot, Version,
        compile::in_table_alone,
    },
};
use tokio::sync::watch;

use super::pinned::{ConfigHandle, Pinned};

/// What a node holds, as it goes to its disk. The secrets of upstream keys are in it.
#[derive(Clone)]
pub(crate) struct Holding {
    /// What requests are served from; virtual keys are here alone.
    pub(crate) pinned: Arc<Pinned>,
    /// All resources but those that are in the table alone.
    pub(crate) rest: Arc<Content>,
}

/// Keeps [`Holding`] up to date.
pub(super) struct Held {
    config: ConfigHandle,
    rest: Arc<Content>,
    published: watch::Sender<Option<Holding>>,
}

/// A whole content as it comes.
#[derive(Default)]
pub(crate) struct Incoming {
    pub(crate) rest: Content,
    pub(crate) keys: KeyTableBuilder,
    pub(crate) rejected: Vec<Rejection>,
}

impl Incoming {
    /// Adds a resource, of an upstream key with its secret in plain.
    pub(crate) fn add(&mut self, resource: Arc<proxyxai_proto::config::v1::Resource>) {
        use proxyxai_proto::config::v1::resource::Kind;
        if let Some(Kind::VirtualKey(key)) = &resource.kind
            && in_table_alone(&resource)
        {
            if let Err(reason) = self.keys.push_key(key, Digest::of(&resource)) {
                self.rejected
                    .extend(ResourceName::of(&resource).map(|name| Rejection { name, reason }));
            }
        } else {
            self.rest.upsert(resource);
        }
    }
}

/// Where a content comes from and how to read its keys.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) pepper: Pepper,
    /// Id of the deployment.
    pub(crate) deployment: Arc<str>,
    /// Whether virtual keys and accounts are looked up on demand.
    pub(crate) keyed: bool,
}

impl Held {
    pub(super) fn new(config: ConfigHandle, published: watch::Sender<Option<Holding>>) -> Self {
        Self {
            config,
            rest: Arc::default(),
            published,
        }
    }

    /// Goes on from what an earlier process held.
    pub(super) fn restore(&mut self, holding: Holding) {
        self.rest = Arc::clone(&holding.rest);
        self.config.install_shared(Arc::clone(&holding.pinned));
        // Not news to the one that writes it to the disk, where it came from.
        self.published.send_if_modified(|published| {
            *published = Some(holding);
            false
        });
    }

    /// The version in force; the default one when there is none.
    pub(super) fn version(&self) -> Version {
        self.config.version()
    }

    /// The digest of the content in force.
    pub(super) fn digest(&self) -> Digest {
        self.config.current().snapshot.digest
    }

    /// The pointer that requests read.
    pub(super) fn config(&self) -> &ConfigHandle {
        &self.config
    }

    /// Keys digests anew, when the control plane names another pepper than the one in force, or itself by another name.
    pub(super) fn use_pepper(&self, pepper: &Pepper, deployment: &Arc<str>) {
        let current = self.config.current();
        let named = current.deployment.as_ref().map_or("", |own| own.id());
        let differs = current
            .pepper
            .as_ref()
            .is_some_and(|old| old.expose() != pepper.expose() || named != &**deployment);
        let view = View {
            pepper: pepper.clone(),
            deployment: Arc::clone(deployment),
            keyed: current.keyed,
        };
        if differs && let Ok(next) = Pinned::build(current.snapshot.clone(), view, &current) {
            self.put(next, &self.rest);
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
        content: Incoming,
        view: &View,
    ) -> Result<(), Refusal> {
        if !content.rejected.is_empty() {
            return Err(Refusal::Rejected(content.rejected));
        }
        let snapshot =
            Snapshot::assemble(version, &content.rest, content.keys).map_err(Refusal::Rejected)?;
        self.adopt(snapshot, digest, Arc::new(content.rest), view)
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
        view: &View,
    ) -> Result<(), Refusal> {
        let mut rest = Arc::clone(&self.rest);
        for change in changes {
            match change {
                Change::Upsert(resource) if in_table_alone(resource) => {
                    if let Some(name) = change.name().filter(|name| rest.get(name).is_some()) {
                        Arc::make_mut(&mut rest).remove(&name);
                    }
                }
                Change::Remove(name) if rest.get(name).is_none() => {}
                Change::Upsert(_) | Change::Remove(_) => {
                    Arc::make_mut(&mut rest).apply(change.clone());
                }
            }
        }
        let current = self.config.current();
        let snapshot = current
            .snapshot
            .advance_table(version, &rest, changes)
            .map_err(Refusal::Rejected)?;
        self.adopt(snapshot, digest, rest, view)
    }

    fn adopt(
        &mut self,
        snapshot: Snapshot,
        digest: Digest,
        rest: Arc<Content>,
        view: &View,
    ) -> Result<(), Refusal> {
        let version = snapshot.version;
        if snapshot.digest != digest {
            return Err(Refusal::Digest { version });
        }
        let next = Pinned::build(snapshot, view.clone(), &self.config.current())
            .map_err(|rejection| Refusal::Rejected(vec![rejection]))?;
        self.put(next, &rest);
        self.rest = rest;
        Ok(())
    }

    fn put(&self, next: Pinned, rest: &Arc<Content>) {
        self.config.install(next);
        self.published.send_replace(Some(Holding {
            pinned: self.config.current(),
            rest: Arc::clone(rest),
        }));
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
mod tests;
