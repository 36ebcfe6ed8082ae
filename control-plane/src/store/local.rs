//! Elections among those who share one store in one process.
//!
//! Invariant: of one name, one leads at a time; who asks next waits until the leader lets go or is deposed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(super) struct Elections(Mutex<BTreeMap<String, Seat>>);

#[derive(Default, Clone)]
struct Seat {
    turn: Arc<Turn<()>>,
    over: CancellationToken,
}

impl Elections {
    /// Waits for one's turn; the token says when it is over.
    pub(super) async fn wait(&self, name: &str) -> (OwnedMutexGuard<()>, CancellationToken) {
        loop {
            let seat = self.seat(name);
            let turn = tokio::select! {
                biased;
                // Another seat of this name took its place.
                () = seat.over.cancelled() => continue,
                turn = Arc::clone(&seat.turn).lock_owned() => turn,
            };
            return (turn, seat.over);
        }
    }

    /// Takes the turn from whoever has it.
    pub(super) fn depose(&self, name: &str) {
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seat) = seats.remove(name) {
            seat.over.cancel();
        }
    }

    fn seat(&self, name: &str) -> Seat {
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seats.entry(name.to_owned()).or_default().clone()
    }
}
