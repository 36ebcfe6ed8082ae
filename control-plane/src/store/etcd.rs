//! The store of a gateway with several processes: etcd.
//!
//! Invariants: reads are linearizable; a write that may have been done is never sent again; keys stand below one prefix, so that several
//! gateways may share a cluster; no call waits without end. Which server is asked, and again after which failure, is decided in
//! `link` and `failure`.

mod failure;
mod follow;
mod lead;
mod link;
mod rows;
mod settings;
mod version;

use std::{sync::Arc, time::Duration};

use etcd_client::{Compare as When, GetOptions, TxnOp};

use super::{
    Compare, Entry, Leadership, Op, Page, Range, Reply, Store, StoreError, Txn, TxnResult, Watch,
    check,
};
use link::Links;
pub use settings::{EtcdSettings, EtcdTls};

/// Times that a read of many pages begins anew because its state was compacted under it.
const AGAIN: usize = 3;

/// A store in etcd. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct EtcdStore(Arc<Shared>);

struct Shared {
    links: Links,
    prefix: String,
    freshness: Duration,
    leadership: Duration,
}

impl EtcdStore {
    /// Looks at the members and is ready when one of them answers.
    ///
    /// # Errors
    /// When none answers, one that does is too old, or a setting cannot be used.
    pub async fn connect(settings: EtcdSettings) -> Result<Self, StoreError> {
        let mut prefix = settings.prefix.clone();
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        let links = Links::new(&settings)?;
        version::check(&links, settings.allow_old_version).await?;
        Ok(Self(Arc::new(Shared {
            links,
            prefix,
            freshness: settings.freshness,
            leadership: settings.leadership,
        })))
    }
}

impl Store for EtcdStore {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        Box::pin(async move {
            let key = self.0.full(key);
            let found = self.0.read(key, GetOptions::new()).await?;
            Ok(found.entries.into_iter().next())
        })
    }

    fn range(&self, range: Range) -> Reply<'_, Page> {
        Box::pin(async move {
            for _ in 0..AGAIN {
                match self.0.pages(&range).await {
                    Err(StoreError::Compacted) if range.at_revision.is_none() => {}
                    other => return other,
                }
            }
            self.0.pages(&range).await
        })
    }

    fn txn(&self, txn: Txn) -> Reply<'_, TxnResult> {
        Box::pin(async move {
            check(&txn)?;
            let shared = &self.0;
            let when: Vec<When> = txn.compares.iter().map(|c| shared.when(c)).collect();
            let then: Vec<TxnOp> = txn.then.into_iter().map(|op| shared.op(op)).collect();
            let txn = etcd_client::Txn::new().when(when).and_then(then);
            let sent = shared.links.write(|client| {
                let txn = txn.clone();
                async move { client.kv_client().txn(txn).await }
            });
            let done = sent.await.map_err(|sent| shared.links.of_write(sent))?;
            Ok(TxnResult {
                succeeded: done.succeeded(),
                revision: rows::revision(done.header()),
            })
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch> {
        Box::pin(follow::follow(Arc::clone(&self.0), prefix, from))
    }

    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership> {
        Box::pin(lead::campaign(self, name))
    }
}
