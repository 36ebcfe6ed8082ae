//! Compiles a content into a snapshot, or names everything in it that does not fit.

use std::{collections::HashMap, sync::Arc};

use proxyxai_proto::config::v1::{self as proto, resource::Kind};
use secrecy::SecretString;

use super::{
    Change, Content, Digest, KeyRecord, KeyTable, ResourceKind, ResourceName, Version,
    key_table::KeyId,
};
use crate::{
    account::{key::KeyDigest, pattern::Pattern, rules, tree::AccountTree},
    dialect::Dialect,
    money::price::PriceBook,
    route::{
        base_url::BaseUrl,
        pool::{Pool, PoolIndex, RouteTable, UpstreamKeyIndex},
        provider::ProviderKind,
    },
};

/// Where a provider stands in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderIndex(pub usize);

/// An upstream API.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Names it.
    pub id: Arc<str>,
    /// What it speaks.
    pub kind: ProviderKind,
    /// Where it is.
    pub base: BaseUrl,
    /// Whether it may have a private address.
    pub allow_private: bool,
    /// Out of use.
    pub disabled: bool,
}

/// A secret of a provider.
#[derive(Debug, Clone)]
pub struct UpstreamKey {
    /// Names it.
    pub id: Arc<str>,
    /// Whose key it is.
    pub provider: ProviderIndex,
    /// Out of use.
    pub disabled: bool,
    /// The secret itself.
    pub secret: SecretString,
}

/// A compiled configuration. Immutable; cloning shares the large parts.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its place in time.
    pub version: Version,
    /// Digest of the content that it was compiled from.
    pub digest: Digest,
    /// The subaccount tree.
    pub accounts: Arc<AccountTree>,
    /// The virtual keys.
    pub keys: KeyTable,
    /// The providers, in the order of their ids.
    pub providers: Vec<Provider>,
    /// The upstream keys, in the order of their ids.
    pub upstream_keys: Vec<UpstreamKey>,
    /// The pools that routes lead to.
    pub pools: Vec<Pool>,
    /// The price book.
    pub prices: Arc<PriceBook>,
    routes: RouteTable,
}

/// Why a resource does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Which one.
    pub name: ResourceName,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl Snapshot {
    /// What a node has before it ever heard of its control plane: nothing, so every key is unknown.
    pub fn empty() -> Self {
        Self {
            version: Version::default(),
            digest: Digest::default(),
            accounts: Arc::default(),
            keys: KeyTable::default(),
            providers: Vec::new(),
            upstream_keys: Vec::new(),
            pools: Vec::new(),
            prices: Arc::default(),
            routes: RouteTable::default(),
        }
    }

    /// Compiles a whole content.
    ///
    /// # Errors
    /// Everything in it that does not fit.
    pub fn compile(version: Version, content: &Content) -> Result<Self, Vec<Rejection>> {
        Compiler::default().run(version, content, None)
    }

    /// Compiles the content that `changes` led to from this snapshot's, keeping what they do not touch: when virtual keys alone
    /// changed, the price is that of their shards, however many keys there are.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub fn advance(
        &self,
        version: Version,
        content: &Content,
        changes: &[Change],
        before: &Content,
    ) -> Result<Self, Vec<Rejection>> {
        Compiler::default().run(version, content, Some((self, changes, before)))
    }

    /// The pool that serves a model in a dialect; `None` for the model asks for the default one.
    pub fn pool(&self, dialect: Dialect, model: Option<&str>) -> Option<(PoolIndex, &Pool)> {
        let index = match model {
            Some(model) => self.routes.find(dialect, model),
            None => self.routes.default_of(dialect),
        }?;
        self.pools.get(index.0).map(|pool| (index, pool))
    }

    /// An upstream key and its provider.
    pub fn upstream(&self, index: UpstreamKeyIndex) -> Option<(&UpstreamKey, &Provider)> {
        let key = self.upstream_keys.get(index.0)?;
        self.providers
            .get(key.provider.0)
            .map(|provider| (key, provider))
    }
}

#[derive(Default)]
struct Compiler {
    rejections: Vec<Rejection>,
}

impl Compiler {
    fn run(
        mut self,
        version: Version,
        content: &Content,
        from: Option<(&Snapshot, &[Change], &Content)>,
    ) -> Result<Snapshot, Vec<Rejection>> {
        let only_keys = from.filter(|(_, changes, _)| {
            changes
                .iter()
                .all(|change| kind_of(change) == Some(ResourceKind::VirtualKey))
        });
        let next = match only_keys {
            Some((old, changes, before)) => {
                let keys = old
                    .keys
                    .with(self.key_changes(changes, before, &old.accounts));
                Snapshot {
                    version,
                    digest: content.digest(),
                    keys,
                    ..old.clone()
                }
            }
            None => self.whole(version, content),
        };
        if self.rejections.is_empty() {
            Ok(next)
        } else {
            Err(self.rejections)
        }
    }

    fn whole(&mut self, version: Version, content: &Content) -> Snapshot {
        let accounts = self.accounts(content);
        let keys = self.keys(content, &accounts);
        let providers = self.providers(content);
        let upstream_keys = self.upstream_keys(content, &providers);
        let (pools, routes) = self.routes(content, &providers, &upstream_keys);
        Snapshot {
            version,
            digest: content.digest(),
            accounts,
            keys,
            providers,
            upstream_keys,
            pools,
            prices: self.prices(content),
            routes,
        }
    }

    fn accounts(&mut self, content: &Content) -> Arc<AccountTree> {
        let accounts = content
            .of_kind(ResourceKind::Account)
            .filter_map(|r| match &r.kind {
                Some(Kind::Account(account)) => Some(account),
                _ => None,
            });
        match AccountTree::build(accounts) {
            Ok(tree) => Arc::new(tree),
            Err(faults) => {
                faults
                    .into_iter()
                    .for_each(|fault| self.reject(ResourceKind::Account, &fault.id, fault.reason));
                Arc::default()
            }
        }
    }

    fn keys(&mut self, content: &Content, accounts: &AccountTree) -> KeyTable {
        let mut seen: HashMap<KeyDigest, ()> = HashMap::new();
        let mut records = Vec::new();
        for resource in content.of_kind(ResourceKind::VirtualKey) {
            let Some(Kind::VirtualKey(key)) = &resource.kind else {
                continue;
            };
            let Some((digest, record)) = self.key(key, accounts) else {
                continue;
            };
            if seen.insert(digest, ()).is_some() {
                self.reject(
                    ResourceKind::VirtualKey,
                    &key.id,
                    "its digest is that of another key".to_owned(),
                );
            }
            records.push((digest, Some(record)));
        }
        KeyTable::default().with(records)
    }

    fn key_changes(
        &mut self,
        changes: &[Change],
        before: &Content,
        accounts: &AccountTree,
    ) -> Vec<(KeyDigest, Option<KeyRecord>)> {
        let mut out = Vec::new();
        for change in changes {
            let name = match change {
                Change::Upsert(resource) => ResourceName::of(resource),
                Change::Remove(name) => Some(name.clone()),
            };
            if let Some(Kind::VirtualKey(old)) = name
                .and_then(|name| before.get(&name))
                .and_then(|r| r.kind.as_ref())
            {
                out.extend(digest_of(old).map(|digest| (digest, None)));
            }
            if let Change::Upsert(resource) = change
                && let Some(Kind::VirtualKey(key)) = &resource.kind
            {
                out.extend(
                    self.key(key, accounts)
                        .map(|(digest, record)| (digest, Some(record))),
                );
            }
        }
        out
    }

    fn key(
        &mut self,
        key: &proto::VirtualKey,
        accounts: &AccountTree,
    ) -> Option<(KeyDigest, KeyRecord)> {
        let account = accounts.get(&key.account_id);
        if account.is_none() {
            self.reject(
                ResourceKind::VirtualKey,
                &key.id,
                format!("its account `{}` does not exist", key.account_id),
            );
        }
        let (id, digest) = (KeyId::new(&key.id), digest_of(key));
        if id.is_none() || digest.is_none() {
            self.reject(
                ResourceKind::VirtualKey,
                &key.id,
                "its id or digest does not have the right length".to_owned(),
            );
        }
        Some((
            digest?,
            KeyRecord {
                id: id?,
                account: account?,
                disabled: key.disabled,
            },
        ))
    }

    fn providers(&mut self, content: &Content) -> Vec<Provider> {
        let mut providers = Vec::new();
        for resource in content.of_kind(ResourceKind::Provider) {
            let Some(Kind::Provider(given)) = &resource.kind else {
                continue;
            };
            match provider_from_proto(given) {
                Ok(provider) => providers.push(provider),
                Err(reason) => self.reject(ResourceKind::Provider, &given.id, reason),
            }
        }
        providers
    }

    fn upstream_keys(&mut self, content: &Content, providers: &[Provider]) -> Vec<UpstreamKey> {
        let mut keys = Vec::new();
        for resource in content.of_kind(ResourceKind::UpstreamKey) {
            let Some(Kind::UpstreamKey(given)) = &resource.kind else {
                continue;
            };
            let Some(position) = providers.iter().position(|p| *p.id == *given.provider_id) else {
                self.reject(
                    ResourceKind::UpstreamKey,
                    &given.id,
                    format!("its provider `{}` does not exist", given.provider_id),
                );
                continue;
            };
            match check_upstream_secret(&given.secret) {
                Ok(secret) => keys.push(UpstreamKey {
                    id: given.id.as_str().into(),
                    provider: ProviderIndex(position),
                    disabled: given.disabled,
                    secret: SecretString::from(secret),
                }),
                Err(reason) => self.reject(ResourceKind::UpstreamKey, &given.id, reason.to_owned()),
            }
        }
        keys
    }

    fn routes(
        &mut self,
        content: &Content,
        providers: &[Provider],
        keys: &[UpstreamKey],
    ) -> (Vec<Pool>, RouteTable) {
        let mut pools = Vec::new();
        let mut add = |name: String, serves: &dyn Fn(&Provider) -> bool| {
            let usable = |key: &UpstreamKey| {
                providers
                    .get(key.provider.0)
                    .is_some_and(|p| !p.disabled && serves(p))
            };
            let members = keys
                .iter()
                .enumerate()
                .filter(|(_, key)| !key.disabled && usable(key));
            pools.push(Pool {
                name,
                keys: members
                    .map(|(position, _)| UpstreamKeyIndex(position))
                    .collect(),
            });
            PoolIndex(pools.len().saturating_sub(1))
        };
        let defaults = Dialect::ALL.map(|dialect| {
            (
                dialect,
                add(format!("default/{}", dialect.as_str()), &|p| {
                    p.kind.speaks(dialect)
                }),
            )
        });
        let mut routes = Vec::new();
        for resource in content.of_kind(ResourceKind::Route) {
            let Some(Kind::Route(route)) = &resource.kind else {
                continue;
            };
            match check_route(route, providers) {
                Ok(pattern) => routes.extend(Dialect::ALL.map(|dialect| {
                    let named = |p: &Provider| {
                        p.kind.speaks(dialect) && route.provider_ids.iter().any(|id| **id == *p.id)
                    };
                    (
                        dialect,
                        pattern.clone(),
                        add(format!("{}/{}", route.id, dialect.as_str()), &named),
                    )
                })),
                Err(reason) => self.reject(ResourceKind::Route, &route.id, reason),
            }
        }
        (pools, RouteTable::new(routes, defaults.to_vec()))
    }

    fn prices(&mut self, content: &Content) -> Arc<PriceBook> {
        let Some(resource) = content.of_kind(ResourceKind::PriceTable).last() else {
            return Arc::default();
        };
        let Some(Kind::PriceTable(table)) = &resource.kind else {
            return Arc::default();
        };
        match PriceBook::parse(&table.content) {
            Ok(book) => Arc::new(book),
            Err(error) => {
                self.reject(ResourceKind::PriceTable, &table.version, error.to_string());
                Arc::default()
            }
        }
    }

    fn reject(&mut self, kind: ResourceKind, id: &str, reason: String) {
        self.rejections.push(Rejection {
            name: ResourceName {
                kind,
                id: id.to_owned(),
            },
            reason,
        });
    }
}

/// Checks a provider as it came over the wire; the same code at the admin API and at the node.
///
/// # Errors
/// Says what is wrong with it.
pub fn provider_from_proto(given: &proto::Provider) -> Result<Provider, String> {
    rules::check_id(&given.id).map_err(|error| error.to_string())?;
    let kind = ProviderKind::from_proto(given.kind())
        .ok_or("its kind is not one that this version knows")?;
    let base = BaseUrl::parse(&given.base_url).map_err(|error| error.to_string())?;
    if !given.allow_private
        && base
            .literal_address()
            .is_some_and(crate::route::address::is_private)
    {
        return Err(format!(
            "{base} is a private address; allow private addresses for this provider if that is meant"
        ));
    }
    Ok(Provider {
        id: given.id.as_str().into(),
        kind,
        base,
        allow_private: given.allow_private,
        disabled: given.disabled,
    })
}

/// Longest secret of an upstream, in bytes: servers refuse headers that are much longer.
const MAX_SECRET_BYTES: usize = 4096;

/// Checks a secret: it must be able to stand in a header.
///
/// # Errors
/// Says what does not belong into a secret.
pub fn check_upstream_secret(secret: &[u8]) -> Result<String, &'static str> {
    let text = str::from_utf8(secret).map_err(|_| "its secret is not text")?;
    if text.is_empty() {
        return Err("its secret is empty");
    }
    if text.len() > MAX_SECRET_BYTES {
        return Err("its secret is too long: at most 4096 bytes can stand in a header");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("its secret has spaces or other characters that cannot stand in a header");
    }
    Ok(text.to_owned())
}

fn check_route(route: &proto::Route, providers: &[Provider]) -> Result<Pattern, String> {
    rules::check_id(&route.id).map_err(|error| error.to_string())?;
    if route.provider_ids.is_empty() {
        return Err("it names no provider".to_owned());
    }
    if let Some(unknown) = route
        .provider_ids
        .iter()
        .find(|id| !providers.iter().any(|p| ***id == *p.id))
    {
        return Err(format!("its provider `{unknown}` does not exist"));
    }
    Pattern::parse(&route.model).map_err(|error| error.to_string())
}

fn digest_of(key: &proto::VirtualKey) -> Option<KeyDigest> {
    key.digest.as_slice().try_into().ok().map(KeyDigest)
}

fn kind_of(change: &Change) -> Option<ResourceKind> {
    match change {
        Change::Upsert(resource) => ResourceName::of(resource).map(|name| name.kind),
        Change::Remove(name) => Some(name.kind),
    }
}
