//! The admin API: one file per kind of object. Each call reads the state once, decides, and changes it in one transaction.

pub(crate) mod accounts;
pub(crate) mod backup;
pub(crate) mod credentials;
pub(crate) mod keys;
pub(crate) mod prices;
pub(crate) mod providers;
pub(crate) mod routes;
pub(crate) mod secrets;
pub(crate) mod settings;
mod staleness;
pub(crate) mod upstream_keys;
mod writing;

use proxyxai_core::{
    account::key::base62,
    ports::{Random, random_bytes},
};
use proxyxai_proto::{
    admin::v1::ManagedBy,
    config::v1::{Resource, resource::Kind},
    store::v1::StoredResource,
};

const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// One page of items that are ordered by id: those after `token`, and the token of the next page.
pub(crate) fn page<T>(
    items: impl Iterator<Item = T>,
    id: impl Fn(&T) -> String,
    size: u32,
    token: &str,
) -> (Vec<T>, String) {
    let size = page_size(size);
    let mut rest = items.filter(|item| token.is_empty() || id(item).as_str() > token);
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let next = rest.next().and(page.last()).map(&id).unwrap_or_default();
    (page, next)
}

/// How many items a page holds when so many are asked for; 0 leaves it to the control plane.
pub(crate) fn page_size(asked: u32) -> usize {
    match usize::try_from(asked).unwrap_or(MAX_PAGE) {
        0 => PAGE,
        size => size.min(MAX_PAGE),
    }
}

/// A new object.
pub(crate) fn object(kind: Kind, managed_by: ManagedBy, created_unix_ms: i64) -> StoredResource {
    let managed_by = if managed_by == ManagedBy::Unspecified {
        ManagedBy::Admin
    } else {
        managed_by
    };
    StoredResource {
        resource: Some(Resource { kind: Some(kind) }),
        managed_by: managed_by.into(),
        created_unix_ms,
        ..StoredResource::default()
    }
}

/// The same object with another content.
pub(crate) fn with(stored: &StoredResource, kind: Kind) -> StoredResource {
    StoredResource {
        resource: Some(Resource { kind: Some(kind) }),
        ..stored.clone()
    }
}

/// A new id: a word for its kind, and ten characters.
pub(crate) fn new_id(random: &dyn Random, word: &str) -> String {
    format!(
        "{word}-{}",
        base62(&random_bytes(random), 10).to_ascii_lowercase()
    )
}

#[cfg(test)]
mod tests;
