//! A manifest that is larger than one transaction: exports, nodes and other replicas see all of it or nothing. The same on every store.

use std::{collections::BTreeSet, sync::Arc};

use proxyxai_control_plane::store::{Store, sim::SimStore};
use proxyxai_core::snapshot::ResourceKind;
use proxyxai_proto::admin::v1::{
    ApplyManifestRequest, GetManifestRequest, Manifest, ManifestAccount, ManifestKey,
    ManifestObject, manifest_object::Kind,
};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    harness::{PATIENCE, Plane, World, ok},
    node::{Node, fresh},
};

/// Accounts, each with a key.
const ACCOUNTS: usize = 150;

fn objects() -> Vec<ManifestObject> {
    let account = |number| {
        Kind::Account(ManifestAccount {
            path: format!("root/a{number}"),
            ..ManifestAccount::default()
        })
    };
    let key = |number| {
        Kind::Key(ManifestKey {
            account: format!("root/a{number}"),
            name: "k".to_owned(),
            ..ManifestKey::default()
        })
    };
    let numbers = 0..ACCOUNTS;
    let all = numbers.clone().map(key).chain(numbers.map(account));
    all.map(|kind| ManifestObject { kind: Some(kind) })
        .collect()
}

/// How many of them a replica says are in force.
pub(crate) async fn exported(plane: &Plane) -> usize {
    let answer = ok(plane.manifests().get_manifest(GetManifestRequest {}).await);
    let objects = answer.manifest.unwrap().objects;
    let ours = objects.iter().filter(|object| match &object.kind {
        Some(Kind::Account(account)) => account.path != "root",
        Some(Kind::Key(key)) => key.account != "root",
        _ => false,
    });
    ours.count()
}

pub(crate) async fn held(plane: &Plane) -> usize {
    let node: Node = fresh(plane).await;
    let ours = node.content.iter().filter(|(name, _)| {
        name.kind == ResourceKind::VirtualKey
            || (name.kind == ResourceKind::Account && name.id != "root")
    });
    ours.count()
}

/// Applies a manifest through one replica, and looks at the other all the while.
async fn apply([one, two]: &[Plane; 2], objects: Vec<ManifestObject>) -> BTreeSet<usize> {
    let request = ApplyManifestRequest {
        manifest: Some(Manifest {
            objects,
            settings: None,
        }),
        prune: true,
        ..ApplyManifestRequest::default()
    };
    let mut manifests = one.manifests();
    let applying = manifests.apply_manifest(request);
    tokio::pin!(applying);
    let mut seen = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            answer = &mut applying => {
                // Keys are told of in the answer, so it is not printed.
                assert!(answer.is_ok(), "{:?}", answer.err());
                break;
            }
            count = exported(two) => {
                seen.insert(count);
                seen.insert(held(two).await);
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
    seen
}

pub(crate) async fn check(planes: &[Plane; 2]) {
    let all = ACCOUNTS * 2;
    let reached = async |wanted: usize| {
        let begin = Instant::now();
        for plane in planes {
            while exported(plane).await != wanted {
                assert!(begin.elapsed() < PATIENCE, "it is not seen");
                sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(held(plane).await, wanted);
        }
    };
    for (objects, wanted) in [(objects(), all), (Vec::new(), 0), (objects(), all)] {
        let seen = apply(planes, objects).await;
        assert!(seen.is_subset(&BTreeSet::from([0, all])), "{seen:?}");
        reached(wanted).await;
    }
}

#[tokio::test(start_paused = true)]
async fn law_20_a_manifest_larger_than_a_transaction_is_whole_on_the_embedded_store() {
    let mut world = World::new();
    world.settings.shared_store = true;
    check(&[world.start().await, world.start().await]).await;
}

#[tokio::test(start_paused = true)]
async fn law_20_a_manifest_larger_than_a_transaction_is_whole_on_the_simulated_store() {
    let mut world = World::new();
    world.settings.shared_store = true;
    let sim: Arc<dyn Store> = Arc::new(SimStore::new(11));
    let planes = [
        world.start_on(Arc::clone(&sim)).await,
        world.start_on(sim).await,
    ];
    check(&planes).await;
}
