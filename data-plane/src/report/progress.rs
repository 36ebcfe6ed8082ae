//! How far each epoch got: what is durable here, what is durable at the control plane, and since when something waits.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use super::{files::Epoch, sender::ReportCounters};

/// Marks that are kept; when there are more, every other one is dropped.
const MARKS: usize = 1_024;

/// Shared by what writes, what sends and what deletes.
#[derive(Default)]
pub(super) struct Progress {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    acknowledged: BTreeMap<Epoch, u64>,
    /// Of the current epoch, oldest first.
    marks: VecDeque<Mark>,
}

/// Up to this batch, so many events that were not set aside were durable at this time.
#[derive(Clone, Copy)]
struct Mark {
    sequence: u64,
    events: u64,
    unix_ms: i64,
}

impl Progress {
    /// So many events in all became durable that were not set aside, the last of them in this batch.
    pub(super) fn written(
        &self,
        sequence: u64,
        events: u64,
        unix_ms: i64,
        counters: &ReportCounters,
    ) {
        let mut state = self.state();
        if state.marks.len() >= MARKS {
            let mut keep = false;
            state.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        state.marks.push_back(Mark {
            sequence,
            events,
            unix_ms,
        });
        note_oldest(&state, counters);
    }

    /// Everything up to this batch of the epoch is durable at the control plane.
    pub(super) fn acknowledge(
        &self,
        epoch: &Epoch,
        through: u64,
        current: bool,
        counters: &ReportCounters,
    ) {
        let mut state = self.state();
        state.acknowledged.insert(epoch.clone(), through);
        if current {
            while let Some(mark) = state
                .marks
                .front()
                .copied()
                .filter(|mark| mark.sequence <= through)
            {
                state.marks.pop_front();
                counters
                    .acknowledged
                    .fetch_max(mark.events, Ordering::Relaxed);
            }
            note_oldest(&state, counters);
        }
    }

    /// What is not acknowledged of the current epoch never will be: it is set aside, and another epoch follows.
    pub(super) fn begin_anew(&self, counters: &ReportCounters) {
        let mut state = self.state();
        state.marks.clear();
        note_oldest(&state, counters);
        let reported = counters.acknowledged.load(Ordering::Relaxed);
        let durable = counters.durable.load(Ordering::Relaxed);
        let never = durable.saturating_sub(reported);
        counters.set_aside_events.store(never, Ordering::Relaxed);
    }

    /// All of the epoch is durable at the control plane, whatever its files hold.
    pub(super) fn finish(&self, epoch: &Epoch) {
        self.state().acknowledged.insert(epoch.clone(), u64::MAX);
    }

    /// Up to where an epoch is durable at the control plane, as far as is known.
    pub(super) fn acknowledged(&self, epoch: &Epoch) -> u64 {
        self.state().acknowledged.get(epoch).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note_oldest(state: &State, counters: &ReportCounters) {
    let oldest = state
        .marks
        .front()
        .and_then(|mark| u64::try_from(mark.unix_ms).ok())
        .unwrap_or(0);
    counters
        .oldest_unacknowledged_unix_ms
        .store(oldest, Ordering::Relaxed);
}
