//! The subaccount tree, compiled: indices instead of ids, so that walking up to the root costs no hash.
//!
//! Invariants: there is exactly one root, no cycle, no path deeper than [`MAX_DEPTH`]; siblings have different names. What an
//! account permits is the meet along its path: no child permits what an ancestor forbids (law 15). Nothing is flattened, so that a
//! change of an account costs what it says itself, however many are below it. An account keeps its index for as long as it exists.

mod age;
mod change;

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use proxyxai_proto::config::v1 as proto;

use super::{
    limits::{Asked, Dimension, InvalidLimit, Limits},
    paged::Paged,
    staleness::Staleness,
};
#[cfg(test)]
pub(crate) use change::MAX_INDEX;

/// Id of the account that every gateway has, and its name.
pub const ROOT: &str = "root";
/// Deepest path, the root included.
pub const MAX_DEPTH: usize = 32;

/// Where an account stands in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountIndex(pub u32);

impl AccountIndex {
    fn usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// What a walk to the root must know of each account that it passes.
#[derive(Debug, Clone, Copy, Default)]
enum Place {
    /// No account has this index.
    #[default]
    Vacant,
    /// One does.
    Taken {
        parent: Option<AccountIndex>,
        suspended: bool,
        limited: bool,
        /// Whether it says something of staleness.
        dated: bool,
        gateway: bool,
    },
}

/// The rest of what is known of an account.
#[derive(Debug)]
struct Node {
    id: Arc<str>,
    name: Arc<str>,
    limits: Option<Box<Limits>>,
    staleness: Staleness,
}

/// All accounts. Cloning shares everything; [`AccountTree::step`] copies what changes touch.
#[derive(Debug, Clone, Default)]
pub struct AccountTree {
    /// By index: small, as every request walks over it.
    places: Paged<Place>,
    /// By index.
    nodes: Vector<Option<Arc<Node>>>,
    by_id: OrdMap<Arc<str>, AccountIndex>,
    /// All but the root, by parent and name.
    by_name: OrdMap<(AccountIndex, Arc<str>), AccountIndex>,
    /// Indices that no account has any more.
    free: Vector<AccountIndex>,
    /// How many accounts let themselves be served past the limit of the deployment.
    serving_expired: usize,
}

impl AccountTree {
    /// The account with this id.
    pub fn get(&self, id: &str) -> Option<AccountIndex> {
        self.by_id.get(id).copied()
    }

    /// The account at `root/…/name`.
    pub fn by_path(&self, path: &str) -> Option<AccountIndex> {
        let mut names = path.split('/');
        let mut at = self.get(ROOT).filter(|_| names.next() == Some(ROOT))?;
        for name in names {
            at = *self.by_name.get(&(at, name.into()))?;
        }
        Some(at)
    }

    /// The account with this id or at this path.
    pub fn find(&self, id_or_path: &str) -> Option<AccountIndex> {
        self.get(id_or_path).or_else(|| self.by_path(id_or_path))
    }

    /// Id of an account; empty for an index of another tree.
    pub fn id(&self, index: AccountIndex) -> &str {
        self.node(index).map_or("", |node| &node.id)
    }

    /// Id of an account, shared.
    pub fn shared_id(&self, index: AccountIndex) -> Option<Arc<str>> {
        self.node(index).map(|node| Arc::clone(&node.id))
    }

    /// `root/…/name`.
    pub fn path(&self, index: AccountIndex) -> String {
        let mut names: Vec<&str> = self
            .line(index)
            .filter_map(|i| self.node(i))
            .map(|n| &*n.name)
            .collect();
        names.reverse();
        names.join("/")
    }

    /// The account, its parent, and so on to the root.
    pub fn line(&self, index: AccountIndex) -> impl Iterator<Item = AccountIndex> + '_ {
        self.walk(index).map(|(at, _)| at)
    }

    /// Direct children, in the order of their names.
    pub fn children(&self, of: AccountIndex) -> impl Iterator<Item = AccountIndex> + '_ {
        self.by_name
            .range((of, Arc::from(""))..)
            .take_while(move |((parent, _), _)| *parent == of)
            .map(|(_, child)| *child)
    }

    /// All accounts, in the order of their ids.
    pub fn all(&self) -> impl Iterator<Item = AccountIndex> + '_ {
        self.by_id.values().copied()
    }

    /// The id at each index, from the first on; empty where no account is.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let nodes = self.nodes.iter().map(Option::as_deref);
        nodes.map(|node| node.map_or("", |node| &*node.id))
    }

    /// Whether `index` is `of` or below it.
    pub fn in_subtree(&self, index: AccountIndex, of: AccountIndex) -> bool {
        self.line(index).any(|at| at == of)
    }

    /// Whether the account and all above it permit what is asked for (law 15).
    ///
    /// # Errors
    /// Names the account that refuses: the nearest one.
    pub fn permits(&self, index: AccountIndex, asked: &Asked<'_>) -> Result<(), AccountRefusal> {
        for (at, place) in self.walk(index) {
            if place.limited()
                && let Some(dimension) = self.limits(at).and_then(|limits| limits.refuses(asked))
            {
                return Err(AccountRefusal::Forbidden {
                    path: self.path(at),
                    dimension,
                });
            }
        }
        Ok(())
    }

    /// Whether lists that shall stand below `parent` would permit what it or an account above it forbids. Asked when lists are
    /// written; an ancestor may be narrowed later, and then the lists below it, though longer, permit no more than it does.
    pub fn widened(
        &self,
        parent: AccountIndex,
        limits: &Limits,
        dimension: Dimension,
    ) -> Option<Widening> {
        self.line(parent).find_map(|at| {
            let entry = dimension.widened(limits, self.limits(at)?)?;
            Some(Widening {
                path: self.path(at),
                dimension,
                entry,
            })
        })
    }

    /// Whether neither the account nor any above it is suspended.
    ///
    /// # Errors
    /// Names the suspended account, or that there is no such account.
    pub fn active(&self, index: AccountIndex) -> Result<(), AccountRefusal> {
        if matches!(self.places.get(index), Place::Vacant) {
            return Err(AccountRefusal::Unknown);
        }
        match self.suspended(index) {
            Some(at) => Err(AccountRefusal::Suspended {
                path: self.path(at),
            }),
            None => Ok(()),
        }
    }

    /// Whether it is a child gateway that calls as this account. This is not handed down: what its accounts below are used for is not known.
    pub fn is_of_gateway(&self, index: AccountIndex) -> bool {
        matches!(self.places.get(index), Place::Taken { gateway: true, .. })
    }

    /// The nearest account that is suspended: this one, or one above it.
    pub fn suspended(&self, index: AccountIndex) -> Option<AccountIndex> {
        self.walk(index)
            .find_map(|(at, place)| place.suspended().then_some(at))
    }

    /// Ids from the root to the account.
    pub fn id_line(&self, index: AccountIndex) -> Vec<String> {
        let mut ids: Vec<String> = self.line(index).map(|at| self.id(at).to_owned()).collect();
        ids.reverse();
        ids
    }

    fn walk(&self, index: AccountIndex) -> impl Iterator<Item = (AccountIndex, Place)> + '_ {
        let at = |index: AccountIndex| match self.places.get(index) {
            Place::Vacant => None,
            place @ Place::Taken { .. } => Some((index, place)),
        };
        std::iter::successors(at(index), move |(_, place)| at(place.parent()?))
            .take(MAX_DEPTH.saturating_add(1))
    }

    fn node(&self, index: AccountIndex) -> Option<&Node> {
        self.nodes.get(index.usize())?.as_deref()
    }

    fn limits(&self, index: AccountIndex) -> Option<&Limits> {
        self.node(index)?.limits.as_deref()
    }
}

impl Place {
    fn parent(self) -> Option<AccountIndex> {
        match self {
            Self::Taken { parent, .. } => parent,
            Self::Vacant => None,
        }
    }

    fn suspended(self) -> bool {
        matches!(
            self,
            Self::Taken {
                suspended: true,
                ..
            }
        )
    }

    fn limited(self) -> bool {
        matches!(self, Self::Taken { limited: true, .. })
    }

    fn dated(self) -> bool {
        matches!(self, Self::Taken { dated: true, .. })
    }
}

/// An account's own lists.
///
/// # Errors
/// The first entry that cannot be used.
pub fn limits_of(account: &proto::Account) -> Result<Limits, InvalidLimit> {
    Limits::parse(
        &account.allowed_models,
        &account.allowed_endpoints,
        &account.allowed_networks,
    )
}

/// A list that permits more than one above it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}` is more than the account `{path}` allows; an account or key below it may only allow less"
)]
pub struct Widening {
    /// The account above.
    pub path: String,
    /// On which dimension.
    pub dimension: Dimension,
    /// The entry that goes too far.
    pub entry: String,
}

/// Why an account does not fit into the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAccount {
    /// Id of the account.
    pub id: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// Why an account may not do what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountRefusal {
    /// The key's account is not in this snapshot.
    #[error("the account of this key does not exist any more")]
    Unknown,
    /// This account, or one above it.
    #[error("the account `{path}` is suspended")]
    Suspended {
        /// The suspended account.
        path: String,
    },
    /// By this account, or one above it.
    #[error("the account `{path}` does not allow {}", .dimension.refused())]
    Forbidden {
        /// The account that forbids it.
        path: String,
        /// What it forbids.
        dimension: Dimension,
    },
}
