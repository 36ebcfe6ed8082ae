//! The books of usage: what nodes report, in sums by hour that become sums by day.
//!
//! Invariants: a batch changes the rows exactly once, however often and in whatever order it comes (as law 4 will ask of money); what
//! is answered is durable; a row is in the hour or in the day, never in both or in none.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost::Message as _;
use proxyxai_core::ports::Clock;
use proxyxai_proto::store::v1::{Counter, Node, Rollup};

use crate::{
    reported::Batch,
    rollup,
    status::Fault,
    store::{
        Compare, Entry, MAX_OPS, Op, Range, Store, Txn,
        keyspace::{self, Bucket, DAY_PREFIX, HOUR_PREFIX, Key, MARK_PREFIX, NODE_PREFIX},
    },
};

const TRIES: usize = 16;

/// The books of usage.
pub(crate) struct Books {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Everything up to this batch is durable.
    Through(u64),
    /// This one is missing.
    Expected(u64),
}

impl Books {
    /// The last batch of an epoch that is durable.
    pub(crate) async fn applied_through(&self, node: &str, epoch: u64) -> Result<u64, Fault> {
        Ok(self.mark(node, epoch).await?.1)
    }

    /// Books a batch, once.
    pub(crate) async fn apply(&self, batch: &Batch<'_>) -> Result<Applied, Fault> {
        let rows = rollup::sum_up(&batch.events, self.clock.unix_ms());
        if rows.len() >= MAX_OPS {
            return Err(Fault::Invalid(format!(
                "a batch touches at most {} rows; this one has {}",
                MAX_OPS - 1,
                rows.len()
            )));
        }
        for _ in 0..TRIES {
            let (entry, through) = self.mark(batch.node_id, batch.epoch).await?;
            if batch.sequence <= through {
                return Ok(Applied::Through(through));
            }
            if batch.sequence != through.saturating_add(1) {
                return Ok(Applied::Expected(through.saturating_add(1)));
            }
            let key = mark_key(batch.node_id, batch.epoch);
            let mut txn = Txn {
                compares: vec![Compare::unchanged(key.clone(), entry.as_ref())],
                then: vec![Op::Put(
                    key,
                    Counter {
                        value: batch.sequence,
                    }
                    .encode_to_vec(),
                )],
            };
            for (key, more) in self.place(&rows, Key::Hour).await? {
                self.add_row(&mut txn, key, &more).await?;
            }
            if self.store.txn(txn).await?.succeeded {
                return Ok(Applied::Through(batch.sequence));
            }
        }
        Err(Fault::Contended)
    }

    /// Folds rows by hour that are old into days, and drops days that are older still. Each fold is one transaction: a row is in the
    /// hour or in the day, never in both or in none.
    pub(crate) async fn fold(&self) -> Result<(), Fault> {
        let now = rollup::hour_of(self.clock.unix_ms());
        let oldest_hour = now.saturating_sub(rollup::HOURS_KEPT.saturating_add(1));
        for entry in self.store.range(Range::prefix(HOUR_PREFIX)).await?.entries {
            let Some(Key::Hour(mut bucket)) = Key::parse(&entry.key) else {
                continue;
            };
            if bucket.slot > oldest_hour {
                break;
            }
            bucket.slot /= 24;
            let mut txn = Txn {
                compares: vec![Compare::unchanged(entry.key.clone(), Some(&entry))],
                then: vec![Op::Delete(entry.key.clone())],
            };
            let row: Rollup = keyspace::decode(&entry.key, &entry.value)?;
            let rows = BTreeMap::from([(bucket, row)]);
            for (key, row) in self.place(&rows, Key::Day).await? {
                self.add_row(&mut txn, key, &row).await?;
            }
            self.store.txn(txn).await?;
        }
        let oldest_day = (now / 24).saturating_sub(rollup::DAYS_KEPT);
        for entry in self.store.range(Range::prefix(DAY_PREFIX)).await?.entries {
            if matches!(Key::parse(&entry.key), Some(Key::Day(bucket)) if bucket.slot < oldest_day)
            {
                let compares = vec![Compare::unchanged(entry.key.clone(), Some(&entry))];
                self.store
                    .txn(Txn {
                        compares,
                        then: vec![Op::Delete(entry.key)],
                    })
                    .await?;
            }
        }
        Ok(())
    }

    /// Drops the marks of nodes that were removed. Only they may be dropped: whoever else comes back with a batch would be booked again.
    pub(crate) async fn prune_marks(&self) -> Result<(), Fault> {
        let mut removed = BTreeSet::new();
        for entry in self.store.range(Range::prefix(NODE_PREFIX)).await?.entries {
            if let Some(Key::Node(id)) = Key::parse(&entry.key)
                && keyspace::decode::<Node>(&entry.key, &entry.value).is_ok_and(|node| node.removed)
            {
                removed.insert(id);
            }
        }
        if removed.is_empty() {
            return Ok(());
        }
        for entry in self.store.range(Range::prefix(MARK_PREFIX)).await?.entries {
            if matches!(Key::parse(&entry.key), Some(Key::Mark { node, .. }) if removed.contains(&node))
            {
                let compares = vec![Compare::unchanged(entry.key.clone(), Some(&entry))];
                let then = vec![Op::Delete(entry.key)];
                self.store.txn(Txn { compares, then }).await?;
            }
        }
        Ok(())
    }

    /// The keys of rows. A model without a row gets one while its account and key have few in that time, else it is booked with the
    /// other ones: a client that makes models up does not fill the store.
    async fn place(
        &self,
        rows: &BTreeMap<Bucket, Rollup>,
        key_of: fn(Bucket) -> Key,
    ) -> Result<BTreeMap<String, Rollup>, Fault> {
        let mut placed: BTreeMap<String, Rollup> = BTreeMap::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (bucket, more) in rows {
            let mut key = key_of(bucket.clone()).to_string();
            if self.store.get(&key).await?.is_none() {
                let none = Bucket {
                    model: String::new(),
                    ..bucket.clone()
                };
                let siblings = key_of(none).to_string();
                let count = match counts.get(&siblings) {
                    Some(count) => *count,
                    None => self.count(&siblings).await?,
                };
                if count < rollup::MODELS_KEPT {
                    counts.insert(siblings, count.saturating_add(1));
                } else {
                    counts.insert(siblings, count);
                    let model = rollup::OTHER_MODELS.to_owned();
                    key = key_of(Bucket {
                        model,
                        ..bucket.clone()
                    })
                    .to_string();
                }
            }
            rollup::add(placed.entry(key).or_default(), more);
        }
        Ok(placed)
    }

    /// How many rows begin with this, up to what is of interest.
    async fn count(&self, prefix: &str) -> Result<usize, Fault> {
        let range = Range {
            limit: rollup::MODELS_KEPT,
            ..Range::prefix(prefix)
        };
        Ok(self.store.range(range).await?.entries.len())
    }

    /// Adds to a row within a transaction that fails if the row changes meanwhile.
    async fn add_row(&self, txn: &mut Txn, key: String, more: &Rollup) -> Result<(), Fault> {
        let entry = self.store.get(&key).await?;
        let mut row: Rollup = match &entry {
            Some(entry) => keyspace::decode(&key, &entry.value)?,
            None => Rollup::default(),
        };
        rollup::add(&mut row, more);
        txn.compares
            .push(Compare::unchanged(key.clone(), entry.as_ref()));
        txn.then.push(Op::Put(key, row.encode_to_vec()));
        Ok(())
    }

    async fn mark(&self, node: &str, epoch: u64) -> Result<(Option<Entry>, u64), Fault> {
        let key = mark_key(node, epoch);
        let entry = self.store.get(&key).await?;
        let through = match &entry {
            Some(entry) => keyspace::decode::<Counter>(&key, &entry.value)?.value,
            None => 0,
        };
        Ok((entry, through))
    }
}

fn mark_key(node: &str, epoch: u64) -> String {
    Key::Mark {
        node: node.to_owned(),
        epoch,
    }
    .to_string()
}
