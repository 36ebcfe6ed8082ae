//! The side of a replica that the others see: it shows that it runs, and answers their questions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_core::snapshot::Version;
use proxyxai_proto::store::v1::{Answer, Ask, StoredReplica};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Roster, put};
use crate::store::{
    Compare, Entry, Event, Op, Range, StoreError, Txn, WatchEvent,
    keyspace::{self, ANSWER_PREFIX, ASK_PREFIX, Key, REPLICA_PREFIX},
};

/// Between signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// How long after the last sign of life that it gave a replica may still send bookmarks.
const FENCE: Duration = Duration::from_secs(15);
/// After this a question that nobody took away is taken away.
const OLD: Duration = Duration::from_secs(600);
/// Nodes in one part of an answer.
const PART: usize = 1_000;
/// Between tries to reach a store that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// When rows were first seen as they are.
type Ages = BTreeMap<String, (u64, Duration)>;

impl Roster {
    /// Shows that this replica runs, and answers others, until `stopping`; does nothing when no others can be.
    pub(crate) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        if !self.shared {
            return;
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = self.beat() => {}
            () = self.answer() => {}
        }
        let gone = Txn {
            compares: Vec::new(),
            then: vec![Op::Delete(Key::Replica(self.id.clone()).to_string())],
        };
        if let Err(error) = self.store.txn(gone).await {
            tracing::warn!(%error, "this replica could not take itself off the list; others do so within half a minute");
        }
    }

    async fn beat(&self) {
        let mut ages = Ages::new();
        for beat in 1.. {
            let row = StoredReplica { beat }.encode_to_vec();
            let mine = Key::Replica(self.id.clone());
            // The others see it later than this.
            let fence = self.clock.monotonic().saturating_add(FENCE);
            let result = match put(&self.store, &mine, row).await {
                Ok(_) => {
                    self.nodes.prove_until(fence);
                    self.clean(&mut ages).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                tracing::warn!(%error, "the list of replicas is not up to date; it is tried again");
            }
            sleep(BEAT).await;
        }
    }

    /// Takes away what others left.
    async fn clean(&self, ages: &mut Ages) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        let mut seen = Ages::new();
        // By then it has sent no bookmark for so long that none of its nodes is live any more.
        let dead = FENCE.saturating_add(self.nodes.live_for());
        for (prefix, limit) in [
            (REPLICA_PREFIX, dead),
            (ASK_PREFIX, OLD),
            (ANSWER_PREFIX, OLD),
        ] {
            for entry in self.store.range(Range::prefix(prefix)).await?.entries {
                let Entry {
                    key, mod_revision, ..
                } = entry;
                let since = match ages.get(&key) {
                    Some((revision, since)) if *revision == mod_revision => *since,
                    _ => now,
                };
                if now.saturating_sub(since) > limit {
                    let txn = Txn {
                        compares: vec![Compare::ModRevision(key.clone(), mod_revision)],
                        then: vec![Op::Delete(key)],
                    };
                    self.store.txn(txn).await?;
                } else {
                    seen.insert(key, (mod_revision, since));
                }
            }
        }
        *ages = seen;
        Ok(())
    }

    async fn answer(self: &Arc<Self>) {
        let mut answers = JoinSet::new();
        let mut answered = std::collections::BTreeSet::new();
        loop {
            if let Err(error) = self.listen(&mut answers, &mut answered).await {
                tracing::warn!(%error, "questions of other replicas are not heard; it is tried again");
            }
            sleep(PAUSE).await;
        }
    }

    /// Answers questions as long as the watch lasts.
    async fn listen(
        self: &Arc<Self>,
        answers: &mut JoinSet<()>,
        answered: &mut std::collections::BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let page = self.store.range(Range::prefix(ASK_PREFIX)).await?;
        answered.retain(|key| page.entries.iter().any(|entry| entry.key == *key));
        for entry in page.entries {
            self.take(entry, answers, answered);
        }
        let from = page.revision.saturating_add(1);
        let mut watch = self.store.watch(ASK_PREFIX, from).await?;
        loop {
            let event = tokio::select! {
                biased;
                event = watch.next() => event,
                Some(_) = answers.join_next() => continue,
            };
            match event {
                WatchEvent::Changes { events, .. } => {
                    for event in events {
                        match event {
                            Event::Put(entry) => self.take(entry, answers, answered),
                            Event::Delete(key) => {
                                answered.remove(&key);
                            }
                        }
                    }
                }
                WatchEvent::Compacted | WatchEvent::Lost => return Ok(()),
            }
        }
    }

    fn take(
        self: &Arc<Self>,
        entry: Entry,
        answers: &mut JoinSet<()>,
        answered: &mut std::collections::BTreeSet<String>,
    ) {
        let (Some(Key::Ask(id)), Ok(ask)) = (
            Key::parse(&entry.key),
            keyspace::decode::<Ask>(&entry.key, &entry.value),
        ) else {
            return;
        };
        if ask.replica == self.id || !answered.insert(entry.key) {
            return;
        }
        let roster = Arc::clone(self);
        answers.spawn(async move {
            if let Err(error) = roster.tell(&id, &ask).await {
                tracing::warn!(%error, "a question of another replica was not answered");
            }
        });
    }

    async fn tell(&self, id: &str, ask: &Ask) -> Result<(), StoreError> {
        let within = Duration::from_millis(u64::from(ask.timeout_ms));
        let version = ask.version.map(Version::from);
        let nodes: Vec<_> = self.local(version, within).await.into_values().collect();
        let mut parts = nodes.chunks(PART).peekable();
        let mut part = 0_u64;
        loop {
            let nodes = parts.next().unwrap_or_default().to_vec();
            let last = parts.peek().is_none();
            let key = Key::Answer {
                ask: id.to_owned(),
                replica: self.id.clone(),
                part,
            };
            put(&self.store, &key, Answer { nodes, last }.encode_to_vec()).await?;
            if last {
                return Ok(());
            }
            part = part.saturating_add(1);
        }
    }
}
