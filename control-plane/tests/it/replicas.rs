//! Two replicas of the control plane on one store: nodes move between them, and both know all nodes.

use std::{sync::Arc, time::Duration};

use proxyxai_core::snapshot::Version;
use proxyxai_proto::{
    admin::v1::{ListNodesRequest, WaitAppliedRequest},
    config::v1::stream_response::Message,
};
use tokio::time::Instant;

use crate::{
    editor::{Dice, key, provider, random_edit},
    harness::{PATIENCE, Plane, World, ok},
    node::{Node, Open, fresh},
    veil::Veil,
};

fn shared() -> World {
    let mut world = World::new();
    world.settings.shared_store = true;
    world
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

async fn follow_to(node: &mut Node, open: &mut Open, head: u64) {
    while node.version.revision < head {
        let message = open.next().await.unwrap();
        node.apply(open, message);
    }
}

/// Edits at random through two replicas, while a node moves from one to the other: what it holds is always what a fresh one gets.
async fn check_mover(seed: u64) {
    let world = shared();
    let planes = [world.start().await, world.start().await];
    let (mut dice, mut node) = (Dice::new(seed), Node::new("mover"));
    for round in 0..20 {
        let mut open = node.connect(&planes[dice.roll(2)]).await;
        for _ in 0..dice.roll(6) {
            let _refused_for_what_it_is = random_edit(&planes[dice.roll(2)], &mut dice).await;
        }
        settle().await;
        let heads = [planes[0].head(), planes[1].head()];
        assert_eq!(heads[0], heads[1], "seed {seed}: law 9");
        follow_to(&mut node, &mut open, heads[0]).await;
        if round % 5 == 4 {
            for plane in &planes {
                let other = fresh(plane).await;
                assert_eq!(other.version, node.version, "seed {seed}");
                assert!(other.content == node.content, "seed {seed}: law 9");
            }
        }
    }
    assert!(
        node.deltas > 5 && node.snapshots < 5,
        "seed {seed}: {} of {}",
        node.snapshots,
        node.deltas
    );
}

#[tokio::test(start_paused = true)]
async fn law_9_a_node_that_moves_between_replicas_gets_deltas_and_the_same_content() {
    for seed in 1..=4 {
        check_mover(seed).await;
    }
}

async fn obey(mut node: Node, mut open: Open, delay: Duration) {
    while let Some(message) = open.next().await {
        node.apply(&mut open, message);
        tokio::time::sleep(delay).await;
        node.ack(&open).await;
    }
}

async fn wait(plane: &Plane, seconds: u32) -> proxyxai_proto::admin::v1::WaitAppliedResponse {
    let request = WaitAppliedRequest {
        version: None,
        timeout_ms: seconds * 1_000,
    };
    ok(plane.nodes().wait_applied(request).await)
}

#[tokio::test(start_paused = true)]
async fn a_wait_covers_the_nodes_of_all_replicas() {
    let world = shared();
    let (a, b) = (world.start().await, world.start().await);
    settle().await;
    let mut tasks = tokio::task::JoinSet::new();
    for (id, plane, delay) in [("on-a", &a, 10), ("on-b", &b, 900)] {
        let node = Node::new(id);
        let open = node.connect(plane).await;
        tasks.spawn(obey(node, open, Duration::from_millis(delay)));
    }
    settle().await;
    for plane in [&a, &b] {
        let begin = Instant::now();
        key(plane, "", "k").await;
        let answer = wait(plane, 30).await;
        assert!(
            answer.missing.is_empty() && answer.applied == 2,
            "{answer:?}"
        );
        assert!(answer.silent_replicas.is_empty());
        assert!(begin.elapsed() >= Duration::from_millis(900));
        let listed = ok(plane.nodes().list_nodes(ListNodesRequest {}).await);
        let ids: Vec<&str> = listed.nodes.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["on-a", "on-b"]);
    }
    // A node that moved is named once, as who heard it last knows it.
    tasks.abort_all();
    settle().await;
    let node = Node::new("on-b");
    let open = node.connect(&a).await;
    tasks.spawn(obey(node, open, Duration::ZERO));
    settle().await;
    provider(&b, "p").await;
    let answer = wait(&b, 30).await;
    let missing: Vec<&str> = answer.missing.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(missing, ["on-a"], "{answer:?}");
    assert_eq!(answer.applied, 1);
    // No question stays in the store.
    let rows = world.entries().await.into_iter().map(|(key, _)| key);
    assert!(
        rows.into_iter()
            .all(|key| !key.starts_with("ask/") && !key.starts_with("answer/"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_cannot_say_that_it_lives_proves_nothing_for_longer_than_others_wait() {
    let world = shared();
    let a = world.start().await;
    settle().await;
    // Its writes fail from now on, and its watch goes on.
    let veil = Veil::interleaving(&world.store, 1);
    let b = world.start_on(Arc::clone(&veil) as _).await;
    settle().await;
    let node = Node::new("on-b");
    let mut open = node.connect(&b).await;
    veil.ends();
    let begin = Instant::now();
    let mut last = begin;
    while let Ok(message) = tokio::time::timeout(Duration::from_secs(10), open.next()).await {
        if matches!(message, Some(Message::Bookmark(_))) {
            last = Instant::now();
        }
        assert!(begin.elapsed() < PATIENCE, "bookmarks go on");
    }
    let proved = last.duration_since(begin);
    assert!(proved <= Duration::from_secs(15), "{proved:?}");
    // The others take it for dead later than its nodes count as live.
    while !wait(&a, 0).await.silent_replicas.is_empty() {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let live_until = proved + Duration::from_secs(6);
    assert!(
        begin.elapsed() >= live_until,
        "{:?} {proved:?}",
        begin.elapsed()
    );
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_gone_is_named_until_it_is_taken_off_the_list() {
    let world = shared();
    let a = world.start().await;
    settle().await;
    let row = proxyxai_control_plane::store::Op::Put("replica/dead".into(), Vec::new());
    let txn = proxyxai_control_plane::store::Txn {
        compares: Vec::new(),
        then: vec![row],
    };
    use proxyxai_control_plane::store::Store as _;
    world.store.txn(txn).await.unwrap();
    let answer = wait(&a, 1).await;
    assert_eq!(answer.silent_replicas, ["dead"]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(wait(&a, 1).await.silent_replicas.is_empty());
    // Who waits longer than that is told the truth by itself, of nodes that came from there meanwhile, too.
    let row = proxyxai_control_plane::store::Op::Put("replica/dead".into(), Vec::new());
    let txn = proxyxai_control_plane::store::Txn {
        compares: Vec::new(),
        then: vec![row],
    };
    world.store.txn(txn).await.unwrap();
    key(&a, "", "k").await;
    let coming = async {
        settle().await;
        let node = Node::new("moved");
        let open = node.connect(&a).await;
        obey(node, open, Duration::from_millis(10)).await;
    };
    let begin = Instant::now();
    let answer = tokio::select! {
        biased;
        answer = wait(&a, 60) => answer,
        () = coming => panic!("the stream ended"),
    };
    assert!(
        answer.silent_replicas.is_empty() && answer.missing.is_empty(),
        "{answer:?}"
    );
    assert_eq!(answer.applied, 1);
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
    // One that stops takes itself off.
    let b = world.start().await;
    settle().await;
    let replicas = || async {
        let rows = world.entries().await;
        rows.iter()
            .filter(|(key, _)| key.starts_with("replica/"))
            .count()
    };
    assert_eq!(replicas().await, 2);
    drop(b);
    settle().await;
    assert_eq!(replicas().await, 1);
    assert_eq!(
        Version::from(wait(&a, 1).await.version.unwrap()).revision,
        a.head()
    );
}
