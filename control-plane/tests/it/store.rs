//! Law 20: every store gives the same result for any sequence of operations.

mod conformance;
mod crash;
#[cfg(feature = "etcd")]
mod etcd;
mod sequences;
mod sim;

use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

use proxyxai_control_plane::store::{
    Compare, Op, Store, StoreError, Txn, TxnResult, Watch, WatchEvent, embedded::EmbeddedStore,
    sim::SimStore,
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A store under test, and how its history is made to be forgotten.
struct Subject {
    store: Arc<dyn Store>,
    compact: Box<dyn Fn(u64) -> Later<()> + Send + Sync>,
}

impl Subject {
    /// Names the case that runs, for whoever reads of a failure.
    #[expect(clippy::print_stdout, reason = "shown when the test fails")]
    fn say(case: &str) {
        println!("{case}");
    }
}

fn embedded_in_memory() -> Subject {
    embedded_subject(EmbeddedStore::in_memory().unwrap())
}

fn embedded_in(folder: &Path) -> Subject {
    embedded_subject(EmbeddedStore::open(&folder.join("store")).unwrap())
}

fn embedded_subject(store: EmbeddedStore) -> Subject {
    Subject {
        store: Arc::new(store.clone()),
        compact: Box::new(move |revision| {
            store.compact(revision);
            Box::pin(std::future::ready(()))
        }),
    }
}

fn simulated() -> Subject {
    let store = SimStore::new(1);
    Subject {
        store: Arc::new(store.clone()),
        compact: Box::new(move |revision| {
            store.compact(revision);
            Box::pin(std::future::ready(()))
        }),
    }
}

#[tokio::test]
async fn law_20_the_embedded_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conformance::check(&embedded_in(folder.path())).await;
}

#[tokio::test]
async fn law_20_the_embedded_store_in_memory_conforms() {
    conformance::check(&embedded_in_memory()).await;
}

#[tokio::test]
async fn law_20_the_simulated_store_conforms() {
    conformance::check(&simulated()).await;
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(key.to_owned(), value.as_bytes().to_vec())
}

fn delete(key: &str) -> Op {
    Op::Delete(key.to_owned())
}

async fn write(
    store: &dyn Store,
    compares: Vec<Compare>,
    then: Vec<Op>,
) -> Result<TxnResult, StoreError> {
    in_time(store.txn(Txn { compares, then })).await
}

/// The next thing that a watch says.
async fn next(watch: &mut Watch) -> WatchEvent {
    in_time(watch.next()).await
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("no answer after {PATIENCE:?}"))
}
