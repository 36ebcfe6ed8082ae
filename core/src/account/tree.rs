//! The subaccount tree, compiled: indices instead of ids, so that walking up to the root costs no hash.
//!
//! Invariants: there is exactly one root, no cycle, no path deeper than [`MAX_DEPTH`]; siblings have different names. What an
//! account permits is the meet along its path: no child permits what an ancestor forbids (law 15).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use proxyxai_proto::config::v1 as proto;

use super::limits::{Asked, Dimension, InvalidLimit, Limits};

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

#[derive(Debug)]
struct Node {
    id: Arc<str>,
    name: Box<str>,
    parent: Option<AccountIndex>,
    suspended: bool,
    gateway: bool,
    limits: Limits,
}

/// All accounts.
#[derive(Debug, Default)]
pub struct AccountTree {
    nodes: Vec<Node>,
    by_id: HashMap<Arc<str>, AccountIndex>,
}

impl AccountTree {
    /// Compiles the tree.
    ///
    /// # Errors
    /// Every account that does not fit, with its reason.
    pub fn build<'a>(
        accounts: impl IntoIterator<Item = &'a proto::Account>,
    ) -> Result<Self, Vec<InvalidAccount>> {
        let accounts: BTreeMap<&str, &proto::Account> =
            accounts.into_iter().map(|a| (a.id.as_str(), a)).collect();
        let mut faults = Vec::new();
        let mut tree = Self::default();
        for (position, account) in accounts.values().enumerate() {
            let index = AccountIndex(u32::try_from(position).unwrap_or(u32::MAX));
            let limits = limits_of(account).unwrap_or_else(|error| {
                faults.push(InvalidAccount::new(account, error.to_string()));
                Limits::default()
            });
            let id: Arc<str> = account.id.as_str().into();
            tree.by_id.insert(Arc::clone(&id), index);
            tree.nodes.push(Node {
                id,
                name: account.name.as_str().into(),
                parent: None,
                suspended: account.suspended,
                gateway: account.gateway,
                limits,
            });
        }
        let mut names = BTreeSet::new();
        for (node, account) in tree.nodes.iter_mut().zip(accounts.values()) {
            match link(account, &tree.by_id) {
                Ok(parent) => node.parent = parent,
                Err(reason) => faults.push(InvalidAccount::new(account, reason)),
            }
            if let Err(error) = super::rules::check_account_name(&account.name) {
                faults.push(InvalidAccount::new(account, error.to_string()));
            }
            if !names.insert((account.parent_id.as_str(), account.name.as_str())) {
                faults.push(InvalidAccount::new(
                    account,
                    format!("a sibling is named `{}` already", account.name),
                ));
            }
        }
        for (position, account) in accounts.values().enumerate() {
            let index = AccountIndex(u32::try_from(position).unwrap_or(u32::MAX));
            if tree.line(index).nth(MAX_DEPTH).is_some() {
                let reason = format!(
                    "its path is deeper than {MAX_DEPTH} accounts, or leads back to itself"
                );
                faults.push(InvalidAccount::new(account, reason));
            }
        }
        if faults.is_empty() {
            Ok(tree)
        } else {
            Err(faults)
        }
    }

    /// The account with this id.
    pub fn get(&self, id: &str) -> Option<AccountIndex> {
        self.by_id.get(id).copied()
    }

    /// The account at `root/…/name`.
    pub fn by_path(&self, path: &str) -> Option<AccountIndex> {
        let mut names = path.split('/');
        let mut at = self.get(ROOT).filter(|_| names.next() == Some(ROOT))?;
        for name in names {
            at = self
                .children(at)
                .find(|child| self.node(*child).is_some_and(|n| *n.name == *name))?;
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
        let first = self.node(index).map(|_| index);
        std::iter::successors(first, |at| self.node(*at).and_then(|node| node.parent))
            .take(MAX_DEPTH.saturating_add(1))
    }

    /// Direct children, in the order of their ids.
    pub fn children(&self, of: AccountIndex) -> impl Iterator<Item = AccountIndex> + '_ {
        self.all().filter(move |index| {
            self.node(*index)
                .is_some_and(|node| node.parent == Some(of))
        })
    }

    /// All accounts, in the order of their ids.
    pub fn all(&self) -> impl Iterator<Item = AccountIndex> + '_ {
        (0_u32..).take(self.nodes.len()).map(AccountIndex)
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
        for at in self.line(index) {
            if let Some(dimension) = self.node(at).and_then(|node| node.limits.refuses(asked)) {
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
            let entry = dimension.widened(limits, &self.node(at)?.limits)?;
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
        if self.node(index).is_none() {
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
        self.node(index).is_some_and(|node| node.gateway)
    }

    /// The nearest account that is suspended: this one, or one above it.
    pub fn suspended(&self, index: AccountIndex) -> Option<AccountIndex> {
        self.line(index)
            .find(|at| self.node(*at).is_some_and(|node| node.suspended))
    }

    /// Ids from the root to the account.
    pub fn id_line(&self, index: AccountIndex) -> Vec<String> {
        let mut ids: Vec<String> = self.line(index).map(|at| self.id(at).to_owned()).collect();
        ids.reverse();
        ids
    }

    fn node(&self, index: AccountIndex) -> Option<&Node> {
        self.nodes.get(index.usize())
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

fn link(
    account: &proto::Account,
    by_id: &HashMap<Arc<str>, AccountIndex>,
) -> Result<Option<AccountIndex>, String> {
    match (account.id == ROOT, account.parent_id.as_str()) {
        (true, "") if account.name == ROOT => Ok(None),
        (true, _) => Err(format!(
            "the account `{ROOT}` has no parent and keeps its name"
        )),
        (false, "") => Err("only the root account has no parent".to_owned()),
        (false, parent) => by_id
            .get(parent)
            .copied()
            .map(Some)
            .ok_or_else(|| format!("its parent `{parent}` does not exist")),
    }
}

/// Why an account does not fit into the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAccount {
    /// Id of the account.
    pub id: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl InvalidAccount {
    fn new(account: &proto::Account, reason: String) -> Self {
        Self {
            id: account.id.clone(),
            reason,
        }
    }
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
