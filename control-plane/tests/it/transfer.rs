//! Backups, exports and imports between stores, and restores: with every byte checked, with every crash, and with the wrong key.

use std::{io::Cursor, sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_control_plane::{
    store::{Op, Store, StoreError, Txn, embedded::EmbeddedStore},
    transfer::{Archive, Export, Import, Imported, TransferError, import, restored},
};
use proxyxai_core::{ports::Clock as _, secret::seal::SealKey, snapshot::Version};
use proxyxai_proto::{
    admin::v1::{BackupRequest, RotateKeyringRequest},
    store::v1::Counter,
};
use tonic::Code;

use crate::{
    editor::{account, key as new_key, upstream_key},
    harness::{Plane, Sequence, World, ok, refused, tells_a_secret},
    node::Node,
    rotation::{as_made, format_1, keyring, sealing, secrets},
    secrets::{put, start_fails, value, with_secrets},
    veil::Veil,
};

pub(crate) async fn export(store: Arc<dyn Store>) -> Result<Vec<u8>, TransferError> {
    let mut export = Export::new(store, 7);
    let mut file = Vec::new();
    while let Some(more) = export.next_bytes().await? {
        file.extend(more);
    }
    Ok(file)
}

async fn backup(plane: &Plane) -> Result<Vec<u8>, tonic::Status> {
    let mut chunks = plane.backups().backup(BackupRequest {}).await?.into_inner();
    let mut file = Vec::new();
    while let Some(more) = chunks.message().await? {
        file.extend(more.chunk);
    }
    Ok(file)
}

pub(crate) async fn read_into(
    store: Arc<dyn Store>,
    file: &[u8],
    kek: [u8; 32],
    replace: bool,
) -> Result<Imported, TransferError> {
    let options = Import {
        key: Arc::new(SealKey::new(kek)),
        replace,
        now_unix_ms: 9,
    };
    let random = Sequence(77.into());
    import(&store, &mut Cursor::new(file), options, &random).await
}

fn store_of(world: &World) -> Arc<dyn Store> {
    Arc::new(world.store.clone())
}

/// A world whose store is a file.
fn on_disk(folder: &tempfile::TempDir) -> World {
    let mut world = World::new();
    world.store = EmbeddedStore::open(&folder.path().join("store.redb")).unwrap();
    world
}

#[tokio::test(start_paused = true)]
async fn law_21_a_backup_of_a_running_gateway_holds_no_secret_and_becomes_another_store() {
    let world = with_secrets().await;
    let plane = world.start().await;
    account(&plane, "", "team").await;
    let (view, _) = new_key(&plane, "root/team", "k").await;
    put(
        &world,
        "usage/mark/n/1",
        Counter { value: 3 }.encode_to_vec(),
    )
    .await;
    let of_processes = ["leader/ledger", "replica/r", "ask/q", "answer/q/r/0"];
    for key in of_processes {
        put(&world, key, Vec::new()).await;
    }
    let mut node = Node::new("n");
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, plane.head()).await;
    let before = node.version;
    let file = backup(&plane).await.unwrap();
    assert!(!tells_a_secret(&file), "law 21");
    for secret in [world.kek.as_slice(), &open.greeting.pepper] {
        assert!(
            !file.windows(secret.len()).any(|window| window == secret),
            "law 21"
        );
    }
    let mut archive = Archive::open(file.as_slice()).unwrap();
    archive.check().unwrap();
    assert_eq!(archive.header().generation, 1);
    assert_eq!(archive.header().deployment_id, plane.plane.deployment_id());
    let folder = tempfile::tempdir().unwrap();
    let other = on_disk(&folder);
    let imported = read_into(store_of(&other), &file, world.kek, false)
        .await
        .unwrap();
    assert_eq!(
        (imported.generation, imported.entries),
        (2, archive.entries())
    );
    let there = other.start().await;
    assert_eq!(there.plane.deployment_id(), plane.plane.deployment_id());
    assert_eq!(secrets(&there).await, as_made(&["u1", "u2"]));
    // Everything else is as it was; nothing is sealed as it was, and what is of the processes is not moved.
    for (key, old) in world.entries().await {
        let new = other
            .store
            .get(&key)
            .await
            .unwrap()
            .map(|entry| entry.value);
        let anew = key.starts_with("cfg/upstream_key/")
            || key.starts_with("cfg/good/upstream_key/")
            || [
                "cfg/keyring",
                "meta/pepper",
                "meta/authority",
                "meta/generation",
                "audit/head",
            ]
            .contains(&key.as_str());
        match new {
            None => assert!(of_processes.contains(&key.as_str()), "{key}"),
            Some(new) => assert_eq!(new != old, anew, "{key}"),
        }
    }
    assert_eq!(sealing(&other).await.len(), 1);
    // The node takes it for newer, and finds its keys and its pepper as they were.
    let mut open = node.connect(&there).await;
    node.follow(&mut open, there.head()).await;
    assert_eq!(
        node.version,
        Version {
            generation: 2,
            ..before
        }
    );
    let ids: Vec<_> = node
        .content
        .iter()
        .map(|(name, _)| name.id.clone())
        .collect();
    assert!(ids.contains(&view.id));
    upstream_key(&there, "u3", "p").await;
    // And back, through memory: the generation never goes back.
    let file = export(store_of(&other)).await.unwrap();
    let refused = read_into(store_of(&world), &file, world.kek, false).await;
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("not empty")
            && text.contains("--replace")
            && text.contains(plane.plane.deployment_id()),
        "{text}"
    );
    let imported = read_into(store_of(&world), &file, world.kek, true)
        .await
        .unwrap();
    assert_eq!(imported.generation, 3);
    assert_eq!(
        secrets(&world.start().await).await,
        as_made(&["u1", "u2", "u3"])
    );
}

#[tokio::test(start_paused = true)]
async fn the_generation_is_higher_than_both_that_of_the_file_and_that_of_the_store() {
    let world = with_secrets().await;
    let file = export(store_of(&world)).await.unwrap();
    let target = with_secrets().await;
    for seed in 1..=3 {
        let random = Sequence((seed << 40).into());
        let key = SealKey::new(target.kek);
        restored(&store_of(&target), key, &random, &*target.clock)
            .await
            .unwrap();
    }
    let imported = read_into(store_of(&target), &file, world.kek, true)
        .await
        .unwrap();
    assert_eq!(imported.generation, 5);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_changed_or_cut_is_refused_and_nothing_is_written() {
    let world = with_secrets().await;
    let file = export(store_of(&world)).await.unwrap();
    let target = World::new();
    let check = async |damaged: &[u8], words: &[&str]| {
        let text = read_into(store_of(&target), damaged, world.kek, false).await;
        let text = text.unwrap_err().to_string();
        assert!(
            words.iter().any(|word| text.contains(word)),
            "{text} lacks {words:?}"
        );
        assert_eq!(target.entries().await, [], "{text}");
    };
    let steps = file.len() / 150 + 1;
    for at in (0..file.len()).step_by(steps) {
        let mut changed = file.clone();
        changed[at] ^= 4;
        check(&changed, &["damaged", "newer", "no file that", "cut"]).await;
        check(&file[..at], &["cut", "no file that"]).await;
    }
    check(&[&file[..], b"x"].concat(), &["damaged"]).await;
    check(&[&b"PXAIARC2"[..], &file[8..]].concat(), &["newer"]).await;
    check(b"", &["no file that"]).await;
    // Parts of two files.
    let other = with_secrets().await;
    account(&other.start().await, "", "other").await;
    let other = export(store_of(&other)).await.unwrap();
    let half = file.len() / 2;
    check(
        &[&file[..half], &other[half..]].concat(),
        &["damaged", "cut"],
    )
    .await;
    // The wrong key is refused before anything else, too, and both are named.
    let refused = read_into(store_of(&target), &file, [6; 32], false).await;
    let text = refused.unwrap_err().to_string();
    for key in [world.kek, [6; 32]] {
        assert!(text.contains(&SealKey::new(key).id().to_string()), "{text}");
    }
    assert_eq!(target.entries().await, []);
    assert!(matches!(
        export(store_of(&target)).await,
        Err(TransferError::Empty)
    ));
    let old = export(store_of(&format_1().await)).await;
    assert!(matches!(old, Err(TransferError::Old { found: 1 })));
}

#[tokio::test(start_paused = true)]
async fn an_import_that_was_cut_short_starts_nothing_and_can_be_run_again() {
    let source = with_secrets().await;
    let plane = source.start().await;
    for number in 0..120 {
        new_key(&plane, "", &format!("k{number}")).await;
    }
    let file = export(store_of(&source)).await.unwrap();
    for answer_lost in [false, true] {
        let mut writes = 0;
        loop {
            let target = with_secrets().await;
            let veil = Veil::crashing(&target.store, writes, answer_lost);
            let done = read_into(veil, &file, source.kek, true).await;
            let began = target.store.get("meta/import").await.unwrap().is_some();
            if done.is_err() && began {
                assert!(start_fails(&target).await.contains("xai store import"));
                assert!(export(store_of(&target)).await.is_err());
            }
            // Once it began, it needs no leave to delete.
            let again = read_into(store_of(&target), &file, source.kek, !began).await;
            let generation = again.unwrap().generation;
            assert!((2..=3).contains(&generation), "{generation}");
            let there = target.start().await;
            assert_eq!(
                secrets(&there).await,
                as_made(&["u1", "u2"]),
                "write {writes}"
            );
            let keys = target.entries().await;
            let keys = keys
                .iter()
                .filter(|(key, _)| key.starts_with("cfg/virtual_key/"));
            assert_eq!(keys.count(), 120);
            if done.is_ok() {
                break;
            }
            writes += 1;
        }
        assert!(writes >= 5, "begin, delete, write twice, end: {writes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_of_one_revision_also_under_load() {
    let world = World::new();
    let plane = world.start_on(Veil::interleaving(&world.store, 3)).await;
    let pair = |number: u64| {
        let value = Counter { value: number }.encode_to_vec();
        // The first and the last page of what is read.
        let keys = ["a/first", "z/last"];
        Txn {
            compares: Vec::new(),
            then: keys.map(|key| Op::Put(key.into(), value.clone())).into(),
        }
    };
    world.store.txn(pair(0)).await.unwrap();
    for page in 0..25_u64 {
        let then = (0..100_u64).map(|row| {
            let value = Counter { value: row }.encode_to_vec();
            Op::Put(format!("m/{page}/{row}"), value)
        });
        let then = then.collect();
        world
            .store
            .txn(Txn {
                compares: Vec::new(),
                then,
            })
            .await
            .unwrap();
    }
    let load = async {
        for number in 1..200 {
            world.store.txn(pair(number)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let backups = async {
        let mut whole = 0;
        while whole < 3 {
            let file = match backup(&plane).await {
                Ok(file) => file,
                // A store that keeps no history asks to try again.
                Err(status) => {
                    assert_eq!(status.code(), Code::Aborted, "{status}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            };
            whole += 1;
            let mut archive = Archive::open(file.as_slice()).unwrap();
            let mut found = Vec::new();
            while let Some(entries) = archive.next_entries().unwrap() {
                let pair = entries
                    .into_iter()
                    .filter(|entry| ["a/first", "z/last"].contains(&entry.key.as_str()));
                found.extend(pair.map(|entry| entry.value));
            }
            assert_eq!(found.len(), 2);
            assert_eq!(found[0], found[1], "both of one revision");
        }
    };
    tokio::join!(load, backups);
}

#[tokio::test(start_paused = true)]
async fn law_9_after_a_restore_the_generation_is_higher_and_what_is_older_does_not_open() {
    let world = with_secrets().await;
    let plane = world.start().await;
    let mut node = Node::new("n");
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, plane.head()).await;
    // The disk of the store is copied, life goes on, the copy is put back.
    let copy = world.entries().await;
    upstream_key(&plane, "u3", "p").await;
    ok(plane
        .secrets()
        .rotate_keyring(RotateKeyringRequest::default())
        .await);
    node.follow(&mut open, plane.head()).await;
    let later = value(&world, "cfg/upstream_key/u1").await;
    let lost = node.version;
    drop((open, plane));
    let back = World::new();
    for (key, entry) in copy {
        put(&back, &key, entry).await;
    }
    let raise = async |store: Arc<dyn Store>| {
        let key = SealKey::new(back.kek);
        restored(&store, key, &Sequence(3.into()), &*back.clock).await
    };
    let raised = raise(store_of(&back)).await.unwrap();
    assert_eq!((raised.generation, raised.left), (2, None));
    let plane = back.start().await;
    assert_eq!(keyring(&plane).await.generation, 2);
    assert_eq!(secrets(&plane).await, as_made(&["u1", "u2"]));
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, plane.head()).await;
    assert!(
        node.version > lost,
        "a node takes a higher generation, though its revision is lower"
    );
    // Of the time before the restore.
    put(&back, "cfg/upstream_key/u1", later).await;
    assert_eq!(
        secrets(&back.start().await).await,
        as_made(&["u1", "u2"]),
        "the last good one stands in"
    );
    let empty: Arc<dyn Store> = store_of(&World::new());
    let refused = restored(
        &empty,
        SealKey::new([1; 32]),
        &Sequence(3.into()),
        &*back.clock,
    )
    .await;
    assert!(matches!(refused, Err(TransferError::Empty)));
    assert!(back.clock.unix_ms() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_was_cut_short_is_whole_at_the_next_start() {
    for answer_lost in [false, true] {
        for writes in 0..10 {
            let world = format_1().await;
            let store: Arc<dyn Store> = Veil::crashing(&world.store, writes, answer_lost);
            let key = SealKey::new(world.kek);
            let done = restored(&store, key, &Sequence(3.into()), &*world.clock).await;
            let plane = world.start().await;
            assert_eq!(
                secrets(&plane).await,
                as_made(&["u1", "u2"]),
                "write {writes}"
            );
            tokio::join!(plane.plane.keep_house(), async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                plane.plane.stop();
            });
            let view = keyring(&plane).await;
            assert_eq!(view.data_keys.len(), 1, "write {writes}");
            assert_eq!(sealing(&world).await.len(), 1, "write {writes}");
            let plane = world.start().await;
            assert_eq!(
                secrets(&plane).await,
                as_made(&["u1", "u2"]),
                "write {writes}"
            );
            assert!(done.is_err() || view.generation == 2);
        }
    }
    // A store that fails is said to have failed.
    let world = with_secrets().await;
    let store: Arc<dyn Store> = Veil::crashing(&world.store, -1, false);
    let failed = export(store).await.unwrap_err().to_string();
    assert_eq!(failed, StoreError::Closed.to_string());
}

#[tokio::test(start_paused = true)]
async fn one_secret_that_does_not_open_stops_neither_rotation_nor_import_of_the_others() {
    let world = with_secrets().await;
    let plane = world.start().await;
    let bad = "cfg/upstream_key/u1";
    let right = value(&world, bad).await;
    let mut flipped = right.clone();
    let magic = flipped.windows(4).position(|w| w == b"PXS1").unwrap();
    flipped[magic + 50] ^= 1;
    put(&world, bad, flipped.clone()).await;
    let file = export(store_of(&world)).await.unwrap();
    let before = keyring(&plane).await.data_keys[0].id.clone();
    let rotate = async || {
        plane
            .secrets()
            .rotate_keyring(RotateKeyringRequest::default())
            .await
    };
    refused(rotate().await, Code::DataLoss, &[bad, "backup"]);
    // The others are sealed anew, and the key of the bad one stays, in case that it is put right.
    let view = keyring(&plane).await;
    let secrets_of = |id: &str| {
        view.data_keys
            .iter()
            .find(|key| key.id == id)
            .unwrap()
            .secrets
    };
    assert_eq!((view.data_keys.len(), secrets_of(&before)), (2, 1));
    put(&world, bad, right).await;
    ok(rotate().await);
    assert_eq!(keyring(&plane).await.data_keys.len(), 1);
    assert_eq!(secrets(&world.start().await).await, as_made(&["u1", "u2"]));
    let other = World::new();
    let imported = read_into(store_of(&other), &file, world.kek, false)
        .await
        .unwrap();
    assert_eq!(imported.unopened, [bad]);
    assert_eq!(value(&other, bad).await, flipped);
    // Without the pepper no virtual key would be known again: refused before anything is written.
    let mut pepper = value(&world, "meta/pepper").await;
    *pepper.last_mut().unwrap() ^= 1;
    put(&world, "meta/pepper", pepper).await;
    let file = export(store_of(&world)).await.unwrap();
    let other = World::new();
    let denied = read_into(store_of(&other), &file, world.kek, false).await;
    assert!(denied.unwrap_err().to_string().contains("meta/pepper"));
    assert_eq!(other.entries().await, []);
}
