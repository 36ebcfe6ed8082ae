//! What nodes are sent: a version of the configuration, encoded once and shared by all streams.

use std::sync::{Arc, OnceLock};

use prost::Message as _;
use proxyxai_core::{
    ports::{Random, random_bytes},
    secret::seal::{SealError, SealKey, seal},
    snapshot::{Change, Content, Digest, Version},
};
use proxyxai_proto::config::v1::{
    Delta, Resource, ResourceName, SnapshotBegin, SnapshotChunk, SnapshotEnd, StreamResponse,
    stream_response::Message,
};

use crate::config_store::map_secret;

/// Largest chunk of a snapshot, encoded, but for a resource that is larger by itself; those are bounded by a transaction.
const CHUNK_BYTES: usize = 512 << 10;

/// Largest delta, encoded: nodes take messages of at most 4 MiB, and what is larger goes to them as a snapshot, in chunks.
pub(crate) const DELTA_BYTES: usize = 1 << 20;

/// One published version.
pub(crate) struct Published {
    pub(crate) version: Version,
    pub(crate) digest: Digest,
    content: Content,
    /// The version before, and the steps from there.
    step: Option<(Version, Vec<Change>)>,
    snapshot: OnceLock<Arc<[StreamResponse]>>,
}

/// Seals secrets for the nodes of this process' streams.
pub(crate) struct View {
    pub(crate) key: SealKey,
    pub(crate) random: Arc<dyn Random>,
}

impl Published {
    /// Before anything was read.
    pub(crate) fn empty() -> Self {
        Self::new(Version::default(), Content::default(), None)
    }

    pub(crate) fn new(
        version: Version,
        content: Content,
        step: Option<(Version, Vec<Change>)>,
    ) -> Self {
        Self {
            version,
            digest: content.digest(),
            content,
            step,
            snapshot: OnceLock::new(),
        }
    }

    /// The whole configuration as messages.
    pub(crate) fn snapshot(&self, view: &View) -> Result<Arc<[StreamResponse]>, SealError> {
        if let Some(ready) = self.snapshot.get() {
            return Ok(Arc::clone(ready));
        }
        let resources = u64::try_from(self.content.len()).unwrap_or(u64::MAX);
        let mut messages = vec![Message::SnapshotBegin(SnapshotBegin {
            version: Some(self.version.into()),
            resources,
        })];
        let (mut chunk, mut bytes) = (SnapshotChunk::default(), 0_usize);
        for (_, resource) in self.content.iter() {
            let resource = view.seal(resource)?;
            let size = resource.encoded_len();
            if bytes.saturating_add(size) > CHUNK_BYTES && bytes > 0 {
                messages.push(Message::SnapshotChunk(std::mem::take(&mut chunk)));
                bytes = 0;
            }
            bytes = bytes.saturating_add(size);
            chunk.resources.push(resource);
        }
        messages.push(Message::SnapshotChunk(chunk));
        messages.push(Message::SnapshotEnd(SnapshotEnd {
            version: Some(self.version.into()),
            digest: self.digest.0.to_vec(),
        }));
        let ready: Arc<[StreamResponse]> = messages
            .into_iter()
            .map(|message| StreamResponse {
                message: Some(message),
            })
            .collect();
        Ok(Arc::clone(self.snapshot.get_or_init(|| ready)))
    }

    /// The steps from what a node was sent last.
    pub(crate) fn delta(&self, from: &Self, view: &View) -> Result<StreamResponse, SealError> {
        let diff;
        let changes = match &self.step {
            Some((before, changes)) if *before == from.version => changes,
            _ => {
                diff = from.content.diff(&self.content);
                &diff
            }
        };
        let mut delta = Delta {
            from: Some(from.version.into()),
            to: Some(self.version.into()),
            digest: self.digest.0.to_vec(),
            ..Delta::default()
        };
        for change in changes {
            match change {
                Change::Upsert(resource) => delta.upserts.push(view.seal(resource)?),
                Change::Remove(name) => delta.removed.push(ResourceName::clone(&name.to_proto())),
            }
        }
        Ok(StreamResponse {
            message: Some(Message::Delta(delta)),
        })
    }
}

impl View {
    fn seal(&self, resource: &Resource) -> Result<Resource, SealError> {
        let place = view_place(resource);
        map_secret(resource.clone(), |secret| {
            seal(&self.key, random_bytes(&*self.random), &place, secret)
        })
    }
}

fn view_place(resource: &Resource) -> Vec<u8> {
    proxyxai_core::snapshot::ResourceName::of(resource)
        .map(|name| format!("view/{}", name.id))
        .unwrap_or_default()
        .into_bytes()
}
