//! Recent changes and those who follow them.
//!
//! Invariant: a follower gets every change from its revision on, in order, or is told that it lost some. One who does not keep up is
//! let go rather than waited for.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::{Event, Watch, WatchEvent};

/// Revisions kept for those who begin to follow late.
const KEPT: usize = 4096;
/// Changes that a follower may be behind.
const BACKLOG: usize = 1024;

#[derive(Default)]
pub(super) struct Ring {
    recent: VecDeque<(u64, Vec<Event>)>,
    /// Changes at and below this revision are not kept.
    forgotten: u64,
    followers: Vec<(String, mpsc::Sender<WatchEvent>)>,
}

impl Ring {
    /// Begins after what the store already holds.
    pub(super) fn starting_after(revision: u64) -> Self {
        Self {
            forgotten: revision,
            ..Self::default()
        }
    }

    /// Takes the changes of one revision.
    pub(super) fn add(&mut self, revision: u64, events: Vec<Event>) {
        self.followers
            .retain(|(prefix, follower)| match under(prefix, &events) {
                Some(events) => follower
                    .try_send(WatchEvent::Changes { revision, events })
                    .is_ok(),
                None => !follower.is_closed(),
            });
        self.recent.push_back((revision, events));
        while self.recent.len() > KEPT {
            self.forgotten = self
                .recent
                .pop_front()
                .map_or(self.forgotten, |(revision, _)| revision);
        }
    }

    /// Begins to follow.
    pub(super) fn follow(&mut self, prefix: &str, from: u64) -> Watch {
        let late = self.recent.iter().filter(|(revision, _)| *revision >= from);
        let missed: Vec<WatchEvent> = late
            .filter_map(|(revision, events)| {
                under(prefix, events).map(|events| WatchEvent::Changes {
                    revision: *revision,
                    events,
                })
            })
            .collect();
        let (sender, changes) = mpsc::channel(missed.len().saturating_add(BACKLOG));
        if from <= self.forgotten {
            let _only_fails_when_the_follower_left = sender.try_send(WatchEvent::Compacted);
            return Watch { changes };
        }
        for event in missed {
            let _only_fails_when_the_follower_left = sender.try_send(event);
        }
        self.followers.push((prefix.to_owned(), sender));
        Watch { changes }
    }
}

fn under(prefix: &str, events: &[Event]) -> Option<Vec<Event>> {
    let found: Vec<Event> = events
        .iter()
        .filter(|event| event.key().starts_with(prefix))
        .cloned()
        .collect();
    (!found.is_empty()).then_some(found)
}
