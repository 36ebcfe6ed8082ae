//! The audit trail: what a record says, the hash that binds it to the one before, and whether a chain holds.
//!
//! Invariants: a record never holds a secret, sealed or not, nor the hash of one; every field of a record is under its hash.
//!
//! The hash of a record is BLAKE3 over these bytes, in this order. A number stands as 8 bytes, little-endian; a text and a list as the
//! number of its bytes or items, then these.
//!
//! `proxyxai audit 1\n`, sequence, unix_ms, credential_id, role, account_line (list of texts), action, outcome (number), changes (list of:
//! kind, id, account_line, before, after), previous_hash (32 bytes, as they are).

pub mod chain;
pub mod describe;

use proxyxai_proto::admin::v1::AuditRecord;

/// The format of records that this program writes and checks.
pub const FORMAT: u32 = 1;
/// What the first record follows.
pub const NO_HASH: [u8; 32] = [0; 32];

/// The hash of a record: of all that it says but its own hash.
pub fn hash(record: &AuditRecord) -> [u8; 32] {
    let mut bytes = Canonical(b"proxyxai audit 1\n".to_vec());
    bytes.number(record.sequence);
    bytes.0.extend(record.unix_ms.to_le_bytes());
    let actor = record.actor.clone().unwrap_or_default();
    bytes.text(&actor.credential_id);
    bytes.text(&actor.role);
    bytes.texts(&actor.account_line);
    bytes.text(&record.action);
    bytes.0.extend(i64::from(record.outcome).to_le_bytes());
    bytes.length(record.changes.len());
    for change in &record.changes {
        bytes.text(&change.kind);
        bytes.text(&change.id);
        bytes.texts(&change.account_line);
        bytes.text(&change.before);
        bytes.text(&change.after);
    }
    bytes.0.extend(&record.previous_hash);
    *blake3::hash(&bytes.0).as_bytes()
}

/// The record with its hash, as the one after `previous`.
#[must_use]
pub fn sealed(mut record: AuditRecord, previous: [u8; 32]) -> AuditRecord {
    record.format = FORMAT;
    record.previous_hash = previous.to_vec();
    record.hash = hash(&record).to_vec();
    record
}

struct Canonical(Vec<u8>);

impl Canonical {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(u64::try_from(length).unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.as_bytes());
    }

    fn texts(&mut self, texts: &[String]) {
        self.length(texts.len());
        texts.iter().for_each(|text| self.text(text));
    }
}

/// What is shown of a record of the subtree at the account `under` to a caller who sees the subtree at `top`, which `under` is in: the
/// changes below `under`, and the actor if that is below `top`. `None` when it concerns others alone. Both are ids.
pub fn seen(record: &AuditRecord, under: &str, top: &str) -> Option<AuditRecord> {
    let inside = |line: &[String], account: &str| line.iter().any(|id| id == account);
    let mut seen = record.clone();
    seen.changes
        .retain(|change| inside(&change.account_line, under));
    let actor = seen.actor.get_or_insert_default();
    if seen.changes.is_empty() && !inside(&actor.account_line, under) {
        return None;
    }
    if !inside(&actor.account_line, top) {
        actor.credential_id.clear();
        actor.account_line.clear();
    }
    Some(seen)
}
