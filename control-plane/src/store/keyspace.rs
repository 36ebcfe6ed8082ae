//! Every key that the store holds: its form, its value, how long it lives.
//!
//! Invariants: a key parses to what it was formatted from; parts never contain `/`, but for the model, which stands last.

use std::fmt;

use prost::Message;
use proxyxai_core::snapshot::{ResourceKind, ResourceName};

/// The format that this program reads and writes. Format 1 had no ring of data keys; it is taken over at start.
pub const FORMAT: u64 = 2;

/// One key of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `meta/format` → `Counter`: [`FORMAT`]. A newer one is refused. For ever.
    Format,
    /// `meta/generation` → `Counter`: part of every version. For ever.
    Generation,
    /// `meta/deployment` → `Text`: id of the deployment. For ever.
    Deployment,
    /// `meta/key-encryption-key` → `Text`: id of the key that seals secrets. Until rotation.
    KeyEncryptionKey,
    /// `meta/pepper` → `Sealed`: keys the digests of virtual keys. For ever.
    Pepper,
    /// `meta/first-key` → `Text`: id of the first virtual key, also after it was deleted. For ever.
    FirstKey,
    /// `meta/authority` → `Authority`: signs the certificates of control planes and nodes. For ever.
    Authority,
    /// `meta/log-level` → `LogWish`: the level that is wanted of the logs of control planes. For ever.
    LogLevel,
    /// `join/<id>` → `JoinToken`. Until it is deleted; one that ran out is kept a day, so that it can be named in a refusal.
    JoinToken(String),
    /// `node/<id>` → `Node`. Until it is deleted; one that was removed is kept for ever, so that its certificate stays refused.
    Node(String),
    /// `meta/import` → `Counter`: the generation that is being imported; nothing starts on the store. Until the import is done.
    Import,
    /// `cfg/keyring` → `Keyring`: the data keys, sealed under the key-encryption key. It stands below the prefix of the config, so that one
    /// watch tells of a key before it tells of what is sealed under it. For ever.
    Keyring,
    /// `meta/tick` → `Counter`: Unix time in milliseconds of whoever wrote it last; see `tick`. For ever.
    Tick,
    /// `cfg/head` → `Counter`: revision of the config, raised by every write of it. For ever.
    Head,
    /// `cfg/settings` → `StoredSettings`: settings of the deployment. It stands below the prefix of the config, so that it comes into force with
    /// the head. For ever.
    Settings,
    /// `cfg/<kind>/<id>` → `StoredResource`. Until it is deleted.
    Config(ResourceName),
    /// `credential/<id>` → `StoredCredential`. Until it is deleted.
    Credential(String),
    /// `meta/credentials` → `Counter`: how many credentials were ever made, raised with each, so that no account is deleted meanwhile. For ever.
    CredentialsMade,
    /// `audit/head` → `AuditMark`: the last record of the audit trail. For ever.
    AuditHead,
    /// `audit/anchor` → `AuditMark`: the last record that was pruned. For ever.
    AuditAnchor,
    /// `audit/record/<sequence>` → `AuditRecord`. As long as the setting `audit_keep` says.
    AuditRecord(u64),
    /// `cfg/good/<kind>/<id>` → `StoredResource`: what was last in force of an object; stands in when its row does not fit. Written and
    /// deleted with it. It stands below the prefix of the config, so that one watch tells of both in one order.
    Good(ResourceName),
    /// `cfg/good/settings` → `StoredSettings`: the settings that were last in force; they stand in when those cannot be used. Written with them.
    GoodSettings,
    /// `cfg/stage/<id>/<portion>` → `StagePortion`: of a change that is larger than one transaction. Until it is in the rows, or its
    /// writer is gone.
    StagePortion {
        /// The change.
        stage: String,
        /// Counts from 0.
        portion: u64,
    },
    /// `cfg/staged` → `Staged`: the change that is in force and not yet in the rows. Until it is.
    Staged,
    /// `roster/<node>` → `RosterRow`: it was sent a configuration once, or something is wanted of it. Until it is removed by an administrator.
    Roster(String),
    /// `replica/<id>` → `StoredReplica`. Written anew every few seconds while the replica runs.
    Replica(String),
    /// `ask/<id>` → `Ask`. Until it is answered, a few minutes at most.
    Ask(String),
    /// `answer/<ask>/<replica>/<part>` → `Answer`. As long as the question.
    Answer {
        /// The question.
        ask: String,
        /// Who answers.
        replica: String,
        /// Counts from 0.
        part: u64,
    },
    /// `usage/mark/<node>/<epoch>` → `Counter`: the last batch that is in the rollups. Until its node is removed: then nothing is taken from
    /// it any more, also no repeat.
    Mark {
        /// Id of the node.
        node: String,
        /// Which of its starts.
        epoch: u64,
    },
    /// `usage/hour/<hour>/<account>/<key>/<model>` → `Rollup`. Two days, then part of a day.
    Hour(Bucket),
    /// `usage/day/<day>/<account>/<key>/<model>` → `Rollup`. 62 days.
    Day(Bucket),
}

/// Names one row of sums.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Hours or days since the Unix epoch.
    pub slot: u64,
    /// Id of the account.
    pub account: String,
    /// Id of the virtual key.
    pub key: String,
    /// The model.
    pub model: String,
}

/// Prefix of all config.
pub const CONFIG_PREFIX: &str = "cfg/";
/// Prefix of all join tokens.
pub const JOIN_PREFIX: &str = "join/";
/// Prefix of all nodes.
pub const NODE_PREFIX: &str = "node/";
/// Prefix of all credentials.
pub const CREDENTIAL_PREFIX: &str = "credential/";
/// Prefix of all records of the audit trail.
pub const AUDIT_RECORD_PREFIX: &str = "audit/record/";
/// Prefix of all nodes that were sent a configuration.
pub const ROSTER_PREFIX: &str = "roster/";
/// Prefix of all replicas.
pub const REPLICA_PREFIX: &str = "replica/";
/// Prefix of all questions.
pub const ASK_PREFIX: &str = "ask/";
/// Prefix of all answers.
pub const ANSWER_PREFIX: &str = "answer/";
/// Prefix of what was last in force.
pub const GOOD_PREFIX: &str = "cfg/good/";
/// Prefix of all portions of large changes.
pub const STAGE_PREFIX: &str = "cfg/stage/";
/// Tells which large change is in force and not yet in the rows.
pub const STAGED: &str = "cfg/staged";
/// Prefix of all usage: marks and rows.
pub const USAGE_PREFIX: &str = "usage/";
/// Prefix of all marks.
pub const MARK_PREFIX: &str = "usage/mark/";
/// Prefix of all rows by hour.
pub const HOUR_PREFIX: &str = "usage/hour/";
/// Prefix of all rows by day.
pub const DAY_PREFIX: &str = "usage/day/";

const KINDS: [ResourceKind; 6] = [
    ResourceKind::Account,
    ResourceKind::VirtualKey,
    ResourceKind::Provider,
    ResourceKind::UpstreamKey,
    ResourceKind::Route,
    ResourceKind::PriceTable,
];

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("meta/format"),
            Self::Generation => f.write_str("meta/generation"),
            Self::Deployment => f.write_str("meta/deployment"),
            Self::KeyEncryptionKey => f.write_str("meta/key-encryption-key"),
            Self::Pepper => f.write_str("meta/pepper"),
            Self::FirstKey => f.write_str("meta/first-key"),
            Self::Authority => f.write_str("meta/authority"),
            Self::LogLevel => f.write_str("meta/log-level"),
            Self::CredentialsMade => f.write_str("meta/credentials"),
            Self::JoinToken(id) => write!(f, "{JOIN_PREFIX}{id}"),
            Self::Node(id) => write!(f, "{NODE_PREFIX}{id}"),
            Self::Import => f.write_str("meta/import"),
            Self::Keyring => f.write_str("cfg/keyring"),
            Self::Tick => f.write_str("meta/tick"),
            Self::Head => f.write_str("cfg/head"),
            Self::Settings => f.write_str("cfg/settings"),
            Self::GoodSettings => f.write_str("cfg/good/settings"),
            Self::Config(name) => write!(f, "{CONFIG_PREFIX}{}/{}", name.kind.as_str(), name.id),
            Self::Credential(id) => write!(f, "{CREDENTIAL_PREFIX}{id}"),
            Self::AuditHead => f.write_str("audit/head"),
            Self::AuditAnchor => f.write_str("audit/anchor"),
            Self::AuditRecord(sequence) => write!(f, "{AUDIT_RECORD_PREFIX}{sequence:020}"),
            Self::Good(name) => write!(f, "{GOOD_PREFIX}{}/{}", name.kind.as_str(), name.id),
            Self::StagePortion { stage, portion } => {
                write!(f, "{STAGE_PREFIX}{stage}/{portion:08}")
            }
            Self::Staged => f.write_str(STAGED),
            Self::Roster(id) => write!(f, "{ROSTER_PREFIX}{id}"),
            Self::Replica(id) => write!(f, "{REPLICA_PREFIX}{id}"),
            Self::Ask(id) => write!(f, "{ASK_PREFIX}{id}"),
            Self::Answer { ask, replica, part } => {
                write!(f, "{ANSWER_PREFIX}{ask}/{replica}/{part}")
            }
            Self::Mark { node, epoch } => write!(f, "usage/mark/{node}/{epoch}"),
            Self::Hour(bucket) => write!(f, "{HOUR_PREFIX}{bucket}"),
            Self::Day(bucket) => write!(f, "{DAY_PREFIX}{bucket}"),
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:010}/{}/{}/{}",
            self.slot, self.account, self.key, self.model
        )
    }
}

impl Key {
    /// Reads a key; `None` when it is none of this program's.
    pub fn parse(text: &str) -> Option<Self> {
        // First the keys of which there may be a million.
        if let Some(rest) = text.strip_prefix(GOOD_PREFIX) {
            let settings = || (rest == "settings").then_some(Self::GoodSettings);
            return resource_name(rest).map(Self::Good).or_else(settings);
        }
        if let Some(name) = text.strip_prefix(CONFIG_PREFIX).and_then(resource_name) {
            return Some(Self::Config(name));
        }
        let fixed = [
            Self::Format,
            Self::Generation,
            Self::Deployment,
            Self::KeyEncryptionKey,
            Self::Pepper,
            Self::FirstKey,
            Self::Authority,
            Self::Import,
            Self::Keyring,
            Self::LogLevel,
            Self::CredentialsMade,
            Self::Tick,
            Self::Head,
            Self::Settings,
            Self::Staged,
            Self::AuditHead,
            Self::AuditAnchor,
        ];
        if let Some(key) = fixed.into_iter().find(|key| key.to_string() == text) {
            return Some(key);
        }
        if let Some(rest) = text.strip_prefix(STAGE_PREFIX) {
            let (stage, portion) = rest.split_once('/')?;
            return Some(Self::StagePortion {
                stage: stage.to_owned(),
                portion: portion.parse().ok()?,
            });
        }
        if let Some(id) = text.strip_prefix(CREDENTIAL_PREFIX) {
            return Some(Self::Credential(id.to_owned()));
        }
        if let Some(sequence) = text.strip_prefix(AUDIT_RECORD_PREFIX) {
            return sequence.parse().ok().map(Self::AuditRecord);
        }
        if let Some(rest) = text.strip_prefix("usage/mark/") {
            let (node, epoch) = rest.rsplit_once('/')?;
            return Some(Self::Mark {
                node: node.to_owned(),
                epoch: epoch.parse().ok()?,
            });
        }
        let one_part = |id: &str| (!id.contains('/')).then(|| id.to_owned());
        if let Some(rest) = text.strip_prefix(JOIN_PREFIX) {
            return one_part(rest).map(Self::JoinToken);
        }
        if let Some(rest) = text.strip_prefix(NODE_PREFIX) {
            return one_part(rest).map(Self::Node);
        }
        if let Some(rest) = text.strip_prefix(HOUR_PREFIX) {
            return Bucket::parse(rest).map(Self::Hour);
        }
        if let Some(rest) = text.strip_prefix(DAY_PREFIX) {
            return Bucket::parse(rest).map(Self::Day);
        }
        if let Some(id) = text.strip_prefix(ROSTER_PREFIX) {
            return Some(Self::Roster(id.to_owned()));
        }
        if let Some(id) = text.strip_prefix(REPLICA_PREFIX) {
            return Some(Self::Replica(id.to_owned()));
        }
        if let Some(id) = text.strip_prefix(ASK_PREFIX) {
            return Some(Self::Ask(id.to_owned()));
        }
        if let Some(rest) = text.strip_prefix(ANSWER_PREFIX) {
            let (ask, rest) = rest.split_once('/')?;
            let (replica, part) = rest.split_once('/')?;
            return Some(Self::Answer {
                ask: ask.to_owned(),
                replica: replica.to_owned(),
                part: part.parse().ok()?,
            });
        }
        None
    }
}

fn resource_name(text: &str) -> Option<ResourceName> {
    let (kind, id) = text.split_once('/')?;
    let kind = KINDS.into_iter().find(|k| k.as_str() == kind)?;
    let id = id.to_owned();
    Some(ResourceName { kind, id })
}

impl Bucket {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '/');
        let mut next = || parts.next().map(str::to_owned);
        let (slot, account, key, model) = (next()?.parse().ok()?, next()?, next()?, next()?);
        Some(Self {
            slot,
            account,
            key,
            model,
        })
    }
}

/// Reads a stored value.
///
/// # Errors
/// Names the key whose value is damaged or of a newer program.
pub fn decode<M: Message + Default>(key: &str, bytes: &[u8]) -> Result<M, DamagedValue> {
    M::decode(bytes).map_err(|source| DamagedValue {
        key: key.to_owned(),
        source,
    })
}

/// A value in the store that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the value of `{key}` in the store cannot be read; restore the store from a backup, or use the program that wrote it"
)]
pub struct DamagedValue {
    key: String,
    source: prost::DecodeError,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9-]{1,20}"
    }

    fn bucket() -> impl Strategy<Value = Bucket> {
        (0_u64..9_999_999_999, part(), part(), "[ -~]{1,40}").prop_map(
            |(slot, account, key, model)| Bucket {
                slot,
                account,
                key,
                model,
            },
        )
    }

    fn any_key() -> impl Strategy<Value = Key> {
        prop_oneof![
            prop::sample::select(vec![
                Key::Format,
                Key::Generation,
                Key::Deployment,
                Key::KeyEncryptionKey,
                Key::Pepper,
                Key::FirstKey,
                Key::Import,
                Key::Keyring,
                Key::Authority,
                Key::LogLevel,
                Key::CredentialsMade,
                Key::Head,
                Key::Settings,
                Key::GoodSettings,
                Key::Staged,
                Key::AuditHead,
                Key::AuditAnchor,
                Key::Tick
            ]),
            part().prop_map(Key::Credential),
            any::<u64>().prop_map(Key::AuditRecord),
            (prop::sample::select(KINDS.to_vec()), part())
                .prop_map(|(kind, id)| Key::Config(ResourceName { kind, id })),
            part().prop_map(Key::JoinToken),
            part().prop_map(Key::Node),
            (prop::sample::select(KINDS.to_vec()), part())
                .prop_map(|(kind, id)| Key::Good(ResourceName { kind, id })),
            (part(), any::<u64>()).prop_map(|(node, epoch)| Key::Mark { node, epoch }),
            (part(), any::<u64>())
                .prop_map(|(stage, portion)| Key::StagePortion { stage, portion }),
            part().prop_map(Key::Roster),
            part().prop_map(Key::Replica),
            part().prop_map(Key::Ask),
            (part(), part(), any::<u64>()).prop_map(|(ask, replica, part)| Key::Answer {
                ask,
                replica,
                part
            }),
            bucket().prop_map(Key::Hour),
            bucket().prop_map(Key::Day),
        ]
    }

    proptest! {
        #[test]
        fn every_key_parses_to_what_it_was(key in any_key()) {
            prop_assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
    }
}
