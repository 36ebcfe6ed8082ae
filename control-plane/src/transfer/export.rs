//! A store as the bytes of a file, page by page, all as of the revision of the first page.

use std::{collections::VecDeque, sync::Arc};

use proxyxai_proto::store::v1::{ArchiveEntry, ArchiveHeader, Counter, Text};

use super::{TransferError, archive::Framer};
use crate::{
    app::StartError,
    status::Fault,
    store::{
        Entry, Range, Store, StoreError,
        keyspace::{self, ANSWER_PREFIX, ASK_PREFIX, FORMAT, Key, REPLICA_PREFIX},
    },
};

/// Entries read at once.
const PAGE: usize = 1000;
/// Bytes of the entries of one frame, but for one that is larger by itself.
const FRAME_BYTES: usize = 256 << 10;
/// What is of the processes and not of the deployment is not moved: who leads, which replicas run, and what they ask each other.
const NOT_MOVED: [&str; 4] = ["leader/", REPLICA_PREFIX, ASK_PREFIX, ANSWER_PREFIX];

/// An export that is under way.
pub struct Export {
    store: Arc<dyn Store>,
    created_unix_ms: i64,
    framer: Framer,
    ready: VecDeque<Vec<u8>>,
    after: Option<String>,
    /// That of the first page, and of the file.
    revision: Option<u64>,
    done: bool,
}

impl Export {
    /// Of all that this store holds.
    pub fn new(store: Arc<dyn Store>, created_unix_ms: i64) -> Self {
        Self {
            store,
            created_unix_ms,
            framer: Framer::default(),
            ready: VecDeque::new(),
            after: None,
            revision: None,
            done: false,
        }
    }

    /// The next bytes of the file, at most 2 MiB; `None` at its end.
    ///
    /// # Errors
    /// When the store fails, holds nothing, or changed so much meanwhile that it does not know its state of the beginning any more.
    pub async fn next_bytes(&mut self) -> Result<Option<Vec<u8>>, TransferError> {
        while self.ready.is_empty() && !self.done {
            match self.revision {
                None => self.begin().await?,
                Some(revision) => self.read_on(revision).await?,
            }
        }
        Ok(self.ready.pop_front())
    }

    async fn begin(&mut self) -> Result<(), TransferError> {
        let page = self.store.range(Range::prefix("meta/")).await?;
        let find = |key: Key| {
            let key = key.to_string();
            page.entries.iter().find(move |entry| entry.key == key)
        };
        if find(Key::Import).is_some() {
            return Err(StartError::HalfImported.into());
        }
        let format = number(find(Key::Format).ok_or(TransferError::Empty)?)?;
        if format < FORMAT {
            return Err(TransferError::Old { found: format });
        }
        if format > FORMAT {
            return Err(StartError::Format { found: format }.into());
        }
        let missing = || TransferError::Start(StartError::Incomplete);
        let header = ArchiveHeader {
            format,
            deployment_id: text(find(Key::Deployment).ok_or_else(missing)?)?,
            generation: number(find(Key::Generation).ok_or_else(missing)?)?,
            key_encryption_key_id: text(find(Key::KeyEncryptionKey).ok_or_else(missing)?)?,
            revision: page.revision,
            created_unix_ms: self.created_unix_ms,
        };
        self.revision = Some(page.revision);
        self.ready.push_back(self.framer.header(header));
        Ok(())
    }

    async fn read_on(&mut self, revision: u64) -> Result<(), TransferError> {
        let page = self.store.range(Range {
            prefix: String::new(),
            after: self.after.take(),
            limit: PAGE,
            at_revision: Some(revision),
        });
        let page = page.await.map_err(|error| {
            if matches!(error, StoreError::Compacted) {
                TransferError::from(Fault::Contended)
            } else {
                error.into()
            }
        })?;
        self.after = page.entries.last().map(|entry| entry.key.clone());
        let (mut frame, mut bytes) = (Vec::new(), 0_usize);
        for entry in page.entries {
            if NOT_MOVED.iter().any(|prefix| entry.key.starts_with(prefix)) {
                continue;
            }
            let size = entry.key.len().saturating_add(entry.value.len());
            if bytes.saturating_add(size) > FRAME_BYTES && !frame.is_empty() {
                let full = std::mem::take(&mut frame);
                self.ready.push_back(self.framer.entries(full));
                bytes = 0;
            }
            bytes = bytes.saturating_add(size);
            frame.push(ArchiveEntry {
                key: entry.key,
                value: entry.value,
            });
        }
        if !frame.is_empty() {
            self.ready.push_back(self.framer.entries(frame));
        }
        if !page.more {
            self.ready.push_back(self.framer.end());
            self.done = true;
        }
        Ok(())
    }
}

pub(super) fn number(entry: &Entry) -> Result<u64, TransferError> {
    let counter: Counter = keyspace::decode(&entry.key, &entry.value).map_err(Fault::from)?;
    Ok(counter.value)
}

pub(super) fn text(entry: &Entry) -> Result<String, TransferError> {
    let text: Text = keyspace::decode(&entry.key, &entry.value).map_err(Fault::from)?;
    Ok(text.value)
}
