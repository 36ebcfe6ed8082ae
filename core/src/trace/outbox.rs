//! What waits to be written or sent, bounded: who hands something in never waits, and what does not fit is counted.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{Span, SpanSource};

/// A bounded heap of things that somebody takes away every now and then. Handing in wakes nobody.
#[derive(Debug)]
pub struct Outbox<T> {
    waiting: Mutex<Vec<T>>,
    room: usize,
    dropped: AtomicU64,
}

impl<T> Outbox<T> {
    /// Room for so many.
    pub fn new(room: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            room,
            dropped: AtomicU64::new(0),
        }
    }

    /// Hands one in, or drops and counts it.
    pub fn push(&self, one: T) {
        let mut waiting = self.waiting();
        if waiting.len() < self.room {
            waiting.push(one);
        } else {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the oldest ones, no more than `most`.
    pub fn take(&self, most: usize) -> Vec<T> {
        let mut waiting = self.waiting();
        if waiting.len() <= most {
            return std::mem::take(&mut *waiting);
        }
        waiting.drain(..most).collect()
    }

    /// How many did not fit so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpanSource for Outbox<Span> {
    fn take(&self, most: usize) -> Vec<Span> {
        Self::take(self, most)
    }
}
