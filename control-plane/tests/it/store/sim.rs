//! The simulated store fails as it is told to, and the same seed fails the same.

use std::time::Duration;

use proxyxai_control_plane::store::{
    Compare, Store as _, StoreError, WatchEvent,
    sim::{Faults, SimStore},
};

use super::{next, put, write};

#[tokio::test(start_paused = true)]
async fn an_ambiguous_write_was_done_or_not_and_the_caller_can_tell() {
    let store = SimStore::new(7);
    store.set_faults(Faults {
        ambiguous: 1000,
        ..Faults::default()
    });
    let mut done = [0, 0];
    for number in 0..100 {
        let key = format!("a/{number}");
        let answer = write(
            &store,
            vec![Compare::absent(key.clone())],
            vec![put(&key, "1")],
        )
        .await;
        assert!(matches!(answer, Err(StoreError::Ambiguous { .. })));
        done[usize::from(store.get(&key).await.unwrap().is_some())] += 1;
    }
    assert!(done.iter().all(|count| *count > 20), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_answers_nothing_and_changes_nothing() {
    let store = SimStore::new(7);
    let away = Faults {
        unavailable: 1000,
        ..Faults::default()
    };
    store.set_faults(away);
    let answer = write(&store, Vec::new(), vec![put("a", "1")]).await;
    assert!(matches!(answer, Err(StoreError::Failed { .. })));
    assert!(store.get("a").await.is_err());
    assert!(store.watch("a", 1).await.is_err());
    assert!(store.campaign("a").await.is_err());
    store.set_faults(Faults::default());
    assert_eq!(store.get("a").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn watches_are_lost_and_history_is_forgotten_under_them() {
    let store = SimStore::new(7);
    let mut watch = store.watch("a", 1).await.unwrap();
    let faults = Faults {
        compaction: 1000,
        lost_watches: 1000,
        ..Faults::default()
    };
    store.set_faults(faults);
    let revision = write(&store, Vec::new(), vec![put("a", "1")])
        .await
        .unwrap()
        .revision;
    assert!(matches!(next(&mut watch).await, WatchEvent::Changes { .. }));
    assert_eq!(next(&mut watch).await, WatchEvent::Lost);
    let mut again = store.watch("a", revision).await.unwrap();
    assert_eq!(next(&mut again).await, WatchEvent::Compacted);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_learns_of_it_and_cannot_write() {
    let store = SimStore::new(7);
    let leader = store.campaign("x").await.unwrap();
    store.depose("x");
    leader.lost().await;
    let wrote = write(&store, vec![leader.fence.clone()], vec![put("a", "1")]).await;
    assert!(!wrote.unwrap().succeeded);
    let next = store.campaign("x").await.unwrap();
    let wrote = write(&store, vec![next.fence.clone()], vec![put("a", "1")]).await;
    assert!(wrote.unwrap().succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_fails_the_same() {
    async fn story(seed: u64) -> Vec<String> {
        let begun = tokio::time::Instant::now();
        let store = SimStore::new(seed);
        store.set_faults(Faults {
            unavailable: 200,
            ambiguous: 200,
            slow: 300,
            slowest: Duration::from_secs(3),
            lost_watches: 100,
            compaction: 100,
        });
        let mut told = Vec::new();
        for number in 0..200 {
            let answer = write(&store, Vec::new(), vec![put("a", &number.to_string())]).await;
            told.push(format!("{answer:?} {:?}", begun.elapsed()));
        }
        told
    }
    let first = story(11).await;
    assert_eq!(first, story(11).await);
    assert_ne!(first, story(12).await);
    assert!(first.iter().any(|line| line.contains("Ambiguous")));
    assert!(first.iter().any(|line| line.contains("Failed")));
}
