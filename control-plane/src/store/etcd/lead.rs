//! Leadership in etcd: a key that its leader's lease keeps, and whose creation is the fence.
//!
//! Invariant: the key is only ever created when it is not there, so that its create revision names one leadership. A leader that cannot
//! renew its lease in time is told that it is over at the latest when etcd gives the lease up; its writes fail by the fence in any case.

use std::{sync::Arc, time::Duration};

use etcd_client::{Compare as When, CompareOp, PutOptions, TxnOp};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    EtcdStore, Leadership, Shared, StoreError,
    failure::Sent,
    rows::{later, revision, unsigned},
};
use crate::store::{Compare, Event, Store as _, WatchEvent, leader_key};

struct Lease {
    id: i64,
    /// When etcd gives it up at the earliest.
    until: Instant,
    lifetime: Duration,
}

pub(super) async fn campaign(store: &EtcdStore, name: &str) -> Result<Leadership, StoreError> {
    let key = leader_key(name);
    loop {
        vacancy(store, &key).await?;
        let lease = store.0.lease().await?;
        let Some(created) = store.0.take(&key, lease.id).await? else {
            store.0.give_back(lease.id).await;
            continue;
        };
        let (over, held) = (CancellationToken::new(), CancellationToken::new());
        let fence = Compare::CreateRevision(key, created);
        let leadership = Leadership::new(fence, over.clone(), held.clone().drop_guard());
        // Ends when the leadership is dropped or over.
        tokio::spawn(keep(Arc::clone(&store.0), lease, over, held));
        return Ok(leadership);
    }
}

/// Waits until nobody leads.
async fn vacancy(store: &EtcdStore, key: &str) -> Result<(), StoreError> {
    while let Some(leader) = store.get(key).await? {
        let from = leader.mod_revision.saturating_add(1);
        let mut watch = store.watch(key, from).await?;
        while let WatchEvent::Changes { events, .. } = watch.next().await {
            if events
                .iter()
                .any(|event| *event == Event::Delete(key.to_owned()))
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

impl Shared {
    async fn lease(&self) -> Result<Lease, StoreError> {
        let seconds = i64::try_from(self.leadership.as_secs()).unwrap_or(i64::MAX);
        let asked = Instant::now();
        // A lease that was granted and not heard of ends by itself.
        let granted = self.links.read(|client| async move {
            let mut client = client.lease_client();
            client.grant(seconds.max(2), None).await
        });
        let granted = granted.await.map_err(|sent| self.links.of_read(sent))?;
        let lifetime = Duration::from_secs(unsigned(granted.ttl()));
        Ok(Lease {
            id: granted.id(),
            until: later(asked, lifetime),
            lifetime,
        })
    }

    /// Creates the key if it is not there: its create revision.
    async fn take(&self, key: &str, lease: i64) -> Result<Option<u64>, StoreError> {
        let key = self.full(key);
        let options = PutOptions::new().with_lease(lease);
        let txn = etcd_client::Txn::new()
            .when([When::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), Vec::new(), Some(options))]);
        let sent = self.links.write(|client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        });
        match sent.await {
            Ok(done) if done.succeeded() => Ok(Some(revision(done.header()))),
            Ok(_) => Ok(None),
            // Whether it was done shows in whose lease keeps the key.
            Err(Sent::Perhaps(_)) => {
                let read = self.links.read(|client| {
                    let key = key.clone();
                    async move { client.kv_client().get(key, None).await }
                });
                let read = read.await.map_err(|sent| self.links.of_read(sent))?;
                let mine = read.kvs().iter().find(|kv| kv.lease() == lease);
                Ok(mine.map(|kv| unsigned(kv.create_revision())))
            }
            Err(other) => Err(self.links.of_write(other)),
        }
    }

    /// Ends a lease, or lets it end by itself.
    async fn give_back(&self, lease: i64) {
        let revoke = self.links.read(|client| async move {
            let mut client = client.lease_client();
            client.revoke(lease).await
        });
        let _ends_by_itself = revoke.await;
    }
}

/// Renews the lease until the leadership is dropped, or over.
async fn keep(
    shared: Arc<Shared>,
    mut lease: Lease,
    over: CancellationToken,
    held: CancellationToken,
) {
    let third = lease.lifetime.checked_div(3).unwrap_or_default();
    let mut next = later(Instant::now(), third);
    loop {
        tokio::select! {
            biased;
            () = held.cancelled() => break,
            () = sleep_until(lease.until) => break,
            () = sleep_until(next) => {}
        }
        let asked = Instant::now();
        next = later(asked, third);
        let id = lease.id;
        // A member that hangs must not cost more than half a turn.
        let within = third.checked_div(2).unwrap_or_default();
        let renew = shared.links.read_within(within, |client| async move {
            let mut client = client.lease_client();
            client.keep_alive(id).await.map(|_| ())
        });
        match timeout_at(lease.until, renew).await {
            Ok(Ok(())) => lease.until = later(asked, lease.lifetime),
            Ok(Err(Sent::Refused(_))) | Err(_) => break,
            Ok(Err(Sent::Not(_) | Sent::Perhaps(_))) => {}
        }
    }
    over.cancel();
    shared.give_back(lease.id).await;
}
