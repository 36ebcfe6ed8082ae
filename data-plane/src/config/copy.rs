//! The disk copy: what a node holds, sealed, so that it starts and enforces without a control plane (law 13).
//!
//! Format: sealed pieces ([`pieces`]): the head (`ConfigCopy`), then a row of fixed size for each virtual key that the node keeps in its
//! table alone ([`rows`]), some thousands to a piece. A small file beside it has the age of the copy, since that is written oftener.
//!
//! Invariants: a file is whole or of no use: it is written under another name, synced and renamed, and every byte of it is
//! authenticated; one that cannot be used is passed over with a line in the log, and the node starts without it. No secret stands
//! in a file in plain (law 21).

mod keeper;
pub(super) mod leftovers;
mod pieces;
mod rows;

use std::{io, sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_core::{
    account::key::Pepper,
    freshness::age_at_boot,
    order::Schedule,
    secret::seal::{SealError, SealKey},
    snapshot::{Content, Digest, Rejection, Snapshot, Version},
};
use proxyxai_proto::node::v1::{ConfigCopy, CopyAge};
use zeroize::Zeroize;

pub(crate) use keeper::Keeper;
use pieces::{FORMAT, PieceReader, PieceWriter};

use super::{
    held::{Holding, Incoming, View},
    pinned::Pinned,
};
use crate::{keys::Remembered, report::Disk};

const COPY: &str = "config.copy";
const AGE: &str = "config.age";

/// Where a copy is kept, and what seals it.
pub struct CopyPorts {
    /// A directory of its own.
    pub disk: Arc<dyn Disk>,
    /// Seals the copy; the next start needs the same one.
    pub key: SealKey,
}

/// How old what is held is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    pub(crate) age: Duration,
    /// When it was proved to be the newest, by the wall clock.
    pub(crate) proved_unix_ms: i64,
    /// How old it may become, as the control plane said.
    pub(crate) limit: Option<Duration>,
    /// What was wanted of the node.
    pub(crate) schedule: Schedule,
}

/// What an earlier process held.
pub(crate) struct Loaded {
    pub(crate) holding: Holding,
    pub(crate) remembered: Remembered,
    pub(crate) age: Duration,
    pub(crate) limit: Option<Duration>,
    pub(crate) schedule: Schedule,
}

/// Why a copy is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyFault {
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
    #[error("it is no copy, or was cut")]
    Cut,
    #[error("it has format {0}, and this program reads {FORMAT}")]
    Format(u32),
    #[error(transparent)]
    Sealed(#[from] SealError),
    #[error("its content is not as it should be: {0}")]
    Content(&'static str),
    #[error("its content does not fit this program: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Rejected(Vec<Rejection>),
}

/// Reads the copy; says in the log why there is none.
pub(crate) fn load(ports: &CopyPorts, now_unix_ms: i64) -> Option<Loaded> {
    match read(ports, now_unix_ms) {
        Ok(Some(loaded)) => {
            let version = loaded.holding.pinned.snapshot.version;
            tracing::info!(%version, age = ?loaded.age, keys = loaded.holding.pinned.snapshot.keys.len(), "configuration from the disk copy");
            Some(loaded)
        }
        Ok(None) => None,
        Err(fault) => {
            tracing::warn!(%fault, "the disk copy of the configuration is passed over; waiting for the control plane");
            None
        }
    }
}

/// Reads the copy, if there is one.
fn read(ports: &CopyPorts, now_unix_ms: i64) -> Result<Option<Loaded>, CopyFault> {
    let Some(mut pieces) = PieceReader::open(ports, COPY)? else {
        return Ok(None);
    };
    let head = pieces.next()?.ok_or(CopyFault::Cut)?;
    let copy = ConfigCopy::decode(&*head).map_err(|_| CopyFault::Content("its head"));
    // The rows hold no secret; the head does.
    head.zeroize();
    let (mut loaded, own) = assemble(copy?, &mut pieces)?;
    let version = loaded.holding.pinned.snapshot.version;
    // An age file that is damaged or of another copy says nothing.
    let newer = read_age(ports)
        .inspect_err(|fault| tracing::warn!(%fault, "the age of the disk copy is passed over"))
        .unwrap_or_default();
    let newer = newer.filter(|(of, _)| *of == (version, loaded.holding.pinned.snapshot.digest));
    let age = newer.map_or(own, |(_, age)| age);
    loaded.age = age_at_boot(age.age, age.proved_unix_ms, now_unix_ms);
    loaded.limit = age.limit;
    loaded.schedule = age.schedule;
    Ok(Some(loaded))
}

fn assemble(copy: ConfigCopy, pieces: &mut PieceReader<'_>) -> Result<(Loaded, Age), CopyFault> {
    let version: Version = copy
        .version
        .ok_or(CopyFault::Content("its version"))?
        .into();
    let digest = Digest::from_bytes(&copy.digest).ok_or(CopyFault::Content("its digest"))?;
    let pepper: [u8; 32] = copy
        .pepper
        .as_slice()
        .try_into()
        .map_err(|_| CopyFault::Content("its pepper"))?;
    let (_, age) = age_of(copy.age.unwrap_or_default());
    let mut incoming = Incoming::default();
    for resource in copy.resources {
        incoming.add(Arc::new(resource));
    }
    let mut rows = rows::Rows::begin(copy.rows, &copy.row_accounts, &mut incoming.keys);
    while let Some(piece) = pieces.next()? {
        rows.take(piece)?;
    }
    rows.end()?;
    if !incoming.rejected.is_empty() {
        return Err(CopyFault::Rejected(incoming.rejected));
    }
    let snapshot =
        Snapshot::assemble(version, &incoming.rest, incoming.keys).map_err(CopyFault::Rejected)?;
    if snapshot.digest != digest {
        return Err(CopyFault::Content("its digest"));
    }
    let view = View {
        pepper: Pepper::new(pepper),
        deployment: copy.deployment_id.into(),
        keyed: copy.keyed,
    };
    let pinned = Pinned::build(snapshot, view, &Pinned::empty())
        .map_err(|rejection| CopyFault::Rejected(vec![rejection]))?;
    let loaded = Loaded {
        holding: Holding {
            pinned: Arc::new(pinned),
            rest: Arc::new(incoming.rest),
        },
        remembered: Remembered {
            through: copy.invalidated_through.map(Into::into).unwrap_or_default(),
            keys: copy.known_keys,
            accounts: copy.known_accounts,
        },
        age: Duration::ZERO,
        limit: None,
        schedule: Schedule::default(),
    };
    Ok((loaded, age))
}

/// Writes the copy; gives its length.
pub(crate) fn write(
    ports: &CopyPorts,
    info: [u8; 32],
    holding: &Holding,
    remembered: Remembered,
    age: Age,
) -> Result<u64, CopyFault> {
    let snapshot = &holding.pinned.snapshot;
    let pepper = holding.pinned.pepper.as_ref();
    let deployment = holding.pinned.deployment.as_ref();
    let copy = ConfigCopy {
        version: Some(snapshot.version.into()),
        digest: snapshot.digest.0.to_vec(),
        pepper: pepper
            .map(|pepper| pepper.expose().to_vec())
            .unwrap_or_default(),
        keyed: holding.pinned.keyed,
        resources: resources(&holding.rest),
        rows: rows::count(snapshot),
        row_accounts: rows::accounts(snapshot),
        invalidated_through: Some(remembered.through.into()),
        known_keys: remembered.keys,
        known_accounts: remembered.accounts,
        age: Some(age_for(holding, age)),
        deployment_id: deployment.map_or_else(String::new, |own| own.id().to_owned()),
    };
    let mut file = PieceWriter::begin(ports, COPY, info)?;
    copy.encode(file.plain())
        .map_err(|_| CopyFault::Content("its head"))?;
    file.end_piece()?;
    rows::encode(snapshot, &mut file)?;
    file.finish()
}

/// Writes the age of the copy.
fn write_age(
    ports: &CopyPorts,
    info: [u8; 32],
    holding: &Holding,
    age: Age,
) -> Result<u64, CopyFault> {
    let mut file = PieceWriter::begin(ports, AGE, info)?;
    age_for(holding, age)
        .encode(file.plain())
        .map_err(|_| CopyFault::Content("its age"))?;
    file.end_piece()?;
    file.finish()
}

type Of = (Version, Digest);

fn read_age(ports: &CopyPorts) -> Result<Option<(Of, Age)>, CopyFault> {
    let Some(mut pieces) = PieceReader::open(ports, AGE)? else {
        return Ok(None);
    };
    let plain = pieces.next()?.ok_or(CopyFault::Cut)?;
    let age = CopyAge::decode(&*plain).map_err(|_| CopyFault::Content("its age"))?;
    Ok(Some(age_of(age)))
}

fn age_of(age: CopyAge) -> (Of, Age) {
    let version = age.version.map(Version::from).unwrap_or_default();
    let digest = Digest::from_bytes(&age.digest).unwrap_or_default();
    let limit = Some(age.max_stale_ms).filter(|ms| *ms != 0);
    (
        (version, digest),
        Age {
            age: Duration::from_millis(age.age_ms),
            proved_unix_ms: age.proved_unix_ms,
            limit: limit.map(Duration::from_millis),
            schedule: Schedule::from_proto(age.schedule()).unwrap_or_default(),
        },
    )
}

fn age_for(holding: &Holding, age: Age) -> CopyAge {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    CopyAge {
        version: Some(holding.pinned.snapshot.version.into()),
        digest: holding.pinned.snapshot.digest.0.to_vec(),
        age_ms: ms(age.age),
        proved_unix_ms: age.proved_unix_ms,
        max_stale_ms: age.limit.map_or(0, ms),
        schedule: age.schedule.to_proto().into(),
    }
}

fn resources(rest: &Content) -> Vec<proxyxai_proto::config::v1::Resource> {
    rest.iter()
        .map(|(_, resource)| proxyxai_proto::config::v1::Resource::clone(resource))
        .collect()
}

#[cfg(test)]
mod tests;
