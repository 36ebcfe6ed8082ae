//! Recent changes, those who follow them, and how rows were before them.
//!
//! Invariants: a follower gets every change from its revision on, in order, or is told that it lost some; one who does not keep up is
//! let go rather than waited for. A change is recorded before it is committed and shown to followers after, so that a reader of
//! committed rows always finds here what led to them.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::mpsc;

use super::{Entry, Event, Watch, WatchEvent, rows::Change};

/// Revisions kept for those who begin to follow late, or read page by page.
const KEPT: usize = 4096;
/// Bytes of keys and values kept for them.
const KEPT_BYTES: usize = 16 << 20;
/// Changes that a follower may be behind.
const BACKLOG: usize = 1024;

#[derive(Default)]
pub(super) struct Ring {
    recent: VecDeque<Record>,
    bytes: usize,
    /// Changes at and below this revision are not kept.
    forgotten: u64,
    /// Changes at and below this revision are committed.
    committed: u64,
    followers: Vec<Follower>,
}

struct Record {
    revision: u64,
    changes: Vec<Change>,
    bytes: usize,
}

struct Follower {
    prefix: String,
    from: u64,
    sender: mpsc::Sender<WatchEvent>,
}

impl Ring {
    /// Begins after what the store already holds.
    pub(super) fn starting_after(revision: u64) -> Self {
        Self {
            forgotten: revision,
            committed: revision,
            ..Self::default()
        }
    }

    /// The last revision that is known to be committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// Begins anew after a revision: what led to it is not known. Followers list again.
    pub(super) fn begin_after(&mut self, revision: u64) {
        *self = Self::starting_after(revision);
    }

    /// Takes the changes of one revision that is about to be committed.
    pub(super) fn record(&mut self, revision: u64, changes: Vec<Change>) {
        let bytes = changes.iter().map(bytes).fold(0, usize::saturating_add);
        self.bytes = self.bytes.saturating_add(bytes);
        self.recent.push_back(Record {
            revision,
            changes,
            bytes,
        });
    }

    /// Takes back what was recorded from a revision on and could not be committed.
    pub(super) fn withdraw(&mut self, from: u64) {
        while let Some(last) = self.recent.pop_back_if(|last| last.revision >= from) {
            self.bytes = self.bytes.saturating_sub(last.bytes);
        }
    }

    /// Shows followers what was recorded and is committed now: up to this revision.
    pub(super) fn publish(&mut self, revision: u64) {
        let Self {
            recent,
            followers,
            committed,
            ..
        } = self;
        let new = recent
            .iter()
            .filter(|record| record.revision > *committed && record.revision <= revision);
        for record in new {
            followers.retain(|follower| match follower.sees(record) {
                Some(event) => follower.sender.try_send(event).is_ok(),
                None => !follower.sender.is_closed(),
            });
        }
        *committed = revision.max(*committed);
        while self.recent.len() > KEPT || self.bytes > KEPT_BYTES {
            match self.recent.front() {
                Some(first) if first.revision <= self.committed => self.compact(first.revision),
                _ => break,
            }
        }
    }

    /// Forgets changes at and below a revision that is committed.
    pub(super) fn compact(&mut self, revision: u64) {
        let revision = revision.min(self.committed);
        while let Some(first) = self.recent.pop_front_if(|first| first.revision <= revision) {
            self.bytes = self.bytes.saturating_sub(first.bytes);
        }
        self.forgotten = self.forgotten.max(revision);
    }

    /// Begins to follow.
    pub(super) fn follow(&mut self, prefix: &str, from: u64) -> Watch {
        let from = from.max(1);
        if from <= self.forgotten {
            let (sender, changes) = mpsc::channel(1);
            let _there_is_room = sender.try_send(WatchEvent::Compacted);
            return Watch { changes };
        }
        let late = self
            .recent
            .iter()
            .filter(|record| record.revision <= self.committed);
        let (sender, changes) = mpsc::channel(self.recent.len().saturating_add(BACKLOG));
        let follower = Follower {
            prefix: prefix.to_owned(),
            from,
            sender,
        };
        for event in late.filter_map(|record| follower.sees(record)) {
            let _there_is_room = follower.sender.try_send(event);
        }
        self.followers.push(follower);
        Watch { changes }
    }

    /// Lets all followers go.
    pub(super) fn lose_followers(&mut self) {
        self.followers.clear();
    }

    /// What keys that were changed after revision `at`, and not after revision `now`, held at `at`; `None` when that is not kept.
    pub(super) fn earlier(&self, at: u64, now: u64) -> Option<BTreeMap<String, Option<Entry>>> {
        if at > now || at < self.forgotten {
            return None;
        }
        let since = self
            .recent
            .iter()
            .filter(|record| record.revision > at && record.revision <= now);
        // The oldest change of a key is inserted last.
        let changes = since.rev().flat_map(|record| &record.changes);
        Some(
            changes
                .map(|change| (change.event.key().to_owned(), change.before.clone()))
                .collect(),
        )
    }
}

impl Follower {
    fn sees(&self, record: &Record) -> Option<WatchEvent> {
        if record.revision < self.from {
            return None;
        }
        let events: Vec<Event> = record
            .changes
            .iter()
            .filter(|change| change.event.key().starts_with(&self.prefix))
            .map(|change| change.event.clone())
            .collect();
        (!events.is_empty()).then_some(WatchEvent::Changes {
            revision: record.revision,
            events,
        })
    }
}

fn bytes(change: &Change) -> usize {
    let of = |entry: &Entry| entry.key.len().saturating_add(entry.value.len());
    let now = match &change.event {
        Event::Put(entry) => of(entry),
        Event::Delete(key) => key.len(),
    };
    now.saturating_add(change.before.as_ref().map_or(0, of))
}
