//! Secrets at rest, and stores that a control plane must not start on.

use prost::Message as _;
use proxyxai_control_plane::{
    app::{FirstKey, StartError},
    store::{Op, Store as _, Txn},
};
use proxyxai_core::{
    account::key,
    secret::{ExposeSecret as _, seal::SealKey},
};
use proxyxai_proto::{admin::v1::DeleteKeyRequest, store::v1::Counter};

use crate::{
    editor::{key as new_key, provider, upstream_key},
    harness::{SECRET, World, ok, tells_a_secret},
    node::Node,
};

pub(crate) async fn put(world: &World, key: &str, value: Vec<u8>) {
    let txn = Txn {
        compares: Vec::new(),
        then: vec![Op::Put(key.into(), value)],
    };
    assert!(world.store.txn(txn).await.unwrap().succeeded);
}

pub(crate) async fn value(world: &World, key: &str) -> Vec<u8> {
    world.store.get(key).await.unwrap().unwrap().value
}

pub(crate) async fn start_fails(world: &World) -> String {
    let built = world.build(std::sync::Arc::new(world.store.clone())).await;
    let Err(error) = built else {
        panic!("it started")
    };
    let text = error.to_string();
    assert!(!tells_a_secret(text.as_bytes()));
    text
}

pub(crate) async fn with_secrets() -> World {
    let world = World::new();
    let plane = world.start().await;
    provider(&plane, "p").await;
    upstream_key(&plane, "u1", "p").await;
    upstream_key(&plane, "u2", "p").await;
    world
}

#[tokio::test(start_paused = true)]
async fn law_21_nothing_in_the_store_is_a_secret_in_plain() {
    let world = with_secrets().await;
    let plane = world.start().await;
    let (_, text) = new_key(&plane, "", "k").await;
    let open = Node::new("n").connect(&plane).await;
    let random_part = text.get(20..52).unwrap().as_bytes();
    let entries = world.entries().await;
    assert!(entries.len() > 10);
    for (key, value) in entries {
        for secret in [
            SECRET.as_bytes(),
            random_part,
            &open.greeting.pepper,
            &world.kek,
        ] {
            let found = value.windows(secret.len()).any(|window| window == secret);
            assert!(
                !found && !key.as_bytes().windows(secret.len()).any(|w| w == secret),
                "{key}"
            );
        }
    }
    let mut metrics = String::new();
    plane.plane.metrics(&mut metrics);
    assert!(!tells_a_secret(metrics.as_bytes()));
}

/// Starts, and tells what is withheld: bad rows stop nobody (law 10).
async fn withheld(world: &World) -> String {
    let plane = world.start().await;
    let request = proxyxai_proto::admin::v1::ListWithheldRequest::default();
    let listed = ok(plane.nodes().list_withheld(request).await).withheld;
    let lines = listed
        .iter()
        .map(|one| format!("cfg/{}: {}\n", one.name, one.reason));
    lines.collect()
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_moved_or_changed_is_withheld_by_name() {
    let advice = "restore the store from a backup";
    // A ciphertext under the name of another.
    let world = with_secrets().await;
    let (one, two) = ("cfg/upstream_key/u1", "cfg/upstream_key/u2");
    let mut other =
        proxyxai_proto::store::v1::StoredResource::decode(value(&world, two).await.as_slice())
            .unwrap();
    let mut moved = other.resource.take().unwrap();
    if let Some(proxyxai_proto::config::v1::resource::Kind::UpstreamKey(key)) = &mut moved.kind {
        key.id = "u1".into();
    }
    other.resource = Some(moved);
    put(&world, one, other.encode_to_vec()).await;
    let text = withheld(&world).await;
    assert!(
        text.contains(one) && text.contains("belong to another record") && text.contains(advice),
        "{text}"
    );
    assert!(!text.contains("defect"), "{text}");
    // One bit of it.
    let world = with_secrets().await;
    let sealed = value(&world, one).await;
    let magic = sealed.windows(4).position(|w| w == b"PXS1").unwrap();
    for offset in [60, 44, 12] {
        let mut flipped = sealed.clone();
        flipped[magic + offset] ^= 1;
        put(&world, one, flipped).await;
        let text = withheld(&world).await;
        assert!(
            text.contains(one) && text.contains("were changed") && text.contains(advice),
            "{text}"
        );
    }
    put(&world, one, sealed).await;
    // The pepper, and the key of the authority.
    for key in ["meta/pepper", "meta/authority"] {
        let right = value(&world, key).await;
        let mut flipped = right.clone();
        *flipped.last_mut().unwrap() ^= 1;
        put(&world, key, flipped).await;
        let text = start_fails(&world).await;
        assert!(text.contains(key) && text.contains(advice), "{text}");
        put(&world, key, right).await;
    }
    world.start().await;
}

#[tokio::test(start_paused = true)]
async fn law_10_a_value_that_cannot_be_read_is_withheld_by_name() {
    let world = with_secrets().await;
    put(&world, "cfg/provider/p", b"\xff\xff\xff".to_vec()).await;
    let text = withheld(&world).await;
    assert!(
        text.contains("cfg/provider/p") && !text.contains("defect"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_wrong_key_encryption_key_is_refused_and_both_are_named() {
    let mut world = with_secrets().await;
    let right = SealKey::new(world.kek).id().to_string();
    world.kek = [6; 32];
    let wrong = SealKey::new(world.kek).id().to_string();
    let built = world.build(std::sync::Arc::new(world.store.clone())).await;
    assert!(
        matches!(&built, Err(StartError::OtherKey { sealed_by, given }) if *sealed_by == right && *given == wrong)
    );
    let text = start_fails(&world).await;
    assert!(
        text.contains(&right)
            && text.contains(&wrong)
            && text.contains("put the right key file back"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_newer_format_is_refused_and_nothing_is_written() {
    let world = with_secrets().await;
    put(&world, "meta/format", Counter { value: 3 }.encode_to_vec()).await;
    let before = world.entries().await;
    let text = start_fails(&world).await;
    assert!(
        text.contains("format 3") && text.contains("reads format 2"),
        "{text}"
    );
    assert_eq!(world.entries().await, before);
}

#[tokio::test(start_paused = true)]
async fn the_deployment_stays_the_same_over_restarts() {
    let world = World::new();
    let first = world.start().await.plane.deployment_id().to_owned();
    let pepper = |plane: crate::harness::Plane| async move {
        Node::new("n").connect(&plane).await.greeting.pepper
    };
    let before = pepper(world.start().await).await;
    let entries = world.entries().await;
    let again = world.start().await;
    assert_eq!(again.plane.deployment_id(), first);
    assert_eq!(pepper(again).await, before);
    assert_eq!(world.entries().await, entries, "a start writes nothing");
}

#[tokio::test(start_paused = true)]
async fn the_first_key_is_made_once() {
    let world = World::new();
    let (one, two) = (key::generate([1; 64]), key::generate([2; 64]));
    let plane = world.start().await;
    assert_eq!(
        plane.plane.adopt_first_key(&one).await.unwrap(),
        FirstKey::Created
    );
    let exists = FirstKey::Exists { id: one.id.clone() };
    assert_eq!(plane.plane.adopt_first_key(&one).await.unwrap(), exists);
    drop(plane);
    let plane = world.start().await;
    assert_eq!(plane.plane.adopt_first_key(&two).await.unwrap(), exists);
    ok(plane
        .keys()
        .delete_key(DeleteKeyRequest {
            id: one.id.clone(),
            ..DeleteKeyRequest::default()
        })
        .await);
    for key in [&two, &one] {
        // Also not the deleted key itself: its file may still be there.
        assert_eq!(
            plane.plane.adopt_first_key(key).await.unwrap(),
            FirstKey::Gone
        );
    }
    assert!(world.entries().await.iter().all(|(_, value)| {
        let text = one.text.expose_secret().as_bytes();
        !value.windows(text.len()).any(|window| window == text)
    }));
}
