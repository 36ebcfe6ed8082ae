//! The side of a replica that asks the others for their nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prost::Message as _;
use proxyxai_core::{account::key::base62, ports::random_bytes, snapshot::Version};
use proxyxai_proto::{
    admin::v1::NodeView,
    store::v1::{Answer, Ask},
};
use tokio::time::{Instant, sleep};

use super::{Roster, put};
use crate::{
    status::Fault,
    store::{
        Op, Range, Txn,
        keyspace::{self, ANSWER_PREFIX, Key, REPLICA_PREFIX},
    },
};

/// How long a replica may take to answer, beyond what it is asked to wait.
const GRACE: Duration = Duration::from_secs(2);
/// Between looks whether those who did not answer are still on the list.
const RECOUNT: Duration = Duration::from_secs(1);
/// Between looks for answers.
const LOOK: Duration = Duration::from_millis(25);

/// What replicas said.
struct Said {
    nodes: BTreeMap<String, NodeView>,
    /// Those that did not answer.
    silent: BTreeSet<String>,
    /// Whether one was taken off the list before it answered.
    died: bool,
}

impl Roster {
    /// The nodes of all replicas, and the replicas that did not answer.
    pub(super) async fn ask_all(
        &self,
        version: Option<Version>,
        within: Duration,
    ) -> Result<(BTreeMap<String, NodeView>, Vec<String>), Fault> {
        let begun = Instant::now();
        loop {
            let left = within.saturating_sub(begun.elapsed());
            let said = self.ask_once(version, left).await?;
            // The nodes of one that died meanwhile may have come to others since those answered.
            if !said.died || begun.elapsed() >= within {
                return Ok((said.nodes, said.silent.into_iter().collect()));
            }
        }
    }

    /// Replicas that the others do not take for dead, but this one.
    async fn others(&self) -> Result<BTreeSet<String>, Fault> {
        let page = self.store.range(Range::prefix(REPLICA_PREFIX)).await?;
        let others = page.entries.iter();
        let others = others.filter_map(|entry| match Key::parse(&entry.key) {
            Some(Key::Replica(id)) if id != self.id => Some(id),
            _ => None,
        });
        Ok(others.collect())
    }

    async fn ask_once(&self, version: Option<Version>, within: Duration) -> Result<Said, Fault> {
        let mut silent = self.others().await?;
        let mut died = false;
        if silent.is_empty() {
            return Ok(Said {
                nodes: self.local(version, within).await,
                silent,
                died,
            });
        }
        let id = base62(&random_bytes(&*self.random), 12);
        let ask = Ask {
            replica: self.id.clone(),
            version: version.map(Into::into),
            timeout_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        };
        let key = Key::Ask(id.clone());
        put(&self.store, &key, ask.encode_to_vec()).await?;
        let asked = Instant::now();
        let mut nodes = self.local(version, within).await;
        let prefix = format!("{ANSWER_PREFIX}{id}/");
        let limit = within.saturating_add(GRACE);
        let (mut read, mut looked) = (BTreeSet::new(), asked);
        loop {
            for entry in self.store.range(Range::prefix(&prefix)).await?.entries {
                let Some(Key::Answer { replica, .. }) = Key::parse(&entry.key) else {
                    continue;
                };
                if !read.insert(entry.key.clone()) {
                    continue;
                }
                let answer: Answer = keyspace::decode(&entry.key, &entry.value)?;
                answer
                    .nodes
                    .into_iter()
                    .for_each(|node| merge(&mut nodes, node));
                if answer.last {
                    silent.remove(&replica);
                }
            }
            if silent.is_empty() || asked.elapsed() > limit {
                break;
            }
            if looked.elapsed() > RECOUNT {
                looked = Instant::now();
                let before = silent.len();
                let others = self.others().await?;
                silent.retain(|id| others.contains(id));
                died |= silent.len() < before;
            }
            sleep(LOOK).await;
        }
        // What cannot be taken away now is old to the others in a while.
        let gone = std::iter::once(key.to_string()).chain(read);
        for keys in gone.collect::<Vec<_>>().chunks(crate::store::MAX_OPS) {
            let txn = Txn {
                compares: Vec::new(),
                then: keys.iter().cloned().map(Op::Delete).collect(),
            };
            self.store.txn(txn).await?;
        }
        Ok(Said {
            nodes,
            silent,
            died,
        })
    }
}

/// A node that moved is known to several replicas: whoever heard it last is right.
fn merge(nodes: &mut BTreeMap<String, NodeView>, node: NodeView) {
    let older = nodes
        .get(&node.id)
        .is_none_or(|known| node.age_ms < known.age_ms);
    if older {
        nodes.insert(node.id.clone(), node);
    }
}
