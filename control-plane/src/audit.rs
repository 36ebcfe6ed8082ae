//! The audit trail in the store: each change and its record are one transaction.
//!
//! Invariants: records are numbered without a gap, each holds the hash of the one before, and `audit/head` names the last one; whoever
//! writes compares it, so the chain never forks. Pruning keeps the place where the rest begins (`audit/anchor`).

mod denials;
mod objects;
pub(crate) mod service;

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use denials::Denials;
use prost::Message as _;
use proxyxai_core::{
    access::Caller,
    account::tree::AccountTree,
    audit::{
        chain::{Mark, Verifier},
        describe::Schema,
        sealed,
    },
    ports::Clock,
};
use proxyxai_proto::admin::v1::{AuditActor, AuditChange, AuditMark, AuditOutcome, AuditRecord};

use crate::{
    status::Fault,
    store::{
        Compare, Entry, Op, Range, Store, Txn, TxnResult,
        keyspace::{self, AUDIT_RECORD_PREFIX, Key},
    },
};

/// Operations that a record adds to a transaction.
pub(crate) const OPS: usize = 2;
/// Tries before a write gives up on replicas that write records at the same time.
const TRIES: usize = 16;
/// Records pruned by one transaction.
const PRUNED_AT_ONCE: usize = crate::store::MAX_OPS - 1;

/// Writes and reads the trail.
pub(crate) struct Trail {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    schema: Schema,
    /// Writers of this process take turns, in the order in which they came, so that none loses to the others for ever.
    turn: tokio::sync::Mutex<()>,
    denials: std::sync::Mutex<Denials>,
    /// Records that this process wrote.
    pub(crate) written: AtomicU64,
}

/// Who does what.
pub(crate) struct Deed<'a> {
    pub(crate) caller: &'a Caller,
    /// Name of the call.
    pub(crate) action: &'a str,
    /// To name the accounts above the caller's.
    pub(crate) accounts: &'a AccountTree,
}

impl Trail {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, Fault> {
        let schema = Schema::read(proxyxai_proto::DESCRIPTORS)
            .map_err(|error| Fault::Defect(error.to_string()))?;
        Ok(Self {
            store,
            clock,
            schema,
            turn: tokio::sync::Mutex::default(),
            denials: std::sync::Mutex::default(),
            written: AtomicU64::new(0),
        })
    }

    /// What a record says of an object: its encoded message before and after, its secrets left out.
    pub(crate) fn change(
        &self,
        (kind, id): (&str, &str),
        account_line: Vec<String>,
        message: &str,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) -> Result<AuditChange, Fault> {
        let (before, after) = self
            .schema
            .change(message, before, after)
            .map_err(|error| Fault::Defect(error.to_string()))?;
        Ok(AuditChange {
            kind: kind.to_owned(),
            id: id.to_owned(),
            account_line,
            before,
            after,
        })
    }

    /// Commits a transaction together with its record. It did not succeed when its own compares do not hold.
    pub(crate) async fn commit(
        &self,
        deed: &Deed<'_>,
        changes: Vec<AuditChange>,
        txn: Txn,
    ) -> Result<TxnResult, Fault> {
        let record = self.record(deed, changes, AuditOutcome::Done);
        self.append(record, txn).await
    }

    /// Records that a caller tried to change what it may not. Failing to do so is only logged: nothing was changed.
    pub(crate) async fn denied(&self, deed: &Deed<'_>) {
        let (credential, action) = (&deed.caller.credential, deed.action);
        tracing::warn!(credential, action, "a change was denied");
        let now = self.clock.monotonic();
        let admitted = self
            .denials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(now);
        if !admitted {
            return;
        }
        let record = self.record(deed, Vec::new(), AuditOutcome::Denied);
        if let Err(error) = self.append(record, Txn::default()).await {
            tracing::error!(%error, "a denied change is not in the audit trail");
        }
    }

    /// Commits a transaction together with a record that was made before.
    pub(crate) async fn append(&self, record: AuditRecord, txn: Txn) -> Result<TxnResult, Fault> {
        let _one_after_the_other = self.turn.lock().await;
        for _ in 0..TRIES {
            let (entry, head) = self.mark(&Key::AuditHead).await?;
            let sequence = head.sequence.saturating_add(1);
            let record = sealed(
                AuditRecord {
                    sequence,
                    ..record.clone()
                },
                head.hash,
            );
            let mark = AuditMark {
                sequence,
                hash: record.hash.clone(),
            };
            let mut txn = txn.clone();
            let key = Key::AuditHead.to_string();
            txn.compares
                .push(Compare::unchanged(key.clone(), entry.as_ref()));
            txn.then.push(Op::Put(key, mark.encode_to_vec()));
            txn.then.push(Op::Put(
                Key::AuditRecord(sequence).to_string(),
                record.encode_to_vec(),
            ));
            let done = self.store.txn(txn).await?;
            if done.succeeded {
                self.written.fetch_add(1, Ordering::Relaxed);
            }
            if done.succeeded || self.mark(&Key::AuditHead).await?.1 == head {
                return Ok(done);
            }
            // Another replica wrote a record; this one goes after it.
        }
        Err(Fault::Contended)
    }

    /// A record that has no place in the chain yet.
    pub(crate) fn record(
        &self,
        deed: &Deed<'_>,
        changes: Vec<AuditChange>,
        outcome: AuditOutcome,
    ) -> AuditRecord {
        let account_line = deed
            .accounts
            .get(&deed.caller.account)
            .map(|at| deed.accounts.id_line(at))
            .unwrap_or_default();
        AuditRecord {
            unix_ms: self.clock.unix_ms(),
            actor: Some(AuditActor {
                credential_id: deed.caller.credential.clone(),
                role: deed.caller.role.as_str().to_owned(),
                account_line,
            }),
            action: deed.action.to_owned(),
            outcome: outcome.into(),
            changes,
            ..AuditRecord::default()
        }
    }

    /// A place that is kept under a key: the head or the anchor.
    async fn mark(&self, key: &Key) -> Result<(Option<Entry>, Mark), Fault> {
        let key = key.to_string();
        let entry = self.store.get(&key).await?;
        let mark = match &entry {
            None => Mark::START,
            Some(entry) => Mark::from_proto(&keyspace::decode(&key, &entry.value)?)
                .ok_or_else(|| {
                    Fault::Damaged(format!(
                        "the value of `{key}` in the store has no hash; restore the store from a backup"
                    ))
                })?,
        };
        Ok((entry, mark))
    }

    /// Where the chain begins and ends.
    pub(crate) async fn ends(&self) -> Result<(Mark, Mark), Fault> {
        let (_, anchor) = self.mark(&Key::AuditAnchor).await?;
        let (_, head) = self.mark(&Key::AuditHead).await?;
        Ok((anchor, head))
    }

    /// At most `limit` records after this one, each with the number that it stands under: what it says of itself may have been edited.
    async fn after(&self, sequence: u64, limit: usize) -> Result<Vec<(u64, AuditRecord)>, Fault> {
        let range = Range {
            after: Some(Key::AuditRecord(sequence).to_string()),
            limit,
            ..Range::prefix(AUDIT_RECORD_PREFIX)
        };
        let page = self.store.range(range).await?;
        let mut records = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            if let Some(Key::AuditRecord(place)) = Key::parse(&entry.key) {
                records.push((place, keyspace::decode(&entry.key, &entry.value)?));
            }
        }
        Ok(records)
    }

    /// Takes records away that are older than this, from the first one on. Records that do not hold together are kept: they are the
    /// evidence.
    pub(crate) async fn prune(&self, before_unix_ms: i64) -> Result<(), Fault> {
        loop {
            let (entry, anchor) = self.mark(&Key::AuditAnchor).await?;
            let mut old = self.after(anchor.sequence, PRUNED_AT_ONCE).await?;
            let keep = old
                .iter()
                .position(|(_, record)| record.unix_ms >= before_unix_ms)
                .unwrap_or(old.len());
            old.truncate(keep);
            let Some((_, last)) = old.last() else {
                return Ok(());
            };
            let end = AuditMark {
                sequence: last.sequence,
                hash: last.hash.clone(),
            };
            let mut verifier = Verifier::new(anchor, Mark::from_proto(&end).unwrap_or(Mark::START));
            old.iter().for_each(|(_, record)| verifier.take(record));
            if let Some(fault) = verifier.finish().faults.first() {
                return Err(Fault::Precondition(format!(
                    "{fault}; the audit trail is not pruned: see `xai audit verify`"
                )));
            }
            let key = Key::AuditAnchor.to_string();
            let mut txn = Txn {
                compares: vec![Compare::unchanged(key.clone(), entry.as_ref())],
                then: vec![Op::Put(key, end.encode_to_vec())],
            };
            let gone = old.iter().map(|(place, _)| Key::AuditRecord(*place));
            txn.then.extend(gone.map(|key| Op::Delete(key.to_string())));
            if !self.store.txn(txn).await?.succeeded {
                // Another replica prunes.
                return Ok(());
            }
        }
    }
}
