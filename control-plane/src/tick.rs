//! The tick: a key that some control plane writes every few seconds, so that whoever follows the store hears something.
//!
//! A follower that hears neither changes nor ticks knows that it may be stale. All control planes look; the first to find
//! the tick unmoved since it last looked writes it, by compare, so that one write in an interval is enough for all. When
//! the one that wrote is gone, another one writes within two intervals.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_core::ports::Clock;
use proxyxai_proto::store::v1::Counter;
use tokio_util::sync::CancellationToken;

use crate::store::{Compare, Entry, Op, Store, StoreError, Txn, keyspace::Key};

/// Between two looks. Three of them are the time after which a watch that heard nothing is lost.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// What one control plane knows of the tick.
#[derive(Debug, Default)]
struct Beat {
    /// The revision of the tick when it looked last.
    seen: Option<u64>,
}

impl Beat {
    /// Looks at the revision of the tick (0 when there is none): whether to write it now.
    fn is_due(&mut self, revision: u64) -> bool {
        let due = revision == 0 || self.seen == Some(revision);
        self.seen = Some(revision);
        due
    }
}

/// Keeps the tick until stopped.
pub(crate) async fn keep(store: &dyn Store, clock: &Arc<dyn Clock>, stopping: &CancellationToken) {
    let mut beat = Beat::default();
    let mut failing = false;
    loop {
        match look(store, &**clock, &mut beat).await {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "the tick was not kept; it is tried again");
                }
                failing = true;
            }
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn look(store: &dyn Store, clock: &dyn Clock, beat: &mut Beat) -> Result<(), StoreError> {
    let key = Key::Tick.to_string();
    let found = store.get(&key).await?;
    if !beat.is_due(found.as_ref().map_or(0, |entry| entry.mod_revision)) {
        return Ok(());
    }
    let written = store.txn(written(clock.unix_ms(), found.as_ref())).await?;
    if written.succeeded {
        beat.seen = Some(written.revision);
    }
    Ok(())
}

fn written(unix_ms: i64, found: Option<&Entry>) -> Txn {
    let key = Key::Tick.to_string();
    let value = u64::try_from(unix_ms).unwrap_or_default();
    Txn {
        compares: vec![Compare::unchanged(key.clone(), found)],
        then: vec![Op::Put(key, Counter { value }.encode_to_vec())],
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::arithmetic_side_effects,
        reason = "a test that overflows fails, as it should"
    )]

    use std::sync::Arc;

    use proxyxai_core::ports::Clock;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::{Beat, Duration, INTERVAL, Key, Store as _, keep};
    use crate::store::sim::{Faults, SimStore};

    #[test]
    fn it_is_due_when_nobody_moved_it_since_the_last_look() {
        let check = |looks: &[(u64, bool)]| {
            let mut beat = Beat::default();
            for (revision, due) in looks {
                assert_eq!(beat.is_due(*revision), *due, "{revision} of {looks:?}");
            }
        };
        check(&[(0, true), (0, true), (7, false)]);
        check(&[(7, false), (7, true), (7, true)]);
        check(&[(7, false), (8, false), (9, false), (9, true), (12, false)]);
    }

    struct Fixed;

    impl Clock for Fixed {
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn unix_ms(&self) -> i64 {
            1
        }
    }

    /// The longest time between two writes, and how many there were, while two keepers run and one of them stops.
    async fn run(faults: Faults) -> (Duration, u32) {
        let store = SimStore::new(3);
        let clock: Arc<dyn Clock> = Arc::new(Fixed);
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        let begun = Instant::now();
        let mut watch = store.watch(&Key::Tick.to_string(), 1).await.unwrap();
        store.set_faults(faults);
        let keepers = async {
            tokio::join!(keep(&store, &clock, &first), async {
                tokio::time::sleep(INTERVAL / 3).await;
                keep(&store, &clock, &second).await;
            })
        };
        let stop = async {
            tokio::time::sleep(INTERVAL * 20).await;
            first.cancel();
            tokio::time::sleep(INTERVAL * 20).await;
            second.cancel();
        };
        let listen = async {
            let (mut longest, mut last, mut count) = (Duration::ZERO, begun, 0);
            let end = begun + INTERVAL * 40;
            while let Ok(_change) = tokio::time::timeout_at(end, watch.next()).await {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                count += 1;
            }
            (longest, count)
        };
        tokio::join!(keepers, stop, listen).2
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_rests_for_two_intervals_and_two_keepers_write_as_often_as_one() {
        let (longest, count) = run(Faults::default()).await;
        assert!(longest < INTERVAL * 2, "{longest:?}");
        assert!((36..=42).contains(&count), "{count} writes in 40 intervals");
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_when_the_store_fails_now_and_then() {
        let faults = Faults {
            unavailable: 100,
            ambiguous: 100,
            ..Faults::default()
        };
        let (_, count) = run(faults).await;
        assert!(count > 20, "{count} writes in 40 intervals");
    }
}
