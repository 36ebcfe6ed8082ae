//! Data keys and key-encryption keys: made once, rotated under load, after crashes, and taken over from format 1.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_core::{
    secret::seal::{SealKey, sealed_by},
    snapshot::ResourceKind,
};
use proxyxai_proto::{
    admin::v1::{GetKeyringRequest, KeyringView, RotateKeyringRequest, UpdateUpstreamKeyRequest},
    config::v1::resource::Kind,
    store::v1::{Counter, Keyring},
};
use tonic::Code;

use crate::{
    editor::{provider, upstream_key},
    harness::{Plane, SECRET, World, ok, refused},
    node::Node,
    secrets::{put, start_fails, value, with_secrets},
    veil::Veil,
};

const RING: &str = "cfg/keyring";
const DATA_KEY: RotateKeyringRequest = RotateKeyringRequest {
    key_encryption_key: false,
};
const BOTH: RotateKeyringRequest = RotateKeyringRequest {
    key_encryption_key: true,
};

pub(crate) async fn keyring(plane: &Plane) -> KeyringView {
    let answer = plane.secrets().get_keyring(GetKeyringRequest {}).await;
    ok(answer).keyring.unwrap()
}

/// The secrets of all upstream keys, as a node gets them.
pub(crate) async fn secrets(plane: &Plane) -> Vec<(String, String)> {
    let mut node = Node::new("reader");
    let mut open = node.connect(plane).await;
    node.follow(&mut open, plane.head()).await;
    let keys = node
        .content
        .iter()
        .filter_map(|(_, resource)| match &resource.kind {
            Some(Kind::UpstreamKey(key)) => {
                let secret = String::from_utf8(key.secret.clone()).unwrap();
                Some((key.id.clone(), secret))
            }
            _ => None,
        });
    keys.collect()
}

pub(crate) fn as_made(ids: &[&str]) -> Vec<(String, String)> {
    let one = |id: &&str| ((*id).to_owned(), format!("{SECRET}{id}"));
    ids.iter().map(one).collect()
}

/// Ids of the keys that seal something, as the store holds it.
pub(crate) async fn sealing(world: &World) -> BTreeSet<String> {
    let entries = world.entries().await;
    let sealed = entries.iter().filter(|(key, _)| key != RING);
    let at = sealed.filter_map(|(_, value)| {
        let start = value.windows(4).position(|window| window == b"PXS1")?;
        Some(sealed_by(value.get(start..)?).unwrap().to_string())
    });
    at.collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_data_key_seals_everything_anew_and_the_old_one_is_dropped() {
    let world = with_secrets().await;
    let plane = world.start().await;
    let before = keyring(&plane).await;
    assert_eq!(before.data_keys.len(), 1);
    assert_eq!(
        before.data_keys[0].secrets, 6,
        "two upstream keys and their last good versions, the pepper, the key of the authority"
    );
    assert_eq!(
        before.key_encryption_key_id,
        SealKey::new(world.kek).id().to_string()
    );
    let old = value(&world, "cfg/upstream_key/u1").await;
    let answer = ok(plane.secrets().rotate_keyring(DATA_KEY).await);
    assert_eq!(answer.sealed, 6);
    let after = answer.keyring.unwrap();
    assert_eq!(after.data_keys.len(), 1);
    assert_eq!(after.data_keys[0].secrets, 6);
    assert_ne!(after.data_keys[0].id, before.data_keys[0].id);
    assert_eq!(
        sealing(&world).await,
        BTreeSet::from([after.data_keys[0].id.clone()])
    );
    let head = plane.head();
    assert_eq!(
        world.start().await.head(),
        head,
        "the ring is no content: nothing is published anew"
    );
    // It goes on working, here and after a restart.
    upstream_key(&plane, "u3", "p").await;
    assert_eq!(secrets(&plane).await, as_made(&["u1", "u2", "u3"]));
    assert_eq!(
        secrets(&world.start().await).await,
        as_made(&["u1", "u2", "u3"])
    );
    // What the dropped key sealed does not open: its last good version stands in.
    put(&world, "cfg/upstream_key/u1", old).await;
    assert_eq!(
        secrets(&world.start().await).await,
        as_made(&["u1", "u2", "u3"])
    );
}

#[tokio::test(start_paused = true)]
async fn rotation_under_load_fails_no_call_of_any_replica() {
    for seed in 1..=6 {
        let world = World::new();
        let first = world.start_on(Veil::interleaving(&world.store, seed)).await;
        provider(&first, "p").await;
        for number in 0..6 {
            upstream_key(&first, &format!("u{number}"), "p").await;
        }
        let second = Veil::interleaving(&world.store, seed + 100);
        let planes = [first, world.start_on(second).await];
        let edits = |plane: &Plane, offset: usize| {
            let mut client = plane.upstream_keys();
            async move {
                for turn in 0..10 {
                    let id = format!("u{}", (turn + offset) % 6);
                    let request = UpdateUpstreamKeyRequest {
                        secret: Some(format!("{SECRET}{id}")),
                        id,
                        ..UpdateUpstreamKeyRequest::default()
                    };
                    ok(client.update_upstream_key(request).await);
                }
            }
        };
        let rotations = |plane: &Plane| {
            let mut client = plane.secrets();
            async move {
                for _ in 0..3 {
                    ok(client.rotate_keyring(DATA_KEY).await);
                }
            }
        };
        let restarts = async {
            for turn in 0..6 {
                let veil = Veil::interleaving(&world.store, seed + 200 + turn);
                let plane = world.start_on(veil).await;
                assert_eq!(secrets(&plane).await.len(), 6, "seed {seed}");
            }
        };
        tokio::join!(
            edits(&planes[0], 0),
            edits(&planes[1], 3),
            rotations(&planes[0]),
            restarts
        );
        // Two rotations at once end with one key, too.
        tokio::join!(rotations(&planes[0]), rotations(&planes[1]));
        let made = as_made(&["u0", "u1", "u2", "u3", "u4", "u5"]);
        let fresh = world.start().await;
        assert_eq!(secrets(&fresh).await, made, "seed {seed}");
        assert_eq!(keyring(&fresh).await.data_keys.len(), 1, "seed {seed}");
        assert_eq!(sealing(&world).await.len(), 1, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_anywhere_in_a_rotation_everything_opens_and_the_rotation_ends() {
    let (old, new) = ([5; 32], [7; 32]);
    for answer_lost in [false, true] {
        let mut writes = 0;
        loop {
            let mut world = with_secrets().await;
            *world.next_kek.lock().unwrap() = Some(new);
            let veil = Veil::crashing(&world.store, writes, answer_lost);
            let plane = world.start_on(veil).await;
            let rotated = plane.secrets().rotate_keyring(BOTH).await;
            drop(plane);
            // It starts with the key that the store names, and only with that.
            let named = String::from_utf8(value(&world, "meta/key-encryption-key").await).unwrap();
            let is_new = named.contains(&SealKey::new(new).id().to_string());
            world.kek = if is_new { old } else { new };
            start_fails(&world).await;
            world.kek = if is_new { new } else { old };
            let plane = world.start().await;
            assert_eq!(
                secrets(&plane).await,
                as_made(&["u1", "u2"]),
                "write {writes}"
            );
            // A start ends by itself what was begun.
            tokio::join!(plane.plane.keep_house(), async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                plane.plane.stop();
            });
            assert_eq!(keyring(&plane).await.data_keys.len(), 1, "write {writes}");
            assert_eq!(sealing(&world).await.len(), 1, "write {writes}");
            ok(plane.secrets().rotate_keyring(BOTH).await);
            world.kek = new;
            let plane = world.start().await;
            assert_eq!(
                secrets(&plane).await,
                as_made(&["u1", "u2"]),
                "write {writes}"
            );
            assert_eq!(keyring(&plane).await.data_keys.len(), 1);
            assert_eq!(sealing(&world).await.len(), 1);
            if rotated.is_ok() {
                break;
            }
            writes += 1;
        }
        assert!(
            writes >= 4,
            "the ring twice, the secrets, the ring: {writes}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_encryption_key_reaches_all_replicas_and_the_old_one_opens_nothing() {
    let mut world = with_secrets().await;
    let given = world.start().await;
    let mut alone = world.clone();
    alone.next_kek = Arc::default();
    let alone = alone.start().await;
    refused(
        given.secrets().rotate_keyring(BOTH).await,
        Code::FailedPrecondition,
        &["next_key_encryption_key"],
    );
    *world.next_kek.lock().unwrap() = Some([7; 32]);
    let other = world.start().await;
    let view = ok(given.secrets().rotate_keyring(BOTH).await)
        .keyring
        .unwrap();
    let new = SealKey::new([7; 32]).id().to_string();
    assert_eq!(view.key_encryption_key_id, new);
    // One that was given the next key, too, goes on as before.
    upstream_key(&other, "u3", "p").await;
    ok(other.secrets().rotate_keyring(DATA_KEY).await);
    // One that was not given it names it.
    refused(
        alone.secrets().rotate_keyring(DATA_KEY).await,
        Code::FailedPrecondition,
        &[&new, "give it"],
    );
    let text = start_fails(&world).await;
    assert!(
        text.contains(&new) && text.contains("key_encryption_key"),
        "{text}"
    );
    world.kek = [7; 32];
    assert_eq!(
        secrets(&world.start().await).await,
        as_made(&["u1", "u2", "u3"])
    );
    // A second time it changes nothing but the data key.
    let plane = world.start().await;
    let view = ok(plane.secrets().rotate_keyring(BOTH).await)
        .keyring
        .unwrap();
    assert_eq!(view.key_encryption_key_id, new);
}

#[tokio::test(start_paused = true)]
async fn a_ring_that_was_changed_is_refused_by_name() {
    let world = with_secrets().await;
    let right = value(&world, RING).await;
    let changes: [fn(&mut Keyring); 6] = [
        |ring| ring.keys[0].sealed[50] ^= 1,
        |ring| ring.keys[0].sealed[20] ^= 1,
        |ring| ring.keys[0].id[0] ^= 1,
        |ring| ring.keys[0].generation += 1,
        |ring| ring.keys.clear(),
        |ring| ring.keys[0].sealed.truncate(10),
    ];
    for change in changes {
        let mut ring = Keyring::decode(right.as_slice()).unwrap();
        change(&mut ring);
        put(&world, RING, ring.encode_to_vec()).await;
        let text = start_fails(&world).await;
        assert!(text.contains(RING) && text.contains("backup"), "{text}");
    }
    put(&world, RING, right).await;
    world.start().await;
}

#[tokio::test(start_paused = true)]
async fn of_several_replicas_that_start_at_once_one_makes_the_deployment() {
    for seed in 1..=8 {
        let world = World::new();
        let start =
            |number: u64| world.start_on(Veil::interleaving(&world.store, seed * 100 + number));
        let (a, b, c, d) = tokio::join!(start(1), start(2), start(3), start(4));
        let planes = [a, b, c, d];
        provider(&planes[0], "p").await;
        upstream_key(&planes[0], "u1", "p").await;
        let mut peppers = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let mut authorities = BTreeSet::new();
        for plane in &planes {
            ids.insert(plane.plane.deployment_id().to_owned());
            authorities.insert(plane.plane.authority().fingerprint().to_string());
            peppers.insert(Node::new("n").connect(plane).await.greeting.pepper);
        }
        let made = (ids.len(), peppers.len(), authorities.len());
        assert_eq!(made, (1, 1, 1), "seed {seed}");
        let fresh = world.start().await;
        assert_eq!(secrets(&fresh).await, as_made(&["u1"]));
        let roots = world.entries().await;
        let accounts = roots
            .iter()
            .filter(|(key, _)| key.starts_with("cfg/account/"));
        assert_eq!(accounts.count(), 1, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_of_format_1_is_taken_over_also_by_several_at_once_and_after_a_crash() {
    let digest = |node: &Node| {
        let mut of_kind = node
            .content
            .iter()
            .filter(|(name, _)| name.kind == ResourceKind::VirtualKey);
        of_kind.next().map(|(name, _)| name.id.clone())
    };
    let check = async |world: &World, plane: &Plane| {
        assert_eq!(secrets(plane).await, as_made(&["u1", "u2"]));
        let mut node = Node::new("n");
        let mut open = node.connect(plane).await;
        node.follow(&mut open, plane.head()).await;
        assert_eq!(digest(&node).as_deref(), Some("TmdhvSGtQREt"));
        assert_eq!(
            value(world, "meta/format").await,
            Counter { value: 2 }.encode_to_vec()
        );
    };
    let world = format_1().await;
    let pair = tokio::join!(
        world.start_on(Veil::interleaving(&world.store, 1)),
        world.start_on(Veil::interleaving(&world.store, 2))
    );
    check(&world, &pair.0).await;
    check(&world, &pair.1).await;
    // Secrets that the key-encryption key sealed itself do not outlive it.
    assert_eq!(sealing(&world).await.len(), 2);
    *world.next_kek.lock().unwrap() = Some([7; 32]);
    ok(pair.0.secrets().rotate_keyring(BOTH).await);
    assert_eq!(sealing(&world).await.len(), 1);
    // The key is checked before anything is written.
    let mut world = format_1().await;
    world.kek = [6; 32];
    let before = world.entries().await;
    assert!(
        start_fails(&world)
            .await
            .contains("put the right key file back")
    );
    assert_eq!(world.entries().await, before);
    for answer_lost in [false, true] {
        let world = format_1().await;
        let veil = Veil::crashing(&world.store, 0, answer_lost);
        assert!(world.build(veil).await.is_err());
        check(&world, &world.start().await).await;
    }
}

/// The fixture as a store.
pub(crate) async fn format_1() -> World {
    store_of(include_str!("../fixtures/format-1.txt")).await
}

/// A store with these keys and values.
pub(crate) async fn store_of(text: &str) -> World {
    let world = World::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (key, hex) = line.split_once(' ').unwrap();
        let digits = hex.as_bytes().chunks(2);
        let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16));
        put(&world, key, bytes.map(Result::unwrap).collect()).await;
    }
    world
}
