//! Which object of those in force an object of a manifest means.

use std::collections::BTreeMap;

use proxyxai_core::{
    access::{Caller, Permission, may, may_call},
    account::tree::AccountIndex,
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::{
    admin::v1::{ManifestKey, ManifestObject, manifest_object::Kind},
    config::v1::resource,
};

use super::show::kind_of;
use crate::{config_store::State, status::Fault};

/// Finds objects by the names that people give them.
pub(super) struct Finder<'a> {
    state: &'a State,
    caller: &'a Caller,
    paths: BTreeMap<String, AccountIndex>,
    /// Ids of virtual keys by account and name.
    keys: BTreeMap<(String, String), Vec<String>>,
}

impl<'a> Finder<'a> {
    /// For the objects of a manifest.
    pub(super) fn new(state: &'a State, caller: &'a Caller, objects: &[ManifestObject]) -> Self {
        let accounts = &state.snapshot.accounts;
        let paths = accounts.all().map(|at| (accounts.path(at), at)).collect();
        let mut keys: BTreeMap<_, Vec<String>> = BTreeMap::new();
        if objects
            .iter()
            .any(|object| matches!(object.kind, Some(Kind::Key(_))))
        {
            for stored in state.of_kind(ResourceKind::VirtualKey) {
                if let Some(resource::Kind::VirtualKey(key)) = kind_of(stored) {
                    let place = (key.account_id.clone(), key.name.clone());
                    keys.entry(place).or_default().push(key.id.clone());
                }
            }
        }
        Self {
            state,
            caller,
            paths,
            keys,
        }
    }

    /// The account at a path, if there is one and the caller sees it.
    pub(super) fn account(&self, path: &str) -> Option<String> {
        let accounts = &self.state.snapshot.accounts;
        let at = *self.paths.get(path)?;
        may(self.caller, Permission::Read, accounts, at).ok()?;
        Some(accounts.id(at).to_owned())
    }

    /// What the object means; `None` when there is no such thing yet.
    pub(super) fn find(&self, object: &ManifestObject) -> Result<Option<ResourceName>, Fault> {
        let (kind, id) = match &object.kind {
            Some(Kind::Account(it)) => {
                let id = self.account(&it.path);
                return Ok(id.map(|id| named(ResourceKind::Account, id)));
            }
            Some(Kind::Key(it)) => return self.key(it),
            Some(Kind::Provider(it)) => (ResourceKind::Provider, &it.id),
            Some(Kind::UpstreamKey(it)) => (ResourceKind::UpstreamKey, &it.id),
            Some(Kind::Route(it)) => (ResourceKind::Route, &it.id),
            Some(Kind::PriceTable(it)) => (ResourceKind::PriceTable, &it.version),
            None => return Ok(None),
        };
        may_call(self.caller, Permission::ReadDeployment).map_err(Fault::Denied)?;
        let found = self.state.get(kind, id).is_some();
        Ok(found.then(|| named(kind, id.clone())))
    }

    fn key(&self, key: &ManifestKey) -> Result<Option<ResourceName>, Fault> {
        let account = self.account(&key.account);
        if !key.id.is_empty() {
            let there = self.state.get(ResourceKind::VirtualKey, &key.id);
            let there = there.and_then(kind_of).is_some_and(|kind| {
                matches!(kind, resource::Kind::VirtualKey(it) if Some(&it.account_id) == account.as_ref())
            });
            return if there {
                Ok(Some(named(ResourceKind::VirtualKey, key.id.clone())))
            } else {
                let what = format!(
                    "there is no virtual key `{}` in the account `{}`; leave the id out to make a new key, ids are never chosen",
                    key.id, key.account
                );
                Err(Fault::field("id", what))
            };
        }
        let Some(account) = account else {
            return Ok(None);
        };
        match self
            .keys
            .get(&(account, key.name.clone()))
            .map(Vec::as_slice)
        {
            None | Some([]) => Ok(None),
            Some([id]) => Ok(Some(named(ResourceKind::VirtualKey, id.clone()))),
            Some(several) => {
                let what = format!(
                    "{} keys of the account have this name ({}); say by its `id` which one is meant",
                    several.len(),
                    several.join(", ")
                );
                Err(Fault::field("name", what))
            }
        }
    }
}

fn named(kind: ResourceKind, id: String) -> ResourceName {
    ResourceName { kind, id }
}
