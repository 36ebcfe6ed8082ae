//! Compiles a content into a snapshot, or names everything in it that does not fit.

mod keys;

use std::{collections::BTreeMap, sync::Arc};

use proxyxai_proto::config::v1::{self as proto, resource::Kind};
use secrecy::SecretString;

pub use super::checks::{check_provider, check_route, check_upstream_key, check_upstream_secret};
use keys::hash_in_table;
pub use keys::{in_table_alone, key_at, key_in};

use super::{
    Change, Content, Digest, KeyTable, KeyTableBuilder, KeyTerms, ResourceKind, ResourceName,
    Version, checks::levels_given,
};
use crate::{
    account::{
        key::KeyDigest,
        pattern::PatternList,
        terms::{Key, Terms},
        tree::{AccountTree, InvalidAccount},
    },
    dialect::Dialect,
    money::price::PriceBook,
    route::{
        base_url::BaseUrl,
        pool::{Level, Member, Pool, PoolIndex, RouteTable, SwitchOver, UpstreamKeyIndex},
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
    /// Whether it is at an address of the providers themselves, behind which no gateway is.
    pub official: bool,
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
    /// Tried before those with a higher one.
    pub level: u32,
    /// Turns among those of its level.
    pub weight: u32,
    /// The models that it serves, by its provider's names.
    pub models: Arc<PatternList>,
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

    /// What the providers call a model, where a route gives it another name.
    pub fn mapped(&self, dialect: Dialect, model: &str) -> Option<String> {
        let (_, pool) = self.pool(dialect, Some(model))?;
        pool.mapping.as_ref()?.apply(model)
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
            next.accounts = self.step_accounts(&old.accounts, changes);
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
        self.tree(AccountTree::build(accounts))
    }

    fn step_accounts(&mut self, old: &AccountTree, changes: &[Change]) -> Arc<AccountTree> {
        let names: Vec<Option<ResourceName>> = changes.iter().map(Change::name).collect();
        let accounts = names.iter().zip(changes).filter_map(|(name, change)| {
            let name = name.as_ref()?;
            let account = match change.resource().map(|resource| &resource.kind) {
                Some(Some(Kind::Account(account))) => Some(account),
                _ => None,
            };
            (name.kind == ResourceKind::Account).then_some((name.id.as_str(), account))
        });
        self.tree(old.step(accounts))
    }

    fn tree(&mut self, tree: Result<AccountTree, Vec<InvalidAccount>>) -> Arc<AccountTree> {
        match tree {
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
            match check_provider(given) {
                Ok(provider) => providers.push(provider),
                Err((_, reason)) => self.reject(ResourceKind::Provider, &given.id, reason),
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
            match check_upstream_key(given, ProviderIndex(position)) {
                Ok(key) => keys.push(key),
                Err((_, reason)) => self.reject(ResourceKind::UpstreamKey, &given.id, reason),
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
        let mut add = |pool: Pool| {
            pools.push(pool);
            PoolIndex(pools.len().saturating_sub(1))
        };
        let defaults = Dialect::ALL.map(|dialect| {
            let pool = add(Pool {
                name: format!("default/{}", dialect.as_str()),
                levels: levels_of(providers, keys, |p| p.kind.speaks(dialect)),
                switch_over: SwitchOver::default(),
                mapping: None,
            });
            (dialect, pool)
        });
        let mut routes = Vec::new();
        for resource in content.of_kind(ResourceKind::Route) {
            let Some(Kind::Route(route)) = &resource.kind else {
                continue;
            };
            match check_route(route, |id| providers.iter().any(|p| *p.id == *id)) {
                Ok((pattern, mapping)) => routes.extend(Dialect::ALL.map(|dialect| {
                    let level = |ids: &[String]| {
                        levels_of(providers, keys, |p| {
                            p.kind.speaks(dialect) && ids.iter().any(|id| **id == *p.id)
                        })
                    };
                    let levels = levels_given(route).flat_map(level).collect();
                    let pool = add(Pool {
                        name: format!("{}/{}", route.id, dialect.as_str()),
                        levels,
                        switch_over: SwitchOver::from_proto(route.switch_over()),
                        mapping: mapping.clone(),
                    });
                    (dialect, pattern.clone(), pool)
                })),
                Err((_, reason)) => self.reject(ResourceKind::Route, &route.id, reason),
            }
        }
        (pools, RouteTable::new(routes, defaults.to_vec()))
    }

    fn prices(&mut self, content: &Content) -> Arc<PriceBook> {
        let tables = content
            .of_kind(ResourceKind::PriceTable)
            .filter_map(|r| match &r.kind {
                Some(Kind::PriceTable(table)) => Some(table),
                _ => None,
            });
        // One is active; were there none or several, every node would choose the same.
        let Some(table) = tables.max_by_key(|table| (table.active, &table.version)) else {
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

/// The levels that the usable keys of some providers make up, the lowest first.
fn levels_of(
    providers: &[Provider],
    keys: &[UpstreamKey],
    wanted: impl Fn(&Provider) -> bool,
) -> Vec<Level> {
    let mut levels: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
    for (position, key) in keys.iter().enumerate().filter(|(_, key)| !key.disabled) {
        let provider = providers.get(key.provider.0);
        if provider.is_some_and(|p| !p.disabled && wanted(p)) {
            levels.entry(key.level).or_default().push(Member {
                key: UpstreamKeyIndex(position),
                provider: key.provider,
                weight: key.weight,
                models: Arc::clone(&key.models),
            });
        }
    }
    levels.into_values().map(Level::new).collect()
}
