//! The steps between the versions of the last hour: what a node that comes back is told instead of everything, and what its cache is told
//! to forget.
//!
//! Invariants: the steps follow one another without a gap; their number and size are bounded, whatever the hour brought.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use proxyxai_core::snapshot::{Change, Digest, Version};

use super::View;

/// How long a step is kept.
const KEPT: Duration = Duration::from_secs(3600);
/// Changes kept at most, over all steps.
const MAX_CHANGES: usize = 100_000;
/// Steps kept at most.
const MAX_STEPS: usize = 20_000;

/// A version, and what it looks like in each view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Point {
    pub(crate) version: Version,
    pub(super) full: Digest,
    pub(super) keyed: Digest,
}

impl Point {
    /// The digest of a view.
    pub(crate) fn digest(&self, view: View) -> Digest {
        match view {
            View::Full => self.full,
            View::Keyed => self.keyed,
        }
    }
}

/// From one version to the next one that was published.
pub(crate) struct Step {
    pub(crate) from: Point,
    pub(crate) to: Point,
    pub(crate) changes: Vec<Change>,
    pub(super) at: Duration,
}

#[derive(Default)]
pub(super) struct Log {
    steps: VecDeque<Arc<Step>>,
    changes: usize,
}

impl Log {
    /// Takes the next step.
    pub(super) fn push(&mut self, step: Step) {
        if self.steps.back().is_some_and(|last| last.to != step.from) {
            self.steps.clear();
            self.changes = 0;
        }
        let now = step.at;
        self.changes = self.changes.saturating_add(step.changes.len());
        self.steps.push_back(Arc::new(step));
        while let Some(oldest) = self.steps.front() {
            let kept = now.saturating_sub(oldest.at) <= KEPT;
            if kept && self.changes <= MAX_CHANGES && self.steps.len() <= MAX_STEPS {
                break;
            }
            self.changes = self.changes.saturating_sub(oldest.changes.len());
            self.steps.pop_front();
        }
    }

    /// The steps from exactly this version and content to the last one; `None` when they are not kept.
    pub(super) fn since(
        &self,
        version: Version,
        digest: Digest,
        view: View,
    ) -> Option<Vec<Arc<Step>>> {
        let first = self.find(version)?;
        let step = self.steps.get(first)?;
        (step.from.version == version && step.from.digest(view) == digest)
            .then(|| self.steps.range(first..).cloned().collect())
    }

    /// The steps that hold everything that came after this version, whether or not it was published here; `None` when some of them are
    /// not kept.
    pub(super) fn after(&self, version: Version) -> Option<Vec<Arc<Step>>> {
        let first = self.find(version)?;
        Some(self.steps.range(first..).cloned().collect())
    }

    /// What a version looked like, when it is known.
    pub(super) fn point(&self, version: Version) -> Option<Point> {
        let step = self.steps.get(self.find(version)?)?;
        (step.from.version == version).then_some(step.from)
    }

    /// The step that leads on from this version.
    fn find(&self, version: Version) -> Option<usize> {
        let known = self.steps.front()?.from.version <= version;
        let first = self
            .steps
            .partition_point(|step| step.to.version <= version);
        (known && first < self.steps.len()).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(revision: u64) -> Point {
        let version = Version {
            generation: 1,
            revision,
        };
        let digest = Digest([u8::try_from(revision % 251).unwrap(); 32]);
        Point {
            version,
            full: digest,
            keyed: digest,
        }
    }

    fn log(points: &[u64], seconds: u64) -> Log {
        let mut log = Log::default();
        for (number, pair) in points.windows(2).enumerate() {
            let number = u32::try_from(number).unwrap();
            log.push(Step {
                from: point(pair[0]),
                to: point(pair[1]),
                changes: Vec::new(),
                at: Duration::from_secs(seconds).saturating_mul(number),
            });
        }
        log
    }

    fn check(log: &Log, from: u64, since: Option<usize>, after: Option<usize>) {
        let at = point(from);
        let found = log.since(at.version, at.full, View::Full);
        assert_eq!(found.map(|steps| steps.len()), since, "since {from}");
        let found = log.after(at.version);
        assert_eq!(found.map(|steps| steps.len()), after, "after {from}");
    }

    #[test]
    fn steps_are_found_by_where_they_begin() {
        let log = log(&[3, 4, 7, 8], 1);
        check(&log, 2, None, None);
        check(&log, 3, Some(3), Some(3));
        check(&log, 4, Some(2), Some(2));
        // Versions that were passed over here may have been seen elsewhere: all of the step is told again.
        check(&log, 5, None, Some(2));
        check(&log, 7, Some(1), Some(1));
        check(&log, 8, None, None);
        let other = log.since(point(4).version, Digest([9; 32]), View::Keyed);
        assert!(other.is_none(), "another content of the same version");
    }

    #[test]
    fn the_log_forgets_what_is_older_than_an_hour_and_what_is_too_much() {
        let points: Vec<u64> = (0..200).collect();
        let aged = log(&points, 60);
        assert_eq!(aged.steps.len(), 61);
        check(&aged, 137, None, None);
        check(&aged, 138, Some(61), Some(61));
        let points: Vec<u64> = (0..21_000).collect();
        assert_eq!(log(&points, 0).steps.len(), MAX_STEPS);
    }

    #[test]
    fn a_gap_begins_the_log_anew() {
        let mut log = log(&[1, 2, 3], 1);
        log.push(Step {
            from: point(9),
            to: point(10),
            changes: Vec::new(),
            at: Duration::from_secs(9),
        });
        check(&log, 2, None, None);
        check(&log, 9, Some(1), Some(1));
    }
}
