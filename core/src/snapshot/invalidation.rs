//! What changed of the keys and accounts that are looked up on demand: an answer from before a change is not to be admitted.
//!
//! Invariants: [`InvalidationLog::through`] never goes back; once a change was noted, no answer from before it is admitted, however
//! late it comes (law 11). The log forgets only what no answer that can still come is older than.

use std::collections::BTreeMap;

use super::{ResourceName, Version};

/// The changes that were heard of and still matter.
#[derive(Debug, Clone, Default)]
pub struct InvalidationLog {
    through: Version,
    /// Nothing older is admitted, whatever it is.
    floor: Version,
    newest: Version,
    changed: BTreeMap<ResourceName, Version>,
}

/// Whether what is remembered is still good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// All but what was named.
    Named,
    /// Nothing: changes were missed.
    Missed,
}

impl InvalidationLog {
    /// Goes on from what an earlier process had heard.
    pub fn since(through: Version) -> Self {
        Self {
            through,
            ..Self::default()
        }
    }

    /// Every change up to here was noted.
    pub fn through(&self) -> Version {
        self.through
    }

    /// An answer must be at least this new.
    pub fn at_least(&self) -> Version {
        self.through.max(self.newest).max(self.floor)
    }

    /// Notes changes; others up to the same version may be still to come.
    pub fn note(&mut self, names: impl IntoIterator<Item = ResourceName>, at: Version) {
        for name in names {
            let changed = self.changed.entry(name).or_default();
            *changed = at.max(*changed);
            self.newest = self.newest.max(at);
        }
    }

    /// Every change up to here was noted.
    pub fn advance(&mut self, to: Version) {
        self.through = self.through.max(to);
    }

    /// Takes the changes between two versions.
    pub fn take(
        &mut self,
        from: Version,
        to: Version,
        names: impl IntoIterator<Item = ResourceName>,
    ) -> Heard {
        if from > self.through {
            self.miss(to);
            return Heard::Missed;
        }
        self.note(names, to);
        self.advance(to);
        Heard::Named
    }

    /// Anything may have changed up to here.
    pub fn miss(&mut self, to: Version) {
        self.floor = self.floor.max(to);
        self.advance(to);
    }

    /// Whether an answer about this name, true at `as_of`, may be used.
    pub fn admits(&self, name: &ResourceName, as_of: Version) -> bool {
        let changed = self.changed.get(name).copied().unwrap_or_default();
        as_of >= self.floor.max(changed)
    }

    /// Forgets changes that no answer to come can be older than: all questions still open ask for at least this version.
    pub fn forget(&mut self, asked: Version) {
        self.changed.retain(|_, changed| *changed > asked);
    }

    /// How many changes are kept.
    pub fn len(&self) -> usize {
        self.changed.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::ResourceKind;

    fn version(revision: u64) -> Version {
        Version {
            generation: 1,
            revision,
        }
    }

    fn name(number: u8) -> ResourceName {
        ResourceName {
            kind: ResourceKind::VirtualKey,
            id: format!("k{number}"),
        }
    }

    proptest! {
        /// Each step changes one key, and is heard of or lost, perhaps twice; questions are asked and answered in between.
        #[test]
        fn law_11_no_answer_from_before_a_change_is_admitted(
            steps in prop::collection::vec((0_u8..4, any::<bool>(), any::<bool>(), any::<bool>()), 1..30),
        ) {
            let mut log = InvalidationLog::default();
            // When each key changed last, as far as the node has heard, and the versions that open questions ask for.
            let mut truth: BTreeMap<u8, u64> = BTreeMap::new();
            let mut unheard: BTreeMap<u8, u64> = BTreeMap::new();
            let mut open: Vec<(u8, Version)> = Vec::new();
            let mut sent = Version::default();
            for (at, (key, lost, again, ask)) in (1..).zip(steps) {
                if ask {
                    open.push((key, log.at_least()));
                }
                unheard.insert(key, at);
                let (from, to) = (sent, version(at));
                sent = to;
                if !lost {
                    for _ in 0..=u8::from(again) {
                        log.take(from, to, [name(key)]);
                    }
                    prop_assert_eq!(log.through(), to);
                    truth.append(&mut unheard);
                }
                log.forget(open.iter().map(|(_, asked)| *asked).min().unwrap_or(log.at_least()));
                for (key, asked) in &open {
                    for as_of in asked.revision..=at {
                        let stale = truth.get(key).is_some_and(|changed| as_of < *changed);
                        prop_assert!(!stale || !log.admits(&name(*key), version(as_of)), "{key} {as_of}");
                    }
                    prop_assert!(log.admits(&name(*key), version(at)), "an answer from now is admitted");
                }
                if again {
                    open.pop();
                }
            }
        }
    }

    #[test]
    fn a_later_note_does_not_move_what_was_heard_through() {
        let mut log = InvalidationLog::since(version(5));
        log.note([name(1)], version(9));
        assert_eq!((log.through(), log.at_least()), (version(5), version(9)));
        assert!(!log.admits(&name(1), version(8)) && log.admits(&name(2), version(1)));
        assert_eq!(log.take(version(4), version(6), [name(2)]), Heard::Named);
        assert_eq!(log.take(version(7), version(8), []), Heard::Missed);
        assert!(!log.admits(&name(3), version(7)) && log.admits(&name(3), version(8)));
    }
}
