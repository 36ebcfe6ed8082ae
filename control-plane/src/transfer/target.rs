//! The store that an import writes: nothing starts on it, and nothing else writes to it, while the mark of the import stands.

use std::sync::Arc;

use prost::Message as _;
use proxyxai_proto::store::v1::Counter;

use super::{
    Import, TransferError,
    export::{number, text},
    record::Record,
};
use crate::{
    keyring::{Keys, rotate},
    status::Fault,
    store::{
        Compare, MAX_OPS, Op, Range, Store, Txn,
        keyspace::{FORMAT, Key},
    },
};

/// Bytes of one transaction, but for an entry that is larger by itself.
const BATCH_BYTES: usize = 512 << 10;

/// The store that is written.
pub(super) struct Target {
    store: Arc<dyn Store>,
    /// That of the store when the import is done.
    pub(super) generation: u64,
    /// That the mark of this import stands.
    fence: Compare,
    waiting: Vec<Op>,
    bytes: usize,
}

impl Target {
    pub(super) async fn begin(
        store: &Arc<dyn Store>,
        import: &Import,
        generation: u64,
    ) -> Result<Self, TransferError> {
        let (mark, format) = (Key::Import.to_string(), Key::Format.to_string());
        let begun = store.get(&mark).await?;
        let there = store.get(&format).await?;
        let mut generation = generation.saturating_add(1);
        match &begun {
            Some(begun) => generation = generation.max(number(begun)?),
            None => {
                let any = store.range(Range {
                    limit: 1,
                    ..Range::prefix("")
                });
                if !any.await?.entries.is_empty() && !import.replace {
                    let deployment = store.get(&Key::Deployment.to_string()).await?;
                    let deployment = deployment.as_ref().map(text).transpose()?;
                    return Err(TransferError::NotEmpty {
                        deployment: deployment.unwrap_or_else(|| "unknown".to_owned()),
                    });
                }
                if let Some(here) = store.get(&Key::Generation.to_string()).await? {
                    generation = generation.max(number(&here)?.saturating_add(1));
                }
            }
        }
        let value = Counter { value: generation }.encode_to_vec();
        let mut then = vec![Op::Put(mark.clone(), value)];
        if there.is_some() {
            then.push(Op::Delete(format.clone()));
        }
        let done = store.txn(Txn {
            compares: vec![
                Compare::unchanged(mark.clone(), begun.as_ref()),
                Compare::unchanged(format, there.as_ref()),
            ],
            then,
        });
        let done = done.await?;
        if !done.succeeded {
            return Err(TransferError::Disturbed);
        }
        Ok(Self {
            store: Arc::clone(store),
            generation,
            fence: Compare::ModRevision(mark, done.revision),
            waiting: Vec::new(),
            bytes: 0,
        })
    }

    /// Deletes everything but the mark.
    pub(super) async fn clear(&mut self) -> Result<(), TransferError> {
        let mark = Key::Import.to_string();
        loop {
            let page = self.store.range(Range {
                limit: MAX_OPS,
                ..Range::prefix("")
            });
            let rest = page.await?.entries;
            let rest: Vec<Op> = rest
                .into_iter()
                .filter(|entry| entry.key != mark)
                .map(|entry| Op::Delete(entry.key))
                .collect();
            if rest.is_empty() {
                return Ok(());
            }
            self.commit(rest).await?;
        }
    }

    pub(super) async fn put(&mut self, op: Op) -> Result<(), TransferError> {
        let size = match &op {
            Op::Put(key, value) => key.len().saturating_add(value.len()),
            Op::Delete(key) => key.len(),
        };
        let full = self.waiting.len() >= MAX_OPS || self.bytes.saturating_add(size) > BATCH_BYTES;
        if full {
            self.flush().await?;
        }
        self.bytes = self.bytes.saturating_add(size);
        self.waiting.push(op);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), TransferError> {
        self.bytes = 0;
        let ops = std::mem::take(&mut self.waiting);
        if ops.is_empty() {
            return Ok(());
        }
        self.commit(ops).await
    }

    async fn commit(&self, then: Vec<Op>) -> Result<(), TransferError> {
        let done = self.store.txn(Txn {
            compares: vec![self.fence.clone()],
            then,
        });
        if done.await?.succeeded {
            Ok(())
        } else {
            Err(TransferError::Disturbed)
        }
    }

    pub(super) async fn finish(
        &mut self,
        before: &Keys,
        keys: &Keys,
        head: Option<Op>,
        record: &Record,
    ) -> Result<(), TransferError> {
        self.flush().await?;
        let counter = |key: Key, value| Op::Put(key.to_string(), Counter { value }.encode_to_vec());
        let mut then = vec![
            counter(Key::Format, FORMAT),
            counter(Key::Generation, self.generation),
            rotate::put(&keys.ring),
            Op::Delete(Key::Import.to_string()),
        ];
        // After all other rows of the config, as whoever reads them expects.
        then.extend(head);
        let txn = Txn {
            compares: vec![self.fence.clone()],
            then: then.clone(),
        };
        let asked = record.asked();
        match asked.commit(&before.ring, &keys.ring, txn).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(TransferError::Disturbed),
            Err(Fault::Damaged(reason)) => {
                tracing::error!(reason, "the import is not in the audit trail");
                self.commit(then).await
            }
            Err(fault) => Err(fault.into()),
        }
    }
}
