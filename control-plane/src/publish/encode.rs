//! Content as the bytes of stream messages.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use proxyxai_core::{
    ports::{Random, random_bytes},
    secret::seal::{SealError, SealKey, seal},
    snapshot::{Change, Content, ResourceKind, ResourceName, Version},
};
use proxyxai_proto::config::v1::{
    Delta, Resource, SnapshotBegin, SnapshotChunk, SnapshotEnd, StreamResponse,
    stream_response::Message,
};

use super::{Point, Step, View};
use crate::config_store::map_secret;

/// A chunk is closed when it has grown to this. Small, because each stream that is sent one holds a copy while it is under way.
const CHUNK_BYTES: usize = 128 << 10;

/// Seals secrets for the nodes of this process' streams.
pub(crate) struct ViewKey {
    bytes: [u8; 32],
    key: SealKey,
    random: Arc<dyn Random>,
}

impl ViewKey {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        let bytes: [u8; 32] = random_bytes(&*random);
        Self {
            bytes,
            key: SealKey::new(bytes),
            random,
        }
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    fn seal(&self, resource: &Resource) -> Result<Resource, SealError> {
        let place = ResourceName::of(resource)
            .map(|name| format!("view/{}", name.id))
            .unwrap_or_default();
        map_secret(resource.clone(), |secret| {
            seal(
                &self.key,
                random_bytes(&*self.random),
                place.as_bytes(),
                secret,
            )
        })
    }
}

/// Several steps as one: for each name what became of it in the end.
pub(super) struct Coalesced(BTreeMap<ResourceName, Change>);

impl Coalesced {
    /// Steps, as a view has them.
    pub(super) fn of(steps: &[Arc<Step>], view: View) -> Self {
        let named = steps
            .iter()
            .flat_map(|step| &step.changes)
            .filter_map(|change| Some((change.name()?, change.clone())));
        let seen = named.filter(|(name, _)| view == View::Full || !ResourceKind::is_keyed(name));
        Self(seen.collect())
    }
}

pub(super) fn encode_delta(
    from: Version,
    to: Point,
    changes: &Coalesced,
    view: View,
    key: &ViewKey,
) -> Result<Bytes, SealError> {
    let mut delta = Delta {
        from: Some(from.into()),
        to: Some(to.version.into()),
        digest: to.digest(view).0.to_vec(),
        ..Delta::default()
    };
    for change in changes.0.values() {
        match change {
            Change::Upsert(resource) => delta.upserts.push(key.seal(resource)?),
            Change::Remove(name) => delta.removed.push(name.to_proto()),
        }
    }
    Ok(bytes_of(Message::Delta(delta)))
}

/// Encodes a whole configuration. Others get their turn after every chunk, as a large one takes long.
pub(super) async fn encode_snapshot(
    point: Point,
    content: &Content,
    view: View,
    key: &ViewKey,
) -> Result<Arc<[Bytes]>, SealError> {
    let mut frames = vec![bytes_of(Message::SnapshotBegin(SnapshotBegin {
        version: Some(point.version.into()),
        resources: u64::try_from(content.len()).unwrap_or(u64::MAX),
    }))];
    let (mut chunk, mut bytes) = (SnapshotChunk::default(), 0_usize);
    for (_, resource) in content.iter() {
        let resource = key.seal(resource)?;
        let more = resource.encoded_len();
        if bytes > 0 && bytes.saturating_add(more) > CHUNK_BYTES {
            frames.push(bytes_of(Message::SnapshotChunk(std::mem::take(&mut chunk))));
            bytes = 0;
            tokio::task::yield_now().await;
        }
        bytes = bytes.saturating_add(more);
        chunk.resources.push(resource);
    }
    frames.push(bytes_of(Message::SnapshotChunk(chunk)));
    frames.push(bytes_of(Message::SnapshotEnd(SnapshotEnd {
        version: Some(point.version.into()),
        digest: point.digest(view).0.to_vec(),
    })));
    Ok(frames.into())
}

fn bytes_of(message: Message) -> Bytes {
    let message = StreamResponse {
        message: Some(message),
    };
    message.encode_to_vec().into()
}
