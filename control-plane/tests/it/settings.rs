//! Settings of the deployment: what may be said, how they reach nodes and other replicas, and that they outlive everything.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_control_plane::store::{Op, Store, Txn};
use proxyxai_proto::{
    admin::v1::{
        ApplyManifestRequest, GetManifestRequest, GetSettingsRequest, ListWithheldRequest,
        Manifest, ManifestAccount, ManifestObject, Settings, SettingsView, UpdateSettingsRequest,
        WaitAppliedRequest, WithheldView, manifest_object::Kind,
    },
    store::v1::StoredSettings,
};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::{
    editor::account,
    harness::{PATIENCE, Plane, World, ok, refused},
    node::{Node, Open},
    transfer::{export, read_into},
};

const DEFAULT: u64 = 259_200;

fn max_stale(seconds: u64) -> UpdateSettingsRequest {
    UpdateSettingsRequest {
        max_stale_seconds: Some(seconds),
        ..UpdateSettingsRequest::default()
    }
}

async fn update(plane: &Plane, request: UpdateSettingsRequest) -> SettingsView {
    ok(plane.settings().update_settings(request).await)
        .settings
        .unwrap()
}

async fn view(plane: &Plane) -> SettingsView {
    ok(plane.settings().get_settings(GetSettingsRequest {}).await)
        .settings
        .unwrap()
}

/// What is in force: seconds of staleness, and of the audit trail.
async fn in_force(plane: &Plane) -> (u64, u64) {
    let found = view(plane).await.in_force.unwrap();
    (found.max_stale_seconds, found.audit_keep_seconds)
}

async fn reached(plane: &Plane, wanted: u64) {
    let begin = Instant::now();
    while in_force(plane).await.0 != wanted {
        assert!(
            begin.elapsed() < PATIENCE,
            "another replica does not see it"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// Follows until it holds this version.
async fn follow(node: &mut Node, open: &mut Open, until: u64) {
    while node.version.revision < until {
        let message = open.next().await.unwrap();
        node.apply(open, message);
    }
}

fn shared() -> World {
    let mut world = World::new();
    world.settings.shared_store = true;
    world
}

#[tokio::test(start_paused = true)]
async fn a_change_reaches_open_streams_before_the_version_that_it_came_with() {
    let world = shared();
    let (a, b) = (world.start().await, world.start().await);
    assert_eq!(in_force(&a).await, (DEFAULT, 365 * 86_400));
    for preload_max in [1_000, 0] {
        let mut node = Node::with_limit(&format!("n{preload_max}"), preload_max);
        let mut open = node.connect(&b).await;
        let greeted = open.greeting.max_stale_seconds;
        follow(&mut node, &mut open, a.head()).await;
        let wanted = greeted / 2;
        let begin = Instant::now();
        let told = update(&a, max_stale(wanted)).await;
        assert_eq!(told.set.unwrap().max_stale_seconds, wanted);
        follow(&mut node, &mut open, a.head()).await;
        assert_eq!(node.max_stale, wanted);
        assert!(begin.elapsed() < Duration::from_secs(1), "at once");
        node.ack(&open).await;
        let wait = WaitAppliedRequest {
            version: None,
            timeout_ms: 10_000,
        };
        let waited = ok(a.nodes().wait_applied(wait).await);
        let missing: Vec<_> = waited.missing.iter().map(|it| it.id.as_str()).collect();
        assert!(!missing.contains(&node.id.as_str()), "{missing:?}");
        // Other changes tell nothing of it again.
        node.max_stale = 0;
        account(&a, "", &format!("a{preload_max}")).await;
        follow(&mut node, &mut open, a.head()).await;
        assert_eq!(node.max_stale, 0);
    }
    // A node of a program that knew no such message is told when its stream begins.
    let old = Node::new("old").connect(&b).await;
    assert_eq!(old.greeting.max_stale_seconds, in_force(&a).await.0);
}

#[tokio::test(start_paused = true)]
async fn settings_outlive_restarts_and_moves_to_another_store() {
    let world = shared();
    let plane = world.start().await;
    let set = UpdateSettingsRequest {
        max_stale_seconds: Some(600),
        audit_keep_seconds: Some(90_000),
        ..UpdateSettingsRequest::default()
    };
    update(&plane, set).await;
    drop(plane);
    let plane = world.start().await;
    assert_eq!(in_force(&plane).await, (600, 90_000));
    assert_eq!(
        Node::new("n")
            .connect(&plane)
            .await
            .greeting
            .max_stale_seconds,
        600
    );
    let file = export(Arc::new(world.store.clone())).await.unwrap();
    let other = shared();
    let store: Arc<dyn Store> = Arc::new(other.store.clone());
    read_into(store, &file, world.kek, false).await.unwrap();
    let moved = other.start().await;
    assert_eq!(in_force(&moved).await, (600, 90_000));
    // Back to the defaults, one after the other.
    update(&moved, max_stale(0)).await;
    assert_eq!(in_force(&moved).await, (DEFAULT, 90_000));
    let unset = UpdateSettingsRequest {
        audit_keep_seconds: Some(0),
        ..UpdateSettingsRequest::default()
    };
    let found = update(&moved, unset).await;
    assert_eq!(found.set, Some(Settings::default()));
    assert_eq!(in_force(&moved).await, (DEFAULT, 365 * 86_400));
}

#[tokio::test(start_paused = true)]
async fn a_lost_update_is_refused_and_a_repeated_call_is_one() {
    let plane = World::new().start().await;
    let first = update(&plane, max_stale(600)).await;
    assert!(first.resource_version > 0);
    let second = update(&plane, max_stale(700)).await;
    let late = UpdateSettingsRequest {
        resource_version: first.resource_version,
        ..max_stale(800)
    };
    let answer = plane.settings().update_settings(late.clone()).await;
    refused(
        answer,
        Code::Aborted,
        &["the settings `deployment` was changed"],
    );
    let in_time = UpdateSettingsRequest {
        resource_version: second.resource_version,
        idempotency_key: "once".into(),
        ..late
    };
    let done = update(&plane, in_time.clone()).await;
    let head = plane.head();
    assert_eq!(update(&plane, in_time.clone()).await, done);
    assert_eq!(plane.head(), head, "nothing was changed again");
    let other = UpdateSettingsRequest {
        max_stale_seconds: Some(900),
        ..in_time
    };
    let answer = plane.settings().update_settings(other).await;
    refused(
        answer,
        Code::InvalidArgument,
        &["idempotency_key", "asked for something else"],
    );
    // What is so already changes nothing.
    update(&plane, max_stale(800)).await;
    assert_eq!(plane.head(), head);
    for (seconds, said) in [
        (59, "60 seconds to 365 days"),
        (u64::MAX, "60 seconds to 365 days"),
    ] {
        let answer = plane.settings().update_settings(max_stale(seconds)).await;
        refused(answer, Code::InvalidArgument, &["max_stale_seconds", said]);
    }
    let brief = UpdateSettingsRequest {
        audit_keep_seconds: Some(3_600),
        ..UpdateSettingsRequest::default()
    };
    let answer = plane.settings().update_settings(brief).await;
    refused(
        answer,
        Code::InvalidArgument,
        &["audit_keep_seconds", "1 days"],
    );
}

fn manifest(accounts: usize, settings: Option<Settings>) -> ApplyManifestRequest {
    let account = |number| ManifestObject {
        kind: Some(Kind::Account(ManifestAccount {
            path: format!("root/a{number}"),
            ..ManifestAccount::default()
        })),
    };
    ApplyManifestRequest {
        manifest: Some(Manifest {
            objects: (0..accounts).map(account).collect(),
            settings,
        }),
        ..ApplyManifestRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn law_20_settings_come_into_force_with_the_manifest_that_has_them_however_large() {
    let world = shared();
    let (a, b) = (world.start().await, world.start().await);
    // One that fits into a transaction to the last operation, the first that does not, and a larger one.
    for (accounts, seconds) in [(47, 600), (48, 700), (200, 800)] {
        let settings = Settings {
            max_stale_seconds: seconds,
            audit_keep_seconds: 0,
        };
        let request = manifest(accounts, Some(settings));
        let applied = ok(a.manifests().apply_manifest(request.clone()).await);
        let told = applied.changes.last().unwrap();
        assert_eq!(
            (told.kind.as_str(), told.name.as_str()),
            ("settings", "deployment")
        );
        assert!(told.after.contains(&seconds.to_string()), "{told:?}");
        reached(&b, seconds).await;
        let found = ok(b.manifests().get_manifest(GetManifestRequest {}).await);
        let found = found.manifest.unwrap();
        assert_eq!(found.settings, Some(settings));
        assert_eq!(
            found.objects.len() - 2,
            accounts,
            "the root, a price table, and these"
        );
        let again = ok(a.manifests().apply_manifest(request).await);
        assert_eq!(again.changes, []);
    }
    // Absent, they are left alone; given, they are given as a whole.
    ok(a.manifests().apply_manifest(manifest(1, None)).await);
    assert_eq!(in_force(&a).await.0, 800);
    let none = manifest(1, Some(Settings::default()));
    ok(a.manifests().apply_manifest(none).await);
    assert_eq!(in_force(&a).await.0, DEFAULT);
    let found = ok(a.manifests().get_manifest(GetManifestRequest {}).await);
    assert_eq!(found.manifest.unwrap().settings, None);
}

#[tokio::test(start_paused = true)]
async fn law_10_damaged_settings_are_withheld_and_the_last_good_ones_stand_in_also_after_a_restart()
{
    let world = shared();
    let mut plane = world.start().await;
    let too_brief = StoredSettings {
        settings: Some(Settings {
            max_stale_seconds: 1,
            audit_keep_seconds: 0,
        }),
        ..StoredSettings::default()
    };
    for (number, damaged) in [
        Op::Put("cfg/settings".into(), vec![0xff]),
        Op::Put("cfg/settings".into(), too_brief.encode_to_vec()),
        // Field 1000, as a later program may write it.
        Op::Put("cfg/settings".into(), vec![0xc2, 0x3e, 1, b'n']),
        Op::Delete("cfg/settings".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let seconds = 600 + u64::try_from(number).unwrap();
        update(&plane, max_stale(seconds)).await;
        assert_eq!(withheld(&plane).await, []);
        write(&world, damaged).await;
        account(&plane, "", &format!("a{number}")).await;
        for restarted in [false, true] {
            assert_eq!(in_force(&plane).await.0, seconds, "{number} {restarted}");
            let found = withheld(&plane).await;
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(
                (found[0].name.as_str(), found[0].stand_in),
                ("settings", true)
            );
            if !restarted {
                drop(plane);
                plane = world.start().await;
            }
        }
    }
    update(&plane, max_stale(700)).await;
    assert_eq!(in_force(&plane).await.0, 700);
    assert_eq!(withheld(&plane).await, []);
}

#[tokio::test(start_paused = true)]
async fn law_10_settings_of_a_store_without_their_good_note_get_one() {
    let world = shared();
    let plane = world.start().await;
    update(&plane, max_stale(600)).await;
    write(&world, Op::Delete("cfg/good/settings".into())).await;
    let begin = Instant::now();
    while world
        .store
        .get("cfg/good/settings")
        .await
        .unwrap()
        .is_none()
    {
        assert!(begin.elapsed() < PATIENCE, "nobody notes them");
        sleep(Duration::from_millis(20)).await;
    }
    write(&world, Op::Put("cfg/settings".into(), vec![0xff])).await;
    drop(plane);
    let plane = world.start().await;
    assert_eq!(in_force(&plane).await.0, 600);
}

/// Writes a row straight into the store.
async fn write(world: &World, op: Op) {
    let txn = Txn {
        compares: Vec::new(),
        then: vec![op],
    };
    world.store.txn(txn).await.unwrap();
}

async fn withheld(plane: &Plane) -> Vec<WithheldView> {
    let request = ListWithheldRequest::default();
    ok(plane.nodes().list_withheld(request).await).withheld
}
