//! The two views of a node, what the keyed one is told to forget, and how nodes are sent away and let in.

use std::{sync::Arc, time::Duration};

use proxyxai_core::snapshot::{ResourceKind, Version};
use proxyxai_proto::{
    admin::v1::{DeleteKeyRequest, UpdateAccountRequest, UpdateKeyRequest},
    config::v1::{Hello, ResolveKeysRequest, stream_response::Message},
};
use tokio::{sync::mpsc, time::Instant};
use tonic::Code;

use crate::{
    editor::{account, key, provider, upstream_key},
    harness::{Plane, World, ok, refused},
    node::{Node, Open, fresh, stream},
};

/// Applies messages until the node was sent away.
async fn until_drained(node: &mut Node, open: &mut Open) -> String {
    loop {
        match open.next().await {
            Some(message) => node.apply(open, message),
            None => panic!("the stream ended without a word"),
        }
        if let Some(drain) = &node.drained {
            let reason = drain.reason.clone();
            assert!(open.next().await.is_none(), "nothing follows a drain");
            return reason;
        }
    }
}

fn names(node: &mut Node) -> Vec<(String, bool)> {
    node.forgot
        .drain(..)
        .map(|(name, revoked)| (name.to_string(), revoked))
        .collect()
}

async fn disable(plane: &Plane, id: &str, disabled: bool) {
    let request = UpdateKeyRequest {
        id: id.into(),
        disabled: Some(disabled),
        ..UpdateKeyRequest::default()
    };
    ok(plane.keys().update_key(request).await);
}

#[tokio::test(start_paused = true)]
async fn the_keyed_view_has_no_keys_and_is_told_at_once_what_to_forget() {
    let plane = World::new().start().await;
    let team = account(&plane, "", "team").await.account.unwrap();
    let (one, _) = key(&plane, &team.id, "one").await;
    let (two, _) = key(&plane, &team.id, "two").await;
    key(&plane, &team.id, "three").await;
    let mut node = Node::with_limit("keyed", 1);
    let mut open = node.connect(&plane).await;
    assert!(open.greeting.keyed && open.greeting.schema == 1);
    node.follow(&mut open, plane.head()).await;
    assert_eq!(
        node.revalidated, 1,
        "what it may hold from before is revalidated"
    );
    let kinds: Vec<ResourceKind> = node.content.iter().map(|(name, _)| name.kind).collect();
    assert_eq!(kinds, [ResourceKind::Account, ResourceKind::PriceTable]);
    // The digest is that of the view, on every node that has it.
    let mut other = Node::with_limit("other", 0);
    let mut open_other = other.connect(&plane).await;
    other.follow(&mut open_other, plane.head()).await;
    assert_eq!(node.content.digest(), other.content.digest());
    names(&mut node);
    // Within the time in which deltas are gathered, invalidations go out one by one.
    let begin = Instant::now();
    for disabled in [true, false, true] {
        disable(&plane, &one.id, disabled).await;
        let want = (format!("virtual_key `{}`", one.id), disabled);
        while node.forgot.is_empty() {
            let message = open.next().await.unwrap();
            node.apply(&mut open, message);
        }
        assert_eq!(names(&mut node), [want]);
        assert_eq!(node.forgotten.revision, plane.head());
    }
    assert!(
        begin.elapsed() < Duration::from_millis(100),
        "{:?}",
        begin.elapsed()
    );
    let suspend = UpdateAccountRequest {
        account: team.id.clone(),
        suspended: Some(true),
        ..UpdateAccountRequest::default()
    };
    ok(plane.accounts().update_account(suspend).await);
    ok(plane
        .keys()
        .delete_key(DeleteKeyRequest { id: two.id.clone() })
        .await);
    provider(&plane, "p").await;
    node.follow(&mut open, plane.head()).await;
    assert_eq!(
        names(&mut node),
        [
            (format!("account `{}`", team.id), true),
            (format!("virtual_key `{}`", two.id), true)
        ]
    );
    assert!(node.content.iter().any(|(name, _)| name.id == "p"));
    assert_eq!(node.snapshots, 1);
}

#[tokio::test(start_paused = true)]
async fn law_11_a_keyed_node_that_was_away_is_told_what_it_missed_or_that_it_missed_too_much() {
    let world = World::new();
    let plane = world.start().await;
    let (one, _) = key(&plane, "", "one").await;
    key(&plane, "", "two").await;
    let mut node = Node::with_limit("keyed", 1);
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, plane.head()).await;
    drop(open);
    disable(&plane, &one.id, true).await;
    disable(&plane, &one.id, false).await;
    provider(&plane, "p").await;
    names(&mut node);
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, plane.head()).await;
    assert_eq!(
        names(&mut node),
        [(format!("virtual_key `{}`", one.id), false)]
    );
    assert_eq!((node.revalidated, node.snapshots), (1, 1), "deltas only");
    drop(open);
    // Another replica saw the changes by its watch, and tells the same.
    let other = world.start().await;
    disable(&plane, &one.id, true).await;
    let mut open = node.connect(&other).await;
    node.follow(&mut open, plane.head()).await;
    assert_eq!(
        names(&mut node),
        [(format!("virtual_key `{}`", one.id), true)]
    );
    drop(open);
    // One that starts now knows of nothing before.
    disable(&plane, &one.id, false).await;
    let late = world.start().await;
    let mut open = node.connect(&late).await;
    node.follow(&mut open, plane.head()).await;
    assert_eq!((names(&mut node), node.revalidated), (Vec::new(), 2));
    drop(open);
    // And after an hour the log has forgotten, too.
    tokio::time::sleep(Duration::from_secs(3_700)).await;
    disable(&plane, &one.id, true).await;
    disable(&plane, &one.id, false).await;
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, plane.head()).await;
    let told = names(&mut node);
    assert!(node.revalidated == 3 || told.len() == 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_changes_its_view_when_keys_cross_what_it_preloads() {
    let plane = World::new().start().await;
    let mut node = Node::with_limit("n", 10);
    let mut open = node.connect(&plane).await;
    assert!(!open.greeting.keyed);
    let mut ids = Vec::new();
    for n in 0..11 {
        ids.push(key(&plane, "", &format!("k{n}")).await.0.id);
    }
    let reason = until_drained(&mut node, &mut open).await;
    assert!(reason.contains("crossed"), "{reason}");
    // It comes back to the keyed view, holding nothing of the other one.
    let mut node = Node::with_limit("n", 10);
    let mut open = node.connect(&plane).await;
    assert!(open.greeting.keyed);
    node.follow(&mut open, plane.head()).await;
    // Not for every key around the limit.
    ok(plane
        .keys()
        .delete_key(DeleteKeyRequest { id: ids[0].clone() })
        .await);
    node.follow(&mut open, plane.head()).await;
    ok(plane
        .keys()
        .delete_key(DeleteKeyRequest { id: ids[1].clone() })
        .await);
    let reason = until_drained(&mut node, &mut open).await;
    assert!(reason.contains("crossed"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn law_9_a_replica_that_is_behind_a_node_sends_it_away() {
    let plane = World::new().start().await;
    let mut node = fresh(&plane).await;
    let here = node.version;
    node.version = Version {
        revision: here.revision + 1,
        ..here
    };
    let begin = Instant::now();
    let mut open = node.connect(&plane).await;
    let reason = until_drained(&mut node, &mut open).await;
    assert!(reason.contains("behind"), "{reason}");
    assert_eq!(begin.elapsed().as_secs(), 5);
    assert_eq!((node.snapshots, node.deltas), (1, 0));
    // It is served as soon as the replica catches up.
    node.drained = None;
    let mut open = node.connect(&plane).await;
    provider(&plane, "p").await;
    let message = loop {
        match open.next().await {
            Some(Message::Bookmark(bookmark)) => break Version::from(bookmark.head.unwrap()),
            Some(Message::SnapshotBegin(begin)) => {
                assert_eq!(Version::from(begin.version.unwrap()), node.version);
            }
            Some(Message::SnapshotChunk(_) | Message::SnapshotEnd(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(message, node.version);
}

#[tokio::test(start_paused = true)]
async fn look_ups_wait_for_the_version_that_the_node_has_processed() {
    let plane = World::new().start().await;
    let ask = |revision: u64| ResolveKeysRequest {
        digests: vec![vec![1; 16]],
        at_least: Some(
            Version {
                generation: 1,
                revision,
            }
            .into(),
        ),
    };
    let head = plane.head();
    let answer = ok(plane.config().resolve_keys(ask(head)).await);
    assert_eq!(Version::from(answer.as_of.unwrap()).revision, head);
    let begin = Instant::now();
    let answer = plane.config().resolve_keys(ask(head + 1)).await;
    refused(answer, Code::Unavailable, &["behind", "ask again"]);
    assert_eq!(begin.elapsed().as_millis(), 500);
    let mut config = plane.config();
    let waiting = tokio::spawn(async move { config.resolve_keys(ask(head + 1)).await });
    provider(&plane, "p").await;
    let answer = ok(waiting.await.unwrap());
    assert_eq!(Version::from(answer.as_of.unwrap()).revision, head + 1);
}

#[tokio::test(start_paused = true)]
async fn schemas_that_do_not_meet_are_refused_in_words() {
    let plane = World::new().start().await;
    let hello = |schema_min: u32, schema_max: u32| Hello {
        node_id: "n".into(),
        schema_min,
        schema_max,
        preload_max: 9,
        ..Hello::default()
    };
    for (min, max, accepted) in [(0, 0, true), (1, 1, true), (1, 9, true), (2, 9, false)] {
        let (to_plane, requests) = mpsc::channel(4);
        let answer = stream(&plane, requests, &to_plane, hello(min, max)).await;
        assert_eq!(answer.is_ok(), accepted, "{min} to {max}");
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert!(
                status.message().contains("schemas 2 to 9"),
                "{}",
                status.message()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_streams_at_once_are_refused_with_a_hint() {
    let plane = World::new().start().await;
    let (mut open, mut hints) = (Vec::new(), Vec::new());
    for n in 0..80 {
        let (to_plane, requests) = mpsc::channel(4);
        let hello = Hello {
            node_id: format!("n{n}"),
            ..Hello::default()
        };
        match stream(&plane, requests, &to_plane, hello).await {
            Ok(messages) => open.push((messages, to_plane)),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable);
                let hint = status.metadata().get("grpc-retry-pushback-ms").unwrap();
                hints.push(hint.to_str().unwrap().parse::<u64>().unwrap());
            }
        }
    }
    assert_eq!(open.len(), 50);
    assert_eq!(hints.first(), Some(&20));
    assert_eq!(hints.last(), Some(&600), "each at another moment");
    drop(open);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let node = Node::new("late");
    node.connect(&plane).await;
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_are_heard_while_changes_are_gathered() {
    let mut world = World::new();
    world.settings.debounce = Duration::from_secs(60);
    world.settings.bookmark_interval = Duration::from_secs(600);
    let plane = world.start().await;
    let mut node = Node::new("n");
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, 0).await;
    provider(&plane, "p").await;
    while node.version.revision < plane.head() {
        let message = open.next().await.unwrap();
        node.apply(&mut open, message);
    }
    let begin = Instant::now();
    upstream_key(&plane, "u", "p").await;
    node.ack(&open).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let nodes = ok(plane
        .nodes()
        .list_nodes(proxyxai_proto::admin::v1::ListNodesRequest {})
        .await)
    .nodes;
    assert_eq!(Version::from(nodes[0].applied.unwrap()), node.version);
    assert_eq!(node.version.revision + 1, plane.head());
    while node.version.revision < plane.head() {
        let message = open.next().await.unwrap();
        node.apply(&mut open, message);
    }
    assert_eq!(begin.elapsed().as_secs(), 60);
    let _kept: &Arc<_> = &plane.plane;
}
