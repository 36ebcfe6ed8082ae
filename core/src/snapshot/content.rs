//! The resources of a configuration in plain: what is compared, sent as differences, and digested.
//!
//! Invariant: apply(diff(a, b), a) = b. Invariant: the digest depends on the content alone, not on how it came about. Secrets of
//! upstream keys stand here in plain, so a content is kept only where the secrets are needed, and never printed.

use std::{fmt, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};
use prost::Message as _;
use proxyxai_proto::config::v1::{self as proto, resource::Kind};

use crate::account::tree::ROOT;

/// The kind of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// A subaccount.
    Account,
    /// A virtual key.
    VirtualKey,
    /// An upstream API.
    Provider,
    /// A secret of one.
    UpstreamKey,
    /// Models to providers.
    Route,
    /// The price book.
    PriceTable,
}

impl ResourceKind {
    /// The word for it in keys and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::VirtualKey => "virtual_key",
            Self::Provider => "provider",
            Self::UpstreamKey => "upstream_key",
            Self::Route => "route",
            Self::PriceTable => "price_table",
        }
    }

    /// Whether a node that does not preload virtual keys is sent this one on demand only: virtual keys, and accounts but the root.
    pub fn is_keyed(name: &ResourceName) -> bool {
        match name.kind {
            Self::VirtualKey => true,
            Self::Account => name.id != ROOT,
            Self::Provider | Self::UpstreamKey | Self::Route | Self::PriceTable => false,
        }
    }

    fn from_proto(kind: proto::ResourceKind) -> Option<Self> {
        match kind {
            proto::ResourceKind::Unspecified => None,
            proto::ResourceKind::Account => Some(Self::Account),
            proto::ResourceKind::VirtualKey => Some(Self::VirtualKey),
            proto::ResourceKind::Provider => Some(Self::Provider),
            proto::ResourceKind::UpstreamKey => Some(Self::UpstreamKey),
            proto::ResourceKind::Route => Some(Self::Route),
            proto::ResourceKind::PriceTable => Some(Self::PriceTable),
        }
    }

    fn to_proto(self) -> proto::ResourceKind {
        match self {
            Self::Account => proto::ResourceKind::Account,
            Self::VirtualKey => proto::ResourceKind::VirtualKey,
            Self::Provider => proto::ResourceKind::Provider,
            Self::UpstreamKey => proto::ResourceKind::UpstreamKey,
            Self::Route => proto::ResourceKind::Route,
            Self::PriceTable => proto::ResourceKind::PriceTable,
        }
    }
}

/// Names a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    /// What it is.
    pub kind: ResourceKind,
    /// Which one.
    pub id: String,
}

impl Change {
    /// What it puts or takes away; `None` for a resource of a newer schema.
    pub fn name(&self) -> Option<ResourceName> {
        match self {
            Self::Upsert(resource) => ResourceName::of(resource),
            Self::Remove(name) => Some(name.clone()),
        }
    }
}

impl ResourceName {
    /// The name of a resource; `None` when it is empty, as one of a newer schema is.
    pub fn of(resource: &proto::Resource) -> Option<Self> {
        let (kind, id) = match resource.kind.as_ref()? {
            Kind::Account(r) => (ResourceKind::Account, &r.id),
            Kind::VirtualKey(r) => (ResourceKind::VirtualKey, &r.id),
            Kind::Provider(r) => (ResourceKind::Provider, &r.id),
            Kind::UpstreamKey(r) => (ResourceKind::UpstreamKey, &r.id),
            Kind::Route(r) => (ResourceKind::Route, &r.id),
            Kind::PriceTable(r) => (ResourceKind::PriceTable, &r.version),
        };
        Some(Self {
            kind,
            id: id.clone(),
        })
    }

    /// From the wire.
    pub fn from_proto(name: &proto::ResourceName) -> Option<Self> {
        ResourceKind::from_proto(name.kind()).map(|kind| Self {
            kind,
            id: name.id.clone(),
        })
    }

    /// To the wire.
    pub fn to_proto(&self) -> proto::ResourceName {
        proto::ResourceName {
            kind: self.kind.to_proto().into(),
            id: self.id.clone(),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind.as_str(), self.id)
    }
}

/// One step from a content to the next.
#[derive(Clone)]
pub enum Change {
    /// Put, in place of one of the same name.
    Upsert(Arc<proto::Resource>),
    /// Take away.
    Remove(ResourceName),
}

/// All resources, ordered by name. Cloning costs nothing and a change the path to one resource, however many there are
/// (`docs/decisions/0201-persistent-maps.md`).
#[derive(Clone, Default, PartialEq)]
pub struct Content {
    resources: OrdMap<ResourceName, Arc<proto::Resource>>,
    digest: Digest,
}

/// Digest over a content: the sum, in four lanes of 64 bits, of the BLAKE3 hashes of its resources in plain. A sum can be kept up
/// to date at the price of the one resource that changed, and does not depend on the order in which they came. It finds
/// mistakes and losses; it does not stop forgers, who would have to break the protected channel first.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    fn of(resource: &proto::Resource) -> Self {
        let bytes = zeroize::Zeroizing::new(resource.encode_to_vec());
        Self(blake3::derive_key("proxyxai 2026 config resource", &bytes))
    }

    fn merge(&mut self, other: Self, lane: fn(u64, u64) -> u64) {
        let (mine, _) = self.0.as_chunks_mut::<8>();
        let (theirs, _) = other.0.as_chunks::<8>();
        for (a, b) in mine.iter_mut().zip(theirs) {
            *a = lane(u64::from_le_bytes(*a), u64::from_le_bytes(*b)).to_le_bytes();
        }
    }

    /// From the wire.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take(8)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.resources.keys()).finish()
    }
}

impl Content {
    /// Puts a resource; one without a kind is passed over, as it is of a schema that this program does not know.
    pub fn upsert(&mut self, resource: Arc<proto::Resource>) {
        if let Some(name) = ResourceName::of(&resource) {
            self.digest.merge(Digest::of(&resource), u64::wrapping_add);
            if let Some(old) = self.resources.insert(name, resource) {
                self.digest.merge(Digest::of(&old), u64::wrapping_sub);
            }
        }
    }

    /// Takes a resource away.
    pub fn remove(&mut self, name: &ResourceName) {
        if let Some(old) = self.resources.remove(name) {
            self.digest.merge(Digest::of(&old), u64::wrapping_sub);
        }
    }

    /// Takes one step.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Upsert(resource) => self.upsert(resource),
            Change::Remove(name) => self.remove(&name),
        }
    }

    /// One resource.
    pub fn get(&self, name: &ResourceName) -> Option<&Arc<proto::Resource>> {
        self.resources.get(name)
    }

    /// All resources, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceName, &Arc<proto::Resource>)> {
        self.resources.iter()
    }

    /// Resources of one kind, in the order of their ids.
    pub fn of_kind(&self, kind: ResourceKind) -> impl Iterator<Item = &Arc<proto::Resource>> {
        let from = ResourceName {
            kind,
            id: String::new(),
        };
        self.resources
            .range(from..)
            .take_while(move |(name, _)| name.kind == kind)
            .map(|(_, resource)| resource)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// The steps from `self` to `to`.
    pub fn diff(&self, to: &Self) -> Vec<Change> {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for item in self.resources.diff(&to.resources) {
            match item {
                DiffItem::Remove(name, _) => gone.push(Change::Remove(name.clone())),
                DiffItem::Add(_, resource)
                | DiffItem::Update {
                    new: (_, resource), ..
                } => new.push(Change::Upsert(Arc::clone(resource))),
            }
        }
        gone.append(&mut new);
        gone
    }

    /// Digest over all resources.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl FromIterator<Arc<proto::Resource>> for Content {
    fn from_iter<I: IntoIterator<Item = Arc<proto::Resource>>>(resources: I) -> Self {
        let mut content = Self::default();
        resources
            .into_iter()
            .for_each(|resource| content.upsert(resource));
        content
    }
}
