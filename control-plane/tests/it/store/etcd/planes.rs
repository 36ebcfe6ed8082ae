//! Control planes on a real etcd: replicas publish the same, and none claims to be up to date while etcd is away.

use std::{sync::Arc, time::Duration};

use proxyxai_control_plane::{store::etcd::EtcdSettings, tick};
use proxyxai_proto::admin::v1::WaitAppliedRequest;
use tokio::time::{Instant, sleep, timeout};

use super::{
    in_time,
    server::{Cluster, connect},
};
use crate::{
    editor::{Dice, provider, random_edit},
    harness::{PATIENCE, Plane, World, ok},
    node::{Node, fresh},
};

pub(super) fn world() -> World {
    let mut world = World::new();
    world.settings.shared_store = true;
    world.settings.bookmark_interval = Duration::from_millis(500);
    world
}

/// A control plane that keeps the tick, as the program does, and trusts a watch for as long.
pub(super) async fn start(world: &World, cluster: &Cluster) -> Plane {
    let store = connect(EtcdSettings {
        freshness: tick::INTERVAL * 3,
        ..cluster.settings("planes")
    });
    let plane = world.start_on(Arc::new(store.await)).await;
    let ticking = Arc::clone(&plane.plane);
    tokio::spawn(async move { ticking.keep_tick().await });
    plane
}

/// Waits until a plane has come to a version.
async fn reach(plane: &Plane, head: u64) {
    let begin = Instant::now();
    while plane.head() < head {
        assert!(begin.elapsed() < PATIENCE, "{} of {head}", plane.head());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn law_9_two_control_planes_on_etcd_publish_the_same() {
    let cluster = Cluster::start(1, &[]).await;
    let world = world();
    let planes = [start(&world, &cluster).await, start(&world, &cluster).await];
    let (mut dice, mut node) = (Dice::new(7), Node::new("mover"));
    for round in 0..8 {
        let mut open = node.connect(&planes[round % 2]).await;
        for _ in 0..5 {
            let _refused_for_what_it_is = random_edit(&planes[dice.roll(2)], &mut dice).await;
        }
        if round == 4 {
            let mut client = cluster.client(0).await.kv_client();
            let revision = in_time(client.get("x", None)).await.unwrap();
            let revision = revision.header().unwrap().revision();
            in_time(client.compact(revision, None)).await.unwrap();
        }
        let head = planes[0].head().max(planes[1].head());
        for plane in &planes {
            reach(plane, head).await;
        }
        node.follow(&mut open, head).await;
        node.ack(&open).await;
        for plane in &planes {
            let other = fresh(plane).await;
            assert_eq!(other.version, node.version, "round {round}");
            assert!(other.content == node.content, "round {round}: law 9");
        }
    }
    assert!(
        node.snapshots < 4 && node.deltas > 4,
        "{} snapshots",
        node.snapshots
    );
    // Both know all nodes: the mover, whichever had it last, and the fresh one that is gone.
    for plane in &planes {
        let request = WaitAppliedRequest {
            version: None,
            timeout_ms: 200,
        };
        let answer = ok(plane.nodes().wait_applied(request).await);
        let named = answer.missing.iter().map(|node| node.id.as_str());
        assert!(named.into_iter().any(|id| id == "fresh") || answer.applied == 2);
        assert!(answer.silent_replicas.is_empty(), "{answer:?}");
    }
}

#[tokio::test]
async fn law_20_a_manifest_larger_than_a_transaction_is_whole_on_etcd_too() {
    let cluster = Cluster::start(1, &[]).await;
    let world = world();
    let planes = [start(&world, &cluster).await, start(&world, &cluster).await];
    crate::staged::check(&planes).await;
}

#[tokio::test]
async fn a_control_plane_whose_etcd_is_away_serves_but_sends_no_bookmarks() {
    let mut cluster = Cluster::start(1, &[]).await;
    let world = world();
    let plane = start(&world, &cluster).await;
    let mut node = Node::new("n");
    let mut open = node.connect(&plane).await;
    provider(&plane, "p").await;
    node.follow(&mut open, plane.head()).await;
    cluster.kill(0);
    let begin = Instant::now();
    while let Ok(message) = timeout(Duration::from_secs(4), open.next()).await {
        assert!(begin.elapsed() < PATIENCE, "bookmarks go on");
        node.apply(&mut open, message.unwrap());
    }
    // Who comes now gets what there is.
    let mut late = Node::new("late");
    let mut open_late = late.connect(&plane).await;
    while late.version != node.version {
        let message = open_late.next().await.unwrap();
        late.apply(&mut open_late, message);
    }
    cluster.begin(0);
    node.follow(&mut open, plane.head()).await;
    let again = async {
        let request = crate::editor::provider_request("q");
        plane.providers().create_provider(request).await
    };
    ok(in_time(again).await);
    node.follow(&mut open, plane.head()).await;
    assert!(node.content.iter().any(|(name, _)| name.id == "q"));
}
