//! Where state is kept: an ordered map of keys with revisions, transactions and watches, as etcd has them.
//!
//! Callers know this trait and nothing of an engine. One conformance suite holds for every implementation (law 20).
//!
//! Semantics: each transaction that changes something raises the revision of the store, and all that it writes bears that revision.
//! One that changes nothing (its compares fail, or it only deletes what is not there) leaves the revision alone. Putting the same value
//! again is a change. Nobody may count on steps of one: in etcd other programs write too. A key counts its versions from 1 since it was
//! created; deleting it forgets its count. Compares see the state before the transaction. Reads see every transaction that was answered
//! before they were asked. Watches come in the order of revisions, all changes of one revision under the prefix at once.
//!
//! History is kept for a while only (about 4,000 transactions here, five minutes in an etcd as we advise to set it up). What asks for
//! older or for not yet reached states is told `Compacted` and begins anew from a list.

pub mod embedded;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod keyspace;
mod local;
pub(crate) mod measured;
mod ring;
mod rows;
pub mod sim;

use std::{any::Any, fmt, pin::Pin, sync::Arc};

use tokio_util::sync::CancellationToken;

pub use error::StoreError;
use error::check;

/// The answer of a store, to be awaited.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Most operations of one transaction.
pub const MAX_OPS: usize = 100;
/// Most bytes of keys and values of one transaction, compared keys included.
pub const MAX_BYTES: usize = 1 << 20;

/// A store.
pub trait Store: Send + Sync {
    /// Reads one key.
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>>;

    /// Reads the keys that begin with a prefix, in order, a page at a time.
    fn range(&self, range: Range) -> Reply<'_, Page>;

    /// Writes all of `then` if all compares hold, else nothing.
    ///
    /// After [`StoreError::Ambiguous`] it may have been done. It is never tried again by the store itself: a caller whose compares
    /// tell the two cases apart may repeat it, others read back what they wrote.
    fn txn(&self, txn: Txn) -> Reply<'_, TxnResult>;

    /// Follows all changes of keys that begin with `prefix`, from a revision on (itself included), which may lie ahead.
    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch>;

    /// Becomes the leader of this name, waiting while another one is. Writes of a leader compare its fence, so that one who was
    /// deposed cannot write.
    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership>;
}

/// A key and its value.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Revision at which it was created.
    pub create_revision: u64,
    /// Revision at which it was last written.
    pub mod_revision: u64,
    /// How often it was written since it was created.
    pub version: u64,
}

impl fmt::Debug for Entry {
    /// Without the value, which may be sealed or long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            value,
            create_revision,
            mod_revision,
            version,
        } = self;
        write!(
            f,
            "{key} ({} bytes, created {create_revision}, written {mod_revision}, version {version})",
            value.len()
        )
    }
}

/// Which keys to read.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// What the keys begin with.
    pub prefix: String,
    /// Only keys after this one; the last key of the page before.
    pub after: Option<String>,
    /// At most so many; 0 means all.
    pub limit: usize,
    /// The state as of this revision: that of the first page. When it is not kept any more, or not reached yet, the answer is
    /// [`StoreError::Compacted`].
    pub at_revision: Option<u64>,
}

impl Range {
    /// All keys with a prefix.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }
}

/// Some keys in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub entries: Vec<Entry>,
    /// The revision that they are true at.
    pub revision: u64,
    /// Whether more follow.
    pub more: bool,
}

/// A transaction.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// What is written then.
    pub then: Vec<Op>,
}

/// A condition on the state before a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written at this revision; 0 means that it does not exist.
    ModRevision(String, u64),
    /// The key was created at this revision; 0 means that it does not exist.
    CreateRevision(String, u64),
}

impl Compare {
    /// The key does not exist.
    pub fn absent(key: impl Into<String>) -> Self {
        Self::ModRevision(key.into(), 0)
    }

    /// The key is as it was read; `None` when it was not there.
    pub fn unchanged(key: impl Into<String>, read: Option<&Entry>) -> Self {
        Self::ModRevision(key.into(), read.map_or(0, |entry| entry.mod_revision))
    }
}

/// One write.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Puts a value.
    Put(String, Vec<u8>),
    /// Takes a key away, if it is there.
    Delete(String),
}

impl Op {
    /// The key that it writes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len().saturating_add(value.len()),
            Self::Delete(key) => key.len(),
        }
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, value) => write!(f, "put {key} ({} bytes)", value.len()),
            Self::Delete(key) => write!(f, "delete {key}"),
        }
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether the compares held, so that everything was written.
    pub succeeded: bool,
    /// The revision after it.
    pub revision: u64,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was written.
    Put(Entry),
    /// It was taken away.
    Delete(String),
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }
}

/// What a watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// All changes of one revision under the prefix.
    Changes {
        /// The revision.
        revision: u64,
        /// In the order of the transaction.
        events: Vec<Event>,
    },
    /// The changes asked for are not kept any more: list again.
    Compacted,
    /// The watch ended: list again, or watch again from after the last revision seen.
    Lost,
}

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    pub(crate) changes: tokio::sync::mpsc::Receiver<WatchEvent>,
}

impl Watch {
    /// The next change. After `Compacted` or `Lost` nothing more comes.
    pub async fn next(&mut self) -> WatchEvent {
        self.changes.recv().await.unwrap_or(WatchEvent::Lost)
    }
}

/// Proof of being the leader. Whoever drops it, and all clones of it, lets go of the leadership.
#[derive(Clone)]
pub struct Leadership {
    /// To be among the compares of every write of the leader.
    pub fence: Compare,
    over: CancellationToken,
    _held: Arc<dyn Any + Send + Sync>,
}

impl Leadership {
    fn new(fence: Compare, over: CancellationToken, held: impl Any + Send + Sync) -> Self {
        Self {
            fence,
            over,
            _held: Arc::new(held),
        }
    }

    /// Waits until the leadership is known to be over. The fence may fail before.
    pub async fn lost(&self) {
        self.over.cancelled().await;
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leader by {:?}", self.fence)
    }
}

/// Where the leader of a name stands.
fn leader_key(name: &str) -> String {
    format!("leader/{name}")
}
