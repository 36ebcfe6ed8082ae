//! Compiles a content into a snapshot, or names everything in it that does not fit.

mod keys;

use std::sync::Arc;

use proxyxai_proto::config::v1::{self as proto, resource::Kind};
use secrecy::SecretString;

use keys::hash_in_table;
pub use keys::{in_table_alone, key_at, key_in};

use super::{
    Change, Content, Digest, KeyTable, KeyTableBuilder, KeyTerms, ResourceKind, ResourceName,
    Version,
};
use crate::{
    account::{
        key::KeyDigest,
        pattern::Pattern,
        rules,
        terms::{Key, Terms},
        tree::AccountTree,
    },
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
    /// The terms of those that have some.
    pub terms: KeyTerms,
    /// The providers, in the order of their ids.
    pub providers: Arc<[Provider]>,
    /// The upstream keys, in the order of their ids.
    pub upstream_keys: Arc<[UpstreamKey]>,
    /// The pools that routes lead to.
    pub pools: Arc<[Pool]>,
    /// The price book.
    pub prices: Arc<PriceBook>,
    routes: Arc<RouteTable>,
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
            terms: KeyTerms::default(),
            providers: Arc::default(),
            upstream_keys: Arc::default(),
            pools: Arc::default(),
            prices: Arc::default(),
            routes: Arc::default(),
        }
    }

    /// Compiles a whole content, its virtual keys included.
    ///
    /// # Errors
    /// Everything in it that does not fit.
    pub fn compile(version: Version, content: &Content) -> Result<Self, Vec<Rejection>> {
        let mut compiler = Compiler::default();
        let keys = compiler.gather(content, KeyTableBuilder::default());
        compiler.whole(version, content, content.digest(), keys)
    }

    /// Compiles what a node keeps: virtual keys in a table alone ([`in_table_alone`]), with the hashes of their resources, and
    /// everything else in `rest`. Its digest is that of both.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub fn assemble(
        version: Version,
        rest: &Content,
        keys: KeyTableBuilder,
    ) -> Result<Self, Vec<Rejection>> {
        let mut compiler = Compiler::default();
        let keys = compiler.gather(rest, keys);
        let mut next = compiler.whole(version, rest, rest.digest(), keys)?;
        next.digest.add(next.keys.sum());
        Ok(next)
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
    ) -> Result<Self, Vec<Rejection>> {
        let next = Compiler::default().step(self, version, content, changes, |_| Digest::default());
        next.map(|next| Self {
            digest: content.digest(),
            ..next
        })
    }

    /// Like [`Snapshot::advance`], for a snapshot of [`Snapshot::assemble`]: `rest` is what `changes` led to, without what is in
    /// the table alone. Whether the digest is the one that was meant is for the caller to see.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub fn advance_table(
        &self,
        version: Version,
        rest: &Content,
        changes: &[Change],
    ) -> Result<Self, Vec<Rejection>> {
        let mut next = Compiler::default().step(self, version, rest, changes, hash_in_table)?;
        next.digest = rest.digest();
        next.digest.add(next.keys.sum());
        Ok(next)
    }

    /// The virtual key with this digest, or with this digest before its last rotation.
    pub fn key(&self, digest: &KeyDigest) -> Option<Key> {
        if let Some(record) = self.keys.get(digest) {
            let terms = match record.has_terms {
                true => self.terms.get(digest)?.clone(),
                false => Terms::default(),
            };
            return Some(Key { record, terms });
        }
        let (current, until) = self.terms.replaced(digest)?;
        Some(Key {
            record: self.keys.get(&current)?,
            terms: self.terms.get(&current)?.clone().by_previous(until),
        })
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
    fn whole(
        mut self,
        version: Version,
        content: &Content,
        digest: Digest,
        (keys, terms): (KeyTableBuilder, KeyTerms),
    ) -> Result<Snapshot, Vec<Rejection>> {
        let judged = self.rejections.len();
        let accounts = self.accounts(content);
        let keys = keys.finish(&accounts).unwrap_or_else(|faults| {
            // Without accounts no key can be judged.
            if self.rejections.len() == judged {
                self.reject_keys(faults);
            }
            KeyTable::default()
        });
        let prices = self.prices(content);
        let next = Snapshot {
            version,
            digest,
            accounts,
            keys,
            terms,
            prices,
            ..Snapshot::empty()
        };
        self.upstreams(next, content)
    }

    /// Takes everything over from `old` that the changes do not touch.
    fn step(
        mut self,
        old: &Snapshot,
        version: Version,
        content: &Content,
        changes: &[Change],
        hash: fn(&proto::Resource) -> Digest,
    ) -> Result<Snapshot, Vec<Rejection>> {
        let touches = |kinds: &[ResourceKind]| {
            let mut touched = changes.iter().filter_map(Change::kind);
            touched.any(|kind| kinds.contains(&kind))
        };
        let mut next = Snapshot {
            version,
            ..old.clone()
        };
        if touches(&[ResourceKind::Account]) {
            next.accounts = self.accounts(content);
            if !self.rejections.is_empty() {
                return Err(self.rejections);
            }
        }
        self.step_keys(&mut next, &old.accounts, changes, hash);
        if touches(&[ResourceKind::PriceTable]) {
            next.prices = self.prices(content);
        }
        if touches(&[
            ResourceKind::Provider,
            ResourceKind::UpstreamKey,
            ResourceKind::Route,
        ]) {
            return self.upstreams(next, content);
        }
        self.end(next)
    }

    fn upstreams(mut self, next: Snapshot, content: &Content) -> Result<Snapshot, Vec<Rejection>> {
        let providers = self.providers(content);
        let upstream_keys = self.upstream_keys(content, &providers);
        let (pools, routes) = self.routes(content, &providers, &upstream_keys);
        self.end(Snapshot {
            providers: providers.into(),
            upstream_keys: upstream_keys.into(),
            pools: pools.into(),
            routes: Arc::new(routes),
            ..next
        })
    }

    fn end(self, next: Snapshot) -> Result<Snapshot, Vec<Rejection>> {
        if self.rejections.is_empty() {
            Ok(next)
        } else {
            Err(self.rejections)
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
