//! Checks a chain of records, and names what was edited, removed or reordered.
//!
//! Records are given in the order in which they are found; memory does not grow with them, but for those that are missing.

use std::{collections::BTreeSet, fmt};

use proxyxai_proto::admin::v1::{AuditMark, AuditRecord};

use super::{FORMAT, NO_HASH, hash};

/// A place in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The last record up to here; 0 before the first one.
    pub sequence: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Mark {
    /// Before the first record.
    pub const START: Self = Self {
        sequence: 0,
        hash: NO_HASH,
    };

    /// From the wire; `None` when the hash has not 32 bytes.
    pub fn from_proto(mark: &AuditMark) -> Option<Self> {
        Some(Self {
            sequence: mark.sequence,
            hash: mark.hash.as_slice().try_into().ok()?,
        })
    }

    /// To the wire.
    pub fn to_proto(self) -> AuditMark {
        AuditMark {
            sequence: self.sequence,
            hash: self.hash.to_vec(),
        }
    }
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// What it says is not what its hash was taken over.
    Edited(u64),
    /// It holds in itself, but the record after it, or the end of the chain, knows another one.
    Replaced(u64),
    /// It is not there.
    Missing(u64),
    /// It stands at another place than its number says, or more than once.
    Reordered(u64),
    /// It comes after the end of the chain.
    Added(u64),
    /// It is another one than the record of this number that was known before.
    Unlike(u64),
    /// It was known before and is pruned, so that it cannot be compared.
    Pruned(u64),
    /// It is of a newer program.
    NewFormat(u64, u32),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited(n) => write!(
                f,
                "record {n} was edited: its hash does not fit what it says"
            ),
            Self::Replaced(n) => write!(
                f,
                "record {n} was replaced: what follows it was made after another record {n}"
            ),
            Self::Missing(n) => write!(f, "record {n} was removed"),
            Self::Reordered(n) => write!(f, "record {n} stands at a wrong place, or twice"),
            Self::Added(n) => write!(f, "record {n} was added after the end of the chain"),
            Self::Unlike(n) => write!(
                f,
                "record {n} is not the record {n} that was known before: the trail was written anew"
            ),
            Self::Pruned(n) => write!(
                f,
                "record {n} was pruned and cannot be compared; name a later one that you know"
            ),
            Self::NewFormat(n, format) => write!(
                f,
                "record {n} has format {format}, which a newer version of xai can check"
            ),
        }
    }
}

/// Most missing records that are named one by one.
const NAMED: u64 = 1000;

/// Checks records one after the other.
pub struct Verifier {
    /// The highest record seen so far, with the hash that it claims.
    last: Mark,
    end: Mark,
    known: Option<Mark>,
    missing: BTreeSet<u64>,
    unnamed: u64,
    faults: BTreeSet<Fault>,
    checked: u64,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Records seen.
    pub checked: u64,
    /// What does not hold; empty when all does.
    pub faults: Vec<Fault>,
    /// Missing records beyond those that are named.
    pub more_missing: u64,
}

impl Verifier {
    /// For the records after `anchor`, up to `head`.
    pub fn new(anchor: Mark, head: Mark) -> Self {
        Self {
            last: anchor,
            end: head,
            known: None,
            missing: BTreeSet::new(),
            unnamed: 0,
            faults: BTreeSet::new(),
            checked: 0,
        }
    }

    /// Looks also whether a record is still the one that was known before: that alone tells a chain that was rewritten as a whole.
    #[must_use]
    pub fn knowing(mut self, known: Option<Mark>) -> Self {
        if let Some(mark) = known {
            if mark.sequence < self.last.sequence {
                self.faults.insert(Fault::Pruned(mark.sequence));
            } else if mark.sequence == self.last.sequence && mark.hash != self.last.hash {
                self.faults.insert(Fault::Unlike(mark.sequence));
            } else if mark.sequence > self.end.sequence {
                self.faults.insert(Fault::Missing(mark.sequence));
            }
        }
        self.known = known;
        self
    }

    /// Takes the next record.
    pub fn take(&mut self, record: &AuditRecord) {
        let sequence = record.sequence;
        self.checked = self.checked.saturating_add(1);
        if record.format != FORMAT {
            self.faults
                .insert(Fault::NewFormat(sequence, record.format));
        }
        let true_hash = hash(record);
        let edited = record.format == FORMAT && record.hash != true_hash;
        if edited {
            self.faults.insert(Fault::Edited(sequence));
        }
        let unlike = |known: Mark| known.sequence == sequence && known.hash != true_hash;
        if !edited && self.known.is_some_and(unlike) {
            self.faults.insert(Fault::Unlike(sequence));
        }
        if sequence <= self.last.sequence {
            self.missing.remove(&sequence);
            self.faults.insert(Fault::Reordered(sequence));
            return;
        }
        if sequence > self.end.sequence {
            self.faults.insert(Fault::Added(sequence));
            return;
        }
        let follows = self.last.sequence.saturating_add(1);
        self.miss(follows, sequence);
        let linked = record.previous_hash == self.last.hash;
        if sequence == follows && !edited && !linked {
            self.faults.insert(Fault::Replaced(self.last.sequence));
        }
        // After an edited record nothing is known of what the next one should name, but for the hash that the record claims.
        self.last = Mark {
            sequence,
            hash: record.hash.as_slice().try_into().unwrap_or(true_hash),
        };
    }

    /// Says what came of it.
    pub fn finish(mut self) -> Verdict {
        let follows = self.last.sequence.saturating_add(1);
        self.miss(follows, self.end.sequence.saturating_add(1));
        if self.last.sequence == self.end.sequence && self.last.hash != self.end.hash {
            self.faults.insert(Fault::Replaced(self.last.sequence));
        }
        self.faults
            .extend(self.missing.into_iter().map(Fault::Missing));
        let edited: BTreeSet<u64> = self
            .faults
            .iter()
            .filter_map(|fault| match fault {
                Fault::Edited(n) => Some(*n),
                Fault::Replaced(_)
                | Fault::Missing(_)
                | Fault::Reordered(_)
                | Fault::Added(_)
                | Fault::Unlike(_)
                | Fault::Pruned(_)
                | Fault::NewFormat(..) => None,
            })
            .collect();
        // That an edited record is another one than its neighbours know is no second fault.
        let told = |fault: &Fault| matches!(fault, Fault::Replaced(n) if edited.contains(n));
        Verdict {
            checked: self.checked,
            faults: self
                .faults
                .into_iter()
                .filter(|fault| !told(fault))
                .collect(),
            more_missing: self.unnamed,
        }
    }

    /// Notes that the records from `from` to before `to` are not here yet.
    fn miss(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let named = to.min(from.saturating_add(NAMED));
        self.missing.extend(from..named);
        self.unnamed = self.unnamed.saturating_add(to.saturating_sub(named));
    }
}
