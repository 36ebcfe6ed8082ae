//! Which nodes a deployment has, over all replicas of the control plane, and which of them enforce a version.
//!
//! Invariant: a node that was ever sent a configuration is in every census until an administrator removes it, so that a wait says success
//! only when every node that may still serve enforces the version. Replicas ask each other through rows of the store that they share
//! (`docs/decisions/0203-replicas-ask-through-the-store.md`).

mod answers;
mod peers;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_core::{
    account::key::base62,
    order::{is_drained, order},
    ports::{Clock, Random, random_bytes},
    snapshot::Version,
};
use proxyxai_proto::{
    admin::v1::{NodeState, NodeView},
    store::v1::{Counter, RosterRow},
};
use tokio::time::{sleep, timeout};

use crate::{
    config_store::ConfigStore,
    nodes::{Node, Nodes},
    orders::Orders,
    publish::View,
    status::Fault,
    store::{
        Compare, Op, Range, Store, StoreError, Txn,
        keyspace::{self, Key, ROSTER_PREFIX},
    },
};

/// How long the store may take to register a node before the node is served all the same.
const REGISTER: Duration = Duration::from_secs(1);
/// Between looks at nodes that may have fallen silent.
const LOOK: Duration = Duration::from_millis(500);

/// Knows the nodes.
pub(crate) struct Roster {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    config: Arc<ConfigStore>,
    nodes: Arc<Nodes>,
    /// Names this replica.
    id: String,
    /// Whether other replicas may use the same store.
    shared: bool,
    orders: Arc<Orders>,
}

/// All nodes.
pub(crate) struct Census {
    /// In the order of their ids.
    pub(crate) nodes: Vec<NodeView>,
    /// Replicas that did not answer.
    pub(crate) silent: Vec<String>,
}

impl Roster {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        config: Arc<ConfigStore>,
        nodes: Arc<Nodes>,
        orders: Arc<Orders>,
        shared: bool,
    ) -> Self {
        let id = base62(&random_bytes(&*random), 12);
        Self {
            store,
            clock,
            random,
            config,
            nodes,
            id,
            shared,
            orders,
        }
    }

    /// Notes a node in the store, once. A node is served also when that fails; then it is tried again with its next stream.
    pub(crate) async fn register(&self, node: &str) {
        if self.orders.is_registered(node) {
            return;
        }
        let key = Key::Roster(node.to_owned()).to_string();
        let joined = Key::Node(node.to_owned()).to_string();
        let Ok(Ok(joined_row)) = timeout(REGISTER, self.store.get(&joined)).await else {
            tracing::warn!(
                node,
                "a node could not be registered; it is served all the same"
            );
            return;
        };
        let stored = RosterRow {
            first_seen_unix_ms: self.clock.unix_ms(),
            ..RosterRow::default()
        };
        let txn = Txn {
            compares: vec![
                Compare::absent(key.clone()),
                // One that is removed meanwhile does not come back by this.
                Compare::unchanged(joined, joined_row.as_ref()),
            ],
            then: vec![Op::Put(key, stored.encode_to_vec())],
        };
        match timeout(REGISTER, self.store.txn(txn)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(node, %error, "a node could not be registered"),
            Err(_) => tracing::warn!(node, "a node could not be registered in time"),
        }
    }

    /// Forgets a node here. A stream that it has is ended when its row in the store says so.
    pub(crate) fn forget(&self, node: &str) {
        self.nodes.forget(node);
    }

    /// The newest version, as the store has it.
    pub(crate) async fn head(&self) -> Result<Version, Fault> {
        let held = self.config.state().snapshot.version;
        let key = Key::Head.to_string();
        let entry = self.store.get(&key).await?;
        let stored = entry.and_then(|entry| keyspace::decode::<Counter>(&key, &entry.value).ok());
        Ok(Version {
            revision: stored.map_or(held.revision, |head| head.value.max(held.revision)),
            ..held
        })
    }

    /// All nodes of all replicas; with a version, once every live node enforces or refused it, or the time is over.
    pub(crate) async fn census(
        &self,
        version: Option<Version>,
        within: Duration,
    ) -> Result<Census, Fault> {
        let (mut nodes, silent) = if self.shared {
            self.ask_all(version, within).await?
        } else {
            (self.local(version, within).await, Vec::new())
        };
        let entries = self
            .store
            .range(Range::prefix(ROSTER_PREFIX))
            .await?
            .entries;
        let registered: BTreeMap<String, RosterRow> = entries
            .iter()
            .filter_map(|entry| match Key::parse(&entry.key) {
                Some(Key::Roster(id)) => {
                    let row = keyspace::decode(&entry.key, &entry.value);
                    Some((id, row.unwrap_or_default()))
                }
                _ => None,
            })
            .collect();
        // A node that was removed may be remembered by a replica that had it once.
        nodes.retain(|id, node| node.connected || registered.contains_key(id));
        let now = self.clock.unix_ms();
        for (id, row) in registered {
            let node = nodes.entry(id.clone()).or_insert_with(|| NodeView {
                id,
                state: NodeState::Unknown.into(),
                ..NodeView::default()
            });
            wanted(node, &row, now);
        }
        Ok(Census {
            nodes: nodes.into_values().collect(),
            silent,
        })
    }

    /// The nodes of this replica; with a version, once every live node enforces or refused it, or the time is over.
    async fn local(
        &self,
        version: Option<Version>,
        within: Duration,
    ) -> BTreeMap<String, NodeView> {
        if let Some(version) = version {
            let _late_ones_are_named = timeout(within, self.all_enforce(version)).await;
        }
        let head = self.config.publisher().latest().point.version;
        let nodes = self.nodes.all().into_iter();
        nodes
            .map(|(id, (node, age))| {
                let live = self.nodes.is_live(age);
                (id.clone(), view(id, node, age, live, head))
            })
            .collect()
    }

    async fn all_enforce(&self, version: Version) {
        let mut changes = self.nodes.subscribe();
        loop {
            changes.mark_unchanged();
            let nodes = self.nodes.all();
            let waits = |(node, age): &(Node, Duration)| {
                let refused = node.refused.as_ref().is_some_and(|r| r.version >= version);
                self.nodes.is_live(*age) && !node.enforces(version) && !refused
            };
            if !nodes.values().any(waits) {
                return;
            }
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                () = sleep(LOOK) => {}
            }
        }
    }
}

/// Whether a live node is known to enforce a version.
pub(crate) fn enforces(node: &NodeView, version: Version) -> bool {
    let at = |named: Option<&_>| named.is_some_and(|v| Version::from(*v) >= version);
    let live = match node.state() {
        NodeState::Current | NodeState::Behind => true,
        NodeState::Unspecified | NodeState::Refused | NodeState::Silent | NodeState::Unknown => {
            false
        }
    };
    live && at(node.applied.as_ref())
        && node.digest_equal != Some(false)
        && (!node.keyed || at(node.invalidated_through.as_ref()))
}

fn view(id: String, node: Node, age: Duration, live: bool, head: Version) -> NodeView {
    let odd = node.digest_equal == Some(false) || node.refused.is_some();
    let state = match (live, odd) {
        (false, _) => NodeState::Silent,
        (true, true) => NodeState::Refused,
        (true, false) if node.enforces(head) => NodeState::Current,
        (true, false) => NodeState::Behind,
    };
    let (refused, refused_reasons) = match node.refused {
        Some(refused) => (Some(refused.version.into()), refused.reasons),
        None => (None, Vec::new()),
    };
    NodeView {
        id,
        boot_id: node.boot_id,
        program_version: node.program_version,
        state: state.into(),
        applied: (node.applied != Version::default()).then(|| node.applied.into()),
        digest_equal: node.digest_equal,
        invalidated_through: Some(node.invalidated_through.into()),
        keyed: node.view == View::Keyed,
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        connected: node.stream.is_some(),
        refused,
        refused_reasons,
        vitals: node.vitals,
        // What is wanted of it stands in the store.
        ..NodeView::default()
    }
}

/// Adds what is wanted of a node, as of now.
fn wanted(node: &mut NodeView, row: &RosterRow, now_unix_ms: i64) {
    let order = order(row.schedule(), row.log.as_ref(), now_unix_ms);
    let live = match node.state() {
        NodeState::Current | NodeState::Behind | NodeState::Refused => true,
        NodeState::Unspecified | NodeState::Silent | NodeState::Unknown => false,
    };
    node.schedule = order.schedule;
    node.log_level = order.log_level;
    let until = row.log.filter(|_| order.log_level_for_ms > 0);
    node.log_level_until_unix_ms = until.map_or(0, |wish| wish.until_unix_ms);
    node.drained = live && node.connected && is_drained(order.schedule(), node.vitals.as_ref());
}

/// A write whose outcome does not matter to the caller.
async fn put(store: &Arc<dyn Store>, key: &Key, value: Vec<u8>) -> Result<u64, StoreError> {
    let txn = Txn {
        compares: Vec::new(),
        then: vec![Op::Put(key.to_string(), value)],
    };
    Ok(store.txn(txn).await?.revision)
}
