//! Which values of the store hold something sealed: one exhaustive table, so that a new key cannot be forgotten by rotation, import and
//! restore.

use prost::Message as _;
use proxyxai_core::snapshot::{ResourceKind, ResourceName};
use proxyxai_proto::store::v1::{Authority, Sealed, StagePortion, StoredResource};

use crate::{
    config_store::map_secret,
    store::keyspace::{self, DamagedValue, Key, STAGE_PREFIX},
};

/// What everything that holds something sealed begins with.
pub(crate) const PREFIXES: [&str; 4] = [
    "cfg/upstream_key/",
    "cfg/good/upstream_key/",
    STAGE_PREFIX,
    "meta/",
];

/// A value with what is sealed in it replaced; `None` when it holds nothing sealed. `map` gets the place that it is sealed for.
pub(crate) fn map<E: From<DamagedValue>>(
    key: &str,
    value: &[u8],
    mut map: impl FnMut(&str, &[u8]) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let Some(parsed) = Key::parse(key) else {
        return Ok(None);
    };
    match holding(&parsed) {
        Holding::Nothing => Ok(None),
        Holding::Secret => {
            let sealed: Sealed = keyspace::decode(key, value)?;
            let value = map(key, &sealed.value)?;
            Ok(Some(Sealed { value }.encode_to_vec()))
        }
        Holding::Authority => {
            let stored: Authority = keyspace::decode(key, value)?;
            let sealed_key = map(key, &stored.sealed_key)?;
            Ok(Some(
                Authority {
                    sealed_key,
                    ..stored
                }
                .encode_to_vec(),
            ))
        }
        Holding::Resource(name) => resource(key, name, value, &mut map).map(Some),
        Holding::Portion => portion(key, value, &mut map),
    }
}

fn resource<E: From<DamagedValue>>(
    key: &str,
    name: &ResourceName,
    value: &[u8],
    map: &mut impl FnMut(&str, &[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let stored: StoredResource = keyspace::decode(key, value)?;
    let place = Key::Config(name.clone()).to_string();
    let resource = stored.resource.unwrap_or_default();
    let resource = map_secret(resource, |sealed| map(&place, sealed))?;
    let resource = Some(resource);
    Ok(StoredResource { resource, ..stored }.encode_to_vec())
}

fn portion<E: From<DamagedValue>>(
    key: &str,
    value: &[u8],
    map: &mut impl FnMut(&str, &[u8]) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let mut portion: StagePortion = keyspace::decode(key, value)?;
    let mut is_sealed = false;
    for row in &mut portion.rows {
        if let (Some(Key::Config(name)), Some(stored)) = (Key::parse(&row.key), &row.value)
            && name.kind == ResourceKind::UpstreamKey
        {
            row.value = Some(resource(&row.key, &name, stored, map)?);
            is_sealed = true;
        }
    }
    Ok(is_sealed.then(|| portion.encode_to_vec()))
}

enum Holding<'a> {
    Nothing,
    /// A `Sealed`.
    Secret,
    /// An `Authority`.
    Authority,
    /// A `StoredResource` of this name.
    Resource(&'a ResourceName),
    /// A `StagePortion`, which holds such.
    Portion,
}

fn holding(key: &Key) -> Holding<'_> {
    match key {
        Key::Pepper => Holding::Secret,
        Key::Authority => Holding::Authority,
        // What was last in force is sealed for the place of what is offered.
        Key::Config(name) | Key::Good(name) => match name.kind {
            ResourceKind::UpstreamKey => Holding::Resource(name),
            ResourceKind::Account
            | ResourceKind::VirtualKey
            | ResourceKind::Provider
            | ResourceKind::Route
            | ResourceKind::PriceTable => Holding::Nothing,
        },
        Key::StagePortion { .. } => Holding::Portion,
        // The ring is sealed under the key-encryption key, which is another matter.
        Key::Keyring
        | Key::Format
        | Key::Generation
        | Key::Deployment
        | Key::KeyEncryptionKey
        | Key::FirstKey
        | Key::Import
        | Key::LogLevel
        | Key::CredentialsMade
        | Key::Tick
        | Key::Head
        | Key::Settings
        | Key::GoodSettings
        | Key::Staged
        // Of credentials, join tokens and nodes only keyed hashes are kept, and the audit trail withholds what is sealed.
        | Key::Credential(_)
        | Key::JoinToken(_)
        | Key::Node(_)
        | Key::AuditHead
        | Key::AuditAnchor
        | Key::AuditRecord(_)
        | Key::Roster(_)
        | Key::Replica(_)
        | Key::Ask(_)
        | Key::Answer { .. }
        | Key::Mark { .. }
        | Key::Hour(_)
        | Key::Day(_) => Holding::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_stands_below_the_prefixes() {
        let name = ResourceName {
            kind: ResourceKind::UpstreamKey,
            id: "u".to_owned(),
        };
        for key in [
            Key::Pepper,
            Key::Authority,
            Key::Config(name.clone()),
            Key::Good(name),
            Key::StagePortion {
                stage: "s".to_owned(),
                portion: 0,
            },
        ] {
            let text = key.to_string();
            assert!(!matches!(holding(&key), Holding::Nothing), "{text}");
            assert!(
                PREFIXES.iter().any(|prefix| text.starts_with(prefix)),
                "{text}"
            );
        }
    }
}
