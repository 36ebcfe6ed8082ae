//! Finds what of a content fits when some of it does not, so that one bad resource stops nobody (law 10).
//!
//! Invariants: the result compiles; it is a function of what is offered alone; a resource that was in force never gives way to a
//! newcomer; where a newcomer does not fit, what stood in its place stays.
//!
//! What depends on a withheld resource is withheld too, unless it fits without: keys and accounts under a withheld account are not in
//! force, so that no narrowing gets lost; upstream keys of a withheld provider are out of use; a route that names one is withheld
//! whole, and its models go where the next less specific route sends them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost::Message as _;
use proxyxai_proto::config::v1::{self as proto, resource::Kind};

use super::{
    Content, Rejection, ResourceKind, ResourceName, Snapshot, Version, key_table::DIGEST_TAKEN,
};
use crate::money::price::PriceBook;

/// Largest resource, encoded in bytes: twice it fits into one transaction of a store, and once into a message to a node.
pub const MAX_RESOURCE_BYTES: usize = 500 << 10;
/// Longest id in bytes.
const MAX_ID_BYTES: usize = 128;

/// Resources that were never in force as they are, and what stood in their place, if anything.
pub type Newcomers = BTreeMap<ResourceName, Option<Arc<proto::Resource>>>;

/// What fits.
#[derive(Debug)]
pub struct Fitted {
    /// The content that fits.
    pub content: Content,
    /// That content, compiled.
    pub snapshot: Snapshot,
    /// What does not fit as it was offered, each with its reason. What stood in its place may be part of the content.
    pub withheld: BTreeMap<ResourceName, String>,
}

/// Takes out of `offered` what does not fit, or puts in what stood in its place.
pub fn fit(version: Version, offered: &Content, newcomers: &Newcomers) -> Fitted {
    let mut work = Work {
        content: offered.clone(),
        newcomers,
        withheld: BTreeMap::new(),
    };
    let flaws = newcomers
        .keys()
        .filter_map(|name| Some((name.clone(), flaw(name, offered.get(name)?)?)))
        .collect();
    work.withhold(flaws);
    // Compiling finds keys that have one digest, but not one that has what was another's before its rotation.
    let new_keys = newcomers.keys().any(|n| n.kind == ResourceKind::VirtualKey);
    loop {
        if new_keys && work.withhold(work.rivals()) {
            continue;
        }
        match Snapshot::compile(version, &work.content) {
            Ok(snapshot) => {
                return Fitted {
                    content: work.content,
                    snapshot,
                    withheld: work.withheld,
                };
            }
            Err(rejections) => {
                let mut rivals = work.rivals();
                if rivals.is_empty() {
                    rivals = work.first_to_blame(rejections);
                }
                if !work.withhold(rivals) {
                    // Nothing that was named is there: an empty configuration is better than none that ends.
                    work.content = Content::default();
                }
            }
        }
    }
}

struct Work<'a> {
    content: Content,
    newcomers: &'a Newcomers,
    withheld: BTreeMap<ResourceName, String>,
}

impl Work<'_> {
    /// Takes resources out, or puts in what stood in their place when that was not tried yet. Says whether anything changed.
    fn withhold(&mut self, named: Vec<(ResourceName, String)>) -> bool {
        let mut changed = false;
        for (name, reason) in named {
            let Some(now) = self.content.get(&name).cloned() else {
                continue;
            };
            changed = true;
            let stand_in = match self.newcomers.get(&name) {
                Some(Some(before)) if !self.withheld.contains_key(&name) => Some(before),
                _ => None,
            };
            match stand_in {
                Some(before) if *before != now => self.content.upsert(Arc::clone(before)),
                _ => self.content.remove(&name),
            }
            self.withheld.entry(name).or_insert(reason);
        }
        changed
    }

    /// Newcomers that claim what somebody else has: the digest of a key, the name of a sibling. Among newcomers the first by id has it.
    fn rivals(&self) -> Vec<(ResourceName, String)> {
        let mut taken = BTreeSet::new();
        let mut late = Vec::new();
        for kind in [ResourceKind::Account, ResourceKind::VirtualKey] {
            let is_new = |name: &ResourceName| self.is_new(name);
            let mut news = self.newcomers.keys().filter(|name| name.kind == kind);
            if news.next().is_none() {
                continue;
            }
            let named = self
                .content
                .of_kind(kind)
                .filter_map(|resource| Some((ResourceName::of(resource)?, claims(resource)?)));
            let (new, old): (Vec<_>, Vec<_>) = named.partition(|(name, _)| is_new(name));
            for (name, (claimed, reason)) in old.into_iter().chain(new) {
                let mine: BTreeSet<_> = claimed.into_iter().map(|what| (kind, what)).collect();
                if is_new(&name) && !mine.is_disjoint(&taken) {
                    // What it does not get stays free for those that come after it.
                    late.push((name, reason.to_owned()));
                } else {
                    taken.extend(mine);
                }
            }
        }
        late
    }

    /// Whether what has this name now is a newcomer, not what stood in its place.
    fn is_new(&self, name: &ResourceName) -> bool {
        self.newcomers.contains_key(name) && !self.withheld.contains_key(name)
    }

    /// Those of the rejected that nothing else is to blame for: what others depend on before these, newcomers before what was in force.
    fn first_to_blame(&self, rejections: Vec<Rejection>) -> Vec<(ResourceName, String)> {
        let rank = |name: &ResourceName| {
            let stage = match name.kind {
                ResourceKind::Account | ResourceKind::Provider | ResourceKind::PriceTable => 0,
                ResourceKind::VirtualKey | ResourceKind::UpstreamKey | ResourceKind::Route => 1,
            };
            (stage, !self.is_new(name))
        };
        let first = rejections.iter().map(|r| rank(&r.name)).min();
        let mut named: BTreeMap<ResourceName, String> = BTreeMap::new();
        for rejection in rejections {
            if Some(rank(&rejection.name)) == first {
                let reasons = named.entry(rejection.name).or_default();
                if !reasons.is_empty() {
                    reasons.push_str("; ");
                }
                reasons.push_str(&rejection.reason);
            }
        }
        named.into_iter().collect()
    }
}

/// What only one resource may have: of a virtual key its digest, and the one before it for as long as that is known.
fn claims(resource: &proto::Resource) -> Option<(Vec<Vec<u8>>, &'static str)> {
    match &resource.kind {
        Some(Kind::VirtualKey(key)) => {
            let previous = Some(&key.previous_digest).filter(|previous| !previous.is_empty());
            let digests = [Some(&key.digest), previous];
            let digests = digests.into_iter().flatten().cloned().collect();
            Some((digests, DIGEST_TAKEN))
        }
        Some(Kind::Account(account)) => Some((
            vec![[account.parent_id.as_bytes(), b"/", account.name.as_bytes()].concat()],
            "a sibling has its name already",
        )),
        _ => None,
    }
}

/// Flaws that no other resource has to do with and that compiling does not look for.
fn flaw(name: &ResourceName, resource: &proto::Resource) -> Option<String> {
    if name.id.is_empty() || name.id.len() > MAX_ID_BYTES {
        return Some(format!("an id has 1 to {MAX_ID_BYTES} bytes"));
    }
    if resource.encoded_len() > MAX_RESOURCE_BYTES {
        return Some(format!(
            "a resource has at most {MAX_RESOURCE_BYTES} bytes; this one has {}",
            resource.encoded_len()
        ));
    }
    match &resource.kind {
        Some(Kind::PriceTable(table)) => PriceBook::parse(&table.content)
            .err()
            .map(|error| error.to_string()),
        _ => None,
    }
}
