//! A manifest that is larger than one transaction, on three members of etcd whose leader is killed on the way.

use std::collections::BTreeSet;

use proxyxai_control_plane::store::{Event, Range, Store as _, WatchEvent, etcd::EtcdStore};
use proxyxai_proto::admin::v1::{
    ApplyManifestRequest, Manifest, ManifestAccount, ManifestObject, manifest_object::Kind,
};
use tokio::time::{Duration, Instant, sleep};

use super::{
    planes::{start, world},
    server::Cluster,
};
use crate::{
    harness::{PATIENCE, Plane},
    staged::{exported, held},
    store::in_time,
};

/// Some twenty portions.
const ACCOUNTS: usize = 900;

fn manifest() -> ApplyManifestRequest {
    let account = |number| ManifestObject {
        kind: Some(Kind::Account(ManifestAccount {
            path: format!("root/a{number}"),
            ..ManifestAccount::default()
        })),
    };
    ApplyManifestRequest {
        manifest: Some(Manifest {
            objects: (0..ACCOUNTS).map(account).collect(),
            settings: None,
        }),
        ..ApplyManifestRequest::default()
    }
}

/// Comes to its end with the fifth write of such a key.
async fn fifth(store: &EtcdStore, key: &str) {
    let page = in_time(store.range(Range::prefix("cfg/head")))
        .await
        .unwrap();
    let watch = store.watch("cfg/stage", page.revision + 1);
    let mut watch = in_time(watch).await.unwrap();
    let mut seen = 0;
    while seen < 5 {
        let WatchEvent::Changes { events, .. } = watch.next().await else {
            panic!("the watch is lost before anything was killed");
        };
        let is_it =
            |event: &&Event| matches!(event, Event::Put(entry) if entry.key.starts_with(key));
        seen += events.iter().filter(is_it).count();
    }
}

/// Kills the leader of etcd at the fifth write of such a key; gives what was seen of the accounts all the while.
async fn killed(key: &str) -> BTreeSet<usize> {
    let mut cluster = Cluster::start(3, &[]).await;
    let world = world();
    let planes: [Plane; 2] = [start(&world, &cluster).await, start(&world, &cluster).await];
    let store = cluster.store("planes").await;
    let leader = cluster.leader(0).await;
    let mut manifests = planes[0].manifests();
    let applying = manifests.apply_manifest(manifest());
    let killing = async {
        fifth(&store, key).await;
        cluster.kill(leader);
    };
    tokio::pin!(applying, killing);
    let (mut seen, mut answer, mut dead) = (BTreeSet::new(), None, false);
    while answer.is_none() || !dead {
        tokio::select! {
            biased;
            () = &mut killing, if !dead => dead = true,
            done = &mut applying, if answer.is_none() => answer = Some(done.map(|_| ())),
            count = held(&planes[1]) => {
                seen.insert(count);
                seen.insert(exported(&planes[1]).await);
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
    // What is done about an answer that nobody had: the same again. It is whole, or it is not there.
    let begin = Instant::now();
    while let Err(refusal) = planes[1].manifests().apply_manifest(manifest()).await {
        assert!(begin.elapsed() < PATIENCE, "{refusal:?}");
        seen.insert(exported(&planes[1]).await);
        sleep(Duration::from_millis(100)).await;
    }
    for plane in &planes {
        while exported(plane).await != ACCOUNTS {
            assert!(begin.elapsed() < PATIENCE, "a replica does not follow");
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(held(plane).await, ACCOUNTS);
    }
    loop {
        let left = in_time(store.range(Range::prefix("cfg/stage")))
            .await
            .unwrap();
        if left.entries.is_empty() {
            break;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "{} are left",
            left.entries.len()
        );
        sleep(Duration::from_millis(50)).await;
    }
    seen
}

#[tokio::test]
#[ignore = "a cluster of three"]
async fn etcd_full_law_20_a_large_apply_is_whole_when_the_leader_dies_while_it_is_staged() {
    let seen = killed("cfg/stage/").await;
    assert!(seen.is_subset(&BTreeSet::from([0, ACCOUNTS])), "{seen:?}");
}

#[tokio::test]
#[ignore = "a cluster of three"]
async fn etcd_full_law_20_a_large_apply_is_whole_when_the_leader_dies_while_it_is_published() {
    let seen = killed("cfg/staged").await;
    assert!(seen.is_subset(&BTreeSet::from([0, ACCOUNTS])), "{seen:?}");
}
