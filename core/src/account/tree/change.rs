//! From one tree to the next: compiles what changed, and names every account that does not fit then.
//!
//! Invariant: whatever the way, the same accounts give the same tree but for the indices, and the same faults: [`AccountTree::build`] is
//! a step from nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxyxai_proto::config::v1 as proto;

use super::{
    AccountIndex, AccountTree, InvalidAccount, Limits, MAX_DEPTH, Node, Place, ROOT, limits_of,
};
use crate::account::{rules::check_account_name, staleness::Staleness};

/// Largest index: who keeps one has two bits for other things.
pub(crate) const MAX_INDEX: u32 = (1 << 30) - 1;

/// What is wrong with whom.
type Faults = Vec<InvalidAccount>;

impl AccountTree {
    /// Compiles a tree.
    ///
    /// # Errors
    /// Every account that does not fit, with its reason.
    pub fn build<'a>(
        accounts: impl IntoIterator<Item = &'a proto::Account>,
    ) -> Result<Self, Vec<InvalidAccount>> {
        let accounts = accounts.into_iter();
        Self::default().step(accounts.map(|account| (account.id.as_str(), Some(account))))
    }

    /// The tree that changes lead to: each names an account, and what it is now, or nothing when it is gone. The last one of an account
    /// counts. Costs what is touched: the accounts that changed, and those below one that has another parent.
    ///
    /// # Errors
    /// Every account that does not fit, with its reason.
    pub fn step<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a str, Option<&'a proto::Account>)>,
    ) -> Result<Self, Vec<InvalidAccount>> {
        let changes: BTreeMap<&str, Option<&proto::Account>> = changes.into_iter().collect();
        let (mut next, mut faults) = (self.clone(), Faults::new());
        let mut gone = Vec::new();
        for (id, account) in &changes {
            let Some(at) = self.get(id) else { continue };
            next.release_name(at);
            if account.is_none() {
                next.by_id.remove(*id);
                next.places.set(at, Place::Vacant);
                gone.push(at);
            }
        }
        let changed: Vec<(AccountIndex, &proto::Account)> = changes
            .values()
            .flatten()
            .filter_map(|account| Some((next.index_for(account, &mut faults)?, *account)))
            .collect();
        let mut moved = Vec::new();
        for (at, account) in changed {
            let before = next.places.get(at);
            next.put(at, account, &mut faults);
            let after = next.places.get(at);
            if matches!(before, Place::Vacant) || before.parent() != after.parent() {
                moved.push(at);
            }
        }
        for at in &gone {
            let parent = self.id(*at);
            let reason = || format!("its parent `{parent}` does not exist");
            faults.extend(next.children(*at).map(|child| next.fault(child, reason())));
        }
        next.check_depth(moved, &mut faults);
        for at in gone {
            next.count_serving_expired(at, false);
            if let Some(node) = next.nodes.get_mut(at.usize()) {
                *node = None;
            }
            next.free.push_back(at);
        }
        if faults.is_empty() {
            Ok(next)
        } else {
            Err(faults)
        }
    }

    /// The index of an account; a new one gets one that is free.
    fn index_for(&mut self, account: &proto::Account, faults: &mut Faults) -> Option<AccountIndex> {
        if let Some(at) = self.get(&account.id) {
            return Some(at);
        }
        let at = match self.free.pop_back() {
            Some(at) => at,
            None => {
                let at = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
                if at > MAX_INDEX {
                    faults.push(fault(account, "there are too many accounts".to_owned()));
                    return None;
                }
                self.nodes.push_back(None);
                AccountIndex(at)
            }
        };
        self.by_id.insert(account.id.as_str().into(), at);
        Some(at)
    }

    /// Compiles one account, whose parent has its index already.
    fn put(&mut self, at: AccountIndex, account: &proto::Account, faults: &mut Faults) {
        let limits = limits_of(account).unwrap_or_else(|error| {
            faults.push(fault(account, error.to_string()));
            Limits::default()
        });
        let staleness = Staleness::of(account).unwrap_or_else(|error| {
            faults.push(fault(account, error.to_string()));
            Staleness::default()
        });
        let parent = self.parent_of(account).unwrap_or_else(|reason| {
            faults.push(fault(account, reason));
            None
        });
        if let Err(error) = check_account_name(&account.name) {
            faults.push(fault(account, error.to_string()));
        }
        let known = self.by_id.get_key_value(account.id.as_str());
        let id = known.map_or_else(|| account.id.as_str().into(), |(id, _)| Arc::clone(id));
        let name: Arc<str> = account.name.as_str().into();
        if let Some(parent) = parent {
            self.claim_name(at, account, (parent, Arc::clone(&name)), faults);
        }
        let limits = (!limits.is_empty()).then(|| Box::new(limits));
        let place = Place::Taken {
            parent,
            suspended: account.suspended,
            limited: limits.is_some(),
            dated: !staleness.is_empty(),
            gateway: account.gateway,
        };
        self.places.set(at, place);
        self.count_serving_expired(at, staleness.serves_expired());
        if let Some(node) = self.nodes.get_mut(at.usize()) {
            *node = Some(Arc::new(Node {
                id,
                name,
                limits,
                staleness,
            }));
        }
    }

    /// Counts whether an account lets itself be served past the limit of the deployment, before it is written.
    fn count_serving_expired(&mut self, at: AccountIndex, after: bool) {
        let before = self.said(at).serves_expired();
        let others = self.serving_expired.saturating_sub(usize::from(before));
        self.serving_expired = others.saturating_add(usize::from(after));
    }

    fn parent_of(&self, account: &proto::Account) -> Result<Option<AccountIndex>, String> {
        match (account.id == ROOT, account.parent_id.as_str()) {
            (true, "") if account.name == ROOT => Ok(None),
            (true, _) => Err(format!(
                "the account `{ROOT}` has no parent and keeps its name"
            )),
            (false, "") => Err("only the root account has no parent".to_owned()),
            (false, parent) => match self.get(parent) {
                Some(parent) => Ok(Some(parent)),
                None => Err(format!("its parent `{parent}` does not exist")),
            },
        }
    }

    /// Of siblings with one name the first by id has it.
    fn claim_name(
        &mut self,
        at: AccountIndex,
        account: &proto::Account,
        name: (AccountIndex, Arc<str>),
        faults: &mut Faults,
    ) {
        let reason = format!("a sibling is named `{}` already", account.name);
        let other = self.by_name.get(&name).copied().filter(|it| *it != at);
        match other {
            Some(other) if self.id(other) < account.id.as_str() => {
                faults.push(fault(account, reason));
            }
            Some(other) => {
                faults.push(self.fault(other, reason));
                self.by_name.insert(name, at);
            }
            None => {
                self.by_name.insert(name, at);
            }
        }
    }

    fn release_name(&mut self, at: AccountIndex) {
        let parent = self.places.get(at).parent();
        if let (Some(parent), Some(node)) = (parent, self.node(at)) {
            let name = (parent, Arc::clone(&node.name));
            self.by_name.remove(&name);
        }
    }

    /// Checks the paths of accounts that have another parent than before, and of all below them.
    fn check_depth(&self, moved: Vec<AccountIndex>, faults: &mut Faults) {
        let (mut open, mut seen) = (moved, BTreeSet::new());
        while let Some(at) = open.pop() {
            if !seen.insert(at) {
                continue;
            }
            open.extend(self.children(at));
            if self.line(at).nth(MAX_DEPTH).is_some() {
                let reason = format!(
                    "its path is deeper than {MAX_DEPTH} accounts, or leads back to itself"
                );
                faults.push(self.fault(at, reason));
            }
        }
    }

    fn fault(&self, at: AccountIndex, reason: String) -> InvalidAccount {
        InvalidAccount {
            id: self.id(at).to_owned(),
            reason,
        }
    }
}

fn fault(account: &proto::Account, reason: String) -> InvalidAccount {
    InvalidAccount {
        id: account.id.clone(),
        reason,
    }
}
