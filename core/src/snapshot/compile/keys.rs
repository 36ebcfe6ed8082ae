//! Compiles virtual keys: into the table, where plain ones are alone, and their terms beside it.

use std::collections::{BTreeMap, BTreeSet};

use proxyxai_proto::config::v1::{self as proto, resource::Kind};

use super::Compiler;
use crate::{
    account::{
        key::KeyDigest,
        terms,
        tree::{AccountIndex, AccountTree},
    },
    snapshot::{
        Change, Content, Digest, KeyRecord, KeyTableBuilder, KeyTerms, ResourceKind, Snapshot,
        key_table::{DIGEST_TAKEN, KeyId},
    },
};

impl Compiler {
    /// Takes all changed keys away, sees that no key is left of an account that is gone, and puts those that are left of the changed ones.
    pub(super) fn step_keys(
        &mut self,
        next: &mut Snapshot,
        old_accounts: &AccountTree,
        changes: &[Change],
        hash: fn(&proto::Resource) -> Digest,
    ) {
        let mut changed: BTreeMap<String, Option<&proto::Resource>> = BTreeMap::new();
        for change in changes {
            if let Some(name) = change.name()
                && name.kind == ResourceKind::VirtualKey
            {
                changed.insert(name.id, change.resource());
            }
        }
        for id in changed.keys() {
            if let Some(id) = KeyId::new(id)
                && let Some(digest) = next.keys.remove(&id)
            {
                next.terms.remove(&digest);
            }
        }
        let gone = changes
            .iter()
            .filter_map(Change::name)
            .filter(|name| {
                name.kind == ResourceKind::Account && next.accounts.get(&name.id).is_none()
            })
            .filter_map(|name| old_accounts.get(&name.id));
        let in_use: BTreeSet<AccountIndex> = gone.filter(|at| next.keys.owned(*at) > 0).collect();
        if !in_use.is_empty() {
            let orphans = next.keys.of_accounts(&in_use).map(|(_, record, _)| {
                let account = old_accounts.id(record.account);
                (record.id, format!("its account `{account}` does not exist"))
            });
            self.reject_keys(orphans);
            return;
        }
        for resource in changed.into_values().flatten() {
            let Some(Kind::VirtualKey(key)) = &resource.kind else {
                continue;
            };
            match key_in(key, &next.accounts) {
                Ok((digest, record)) => {
                    if next.keys.insert(digest, record, hash(resource)).is_err() {
                        self.reject(ResourceKind::VirtualKey, &key.id, DIGEST_TAKEN.to_owned());
                    } else if let Err(error) = next.terms.put(digest, key) {
                        self.reject(ResourceKind::VirtualKey, &key.id, error.to_string());
                    }
                }
                Err(reason) => self.reject(ResourceKind::VirtualKey, &key.id, reason),
            }
        }
    }

    /// Adds the virtual keys of a content that is kept itself, so that their hashes are not needed, and finds their terms.
    pub(super) fn gather(
        &mut self,
        content: &Content,
        mut keys: KeyTableBuilder,
    ) -> (KeyTableBuilder, KeyTerms) {
        let mut terms = KeyTerms::default();
        for resource in content.of_kind(ResourceKind::VirtualKey) {
            let Some(Kind::VirtualKey(key)) = &resource.kind else {
                continue;
            };
            let put = keys.push_key(key, Digest::default()).and_then(|digest| {
                let put = terms.put(digest, key);
                put.map_err(|error| error.to_string())
            });
            if let Err(reason) = put {
                self.reject(ResourceKind::VirtualKey, &key.id, reason);
            }
        }
        (keys, terms)
    }

    pub(super) fn reject_keys(&mut self, faults: impl IntoIterator<Item = (KeyId, String)>) {
        for (id, reason) in faults {
            self.reject(ResourceKind::VirtualKey, id.as_str(), reason);
        }
    }
}

/// Whether a node keeps a resource in its table of keys and nowhere else: the record says all that matters of it.
pub fn in_table_alone(resource: &proto::Resource) -> bool {
    matches!(&resource.kind, Some(Kind::VirtualKey(key)) if !terms::has_terms(key))
}

/// The part of the digest that the table has to know; other resources are part of a content, which knows theirs.
pub(super) fn hash_in_table(resource: &proto::Resource) -> Digest {
    match in_table_alone(resource) {
        true => Digest::of(resource),
        false => Digest::default(),
    }
}

/// Checks a virtual key whose account is in the tree; the same code at the control plane and at the node.
///
/// # Errors
/// Says what is wrong with it.
pub fn key_in(
    key: &proto::VirtualKey,
    accounts: &AccountTree,
) -> Result<(KeyDigest, KeyRecord), String> {
    let account = accounts
        .get(&key.account_id)
        .ok_or_else(|| format!("its account `{}` does not exist", key.account_id))?;
    key_at(key, account)
}

/// Checks a virtual key whose account is known to be at this place.
///
/// # Errors
/// Says what is wrong with it.
pub fn key_at(
    key: &proto::VirtualKey,
    account: AccountIndex,
) -> Result<(KeyDigest, KeyRecord), String> {
    let digest = key.digest.as_slice().try_into().map(KeyDigest).ok();
    let previous_fits = [0, 16].contains(&key.previous_digest.len());
    match (digest, KeyId::new(&key.id)) {
        (Some(digest), Some(id)) if previous_fits => Ok((
            digest,
            KeyRecord {
                id,
                account,
                disabled: key.disabled,
                has_terms: terms::has_terms(key),
            },
        )),
        _ => Err("its id or digest does not have the right length".to_owned()),
    }
}

impl KeyTableBuilder {
    /// Adds a virtual key and gives its digest; `hash` is that of its resource, or none where the contents themselves are kept.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn push_key(&mut self, key: &proto::VirtualKey, hash: Digest) -> Result<KeyDigest, String> {
        let account = self.account(&key.account_id);
        let (digest, record) = key_at(key, account)?;
        self.push(digest, record, hash);
        Ok(digest)
    }
}
