//! The config stream: snapshots, deltas, bookmarks, acknowledgements, and its end.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use proxyxai_core::snapshot::Version;
use proxyxai_proto::config::v1::{Hello, StreamRequest, stream_response::Message};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tonic::Code;

use crate::{
    editor::{Dice, account, key, provider, random_edit, route_request, upstream_key},
    harness::{Plane, World, ok, refused},
    node::{Node, fresh, stream},
};

/// Edits at random while a node follows, whose stream is dropped now and then: what it holds is always what a fresh node gets.
async fn check_follower(seed: u64) {
    let world = World::new();
    let mut plane = world.start().await;
    let (mut dice, mut node) = (Dice::new(seed), Node::new("follower"));
    let mut open = node.connect(&plane).await;
    let (mut accepted, mut refusals) = (0, 0);
    for round in 0..20 {
        for _ in 0..dice.roll(8) {
            let before = plane.head();
            let raised = match random_edit(&plane, &mut dice).await {
                Ok(()) => 1,
                Err(status) => {
                    assert_ne!(status.code(), Code::Internal, "seed {seed}: {status}");
                    0
                }
            };
            assert_eq!(plane.head(), before + raised, "seed {seed}: law 9");
            accepted += raised;
            refusals += 1 - raised;
        }
        match dice.roll(4) {
            0 => {
                // The stream breaks, with messages under way or not.
                if dice.roll(2) == 0 {
                    let message = open.next().await.unwrap();
                    node.apply(&mut open, message);
                }
                drop(open);
                open = node.connect(&plane).await;
            }
            1 => {
                // The control plane starts again.
                let head = plane.head();
                drop(open);
                drop(plane);
                plane = world.start().await;
                assert_eq!(plane.head(), head, "seed {seed}: law 9, after a restart");
                open = node.connect(&plane).await;
            }
            2 => node.follow(&mut open, plane.head()).await,
            _ => {}
        }
        if round % 5 == 4 {
            node.follow(&mut open, plane.head()).await;
            let other = fresh(&plane).await;
            assert_eq!(node.version, other.version, "seed {seed}");
            assert_eq!(node.content.digest(), other.content.digest(), "seed {seed}");
            assert!(
                node.content == other.content,
                "seed {seed}: apply(diff(a, b), a) = b"
            );
        }
    }
    assert!(
        accepted > 20 && refusals > 5 && node.deltas > 0,
        "seed {seed}"
    );
}

#[tokio::test(start_paused = true)]
async fn law_9_a_follower_holds_what_a_fresh_node_gets() {
    for seed in 1..=5 {
        check_follower(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_holds_the_head_is_sent_no_snapshot() {
    let plane = World::new().start().await;
    let mut node = fresh(&plane).await;
    let mut open = node.connect(&plane).await;
    assert!(matches!(open.next().await, Some(Message::Bookmark(_))));
    account(&plane, "", "team").await;
    node.follow(&mut open, plane.head()).await;
    assert_eq!((node.snapshots, node.deltas), (1, 1));
    // With another digest of the same version it gets the whole.
    let mut liar = Node::new("liar");
    liar.version = node.version;
    let mut open = liar.connect(&plane).await;
    assert!(matches!(open.next().await, Some(Message::SnapshotBegin(_))));
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_in_their_interval_and_name_what_was_sent() {
    let plane = World::new().start().await;
    let mut node = Node::new("n");
    let mut open = node.connect(&plane).await;
    assert_eq!(open.greeting.bookmark_interval_ms, 2_000);
    assert_eq!(open.greeting.deployment_id, plane.plane.deployment_id());
    node.follow(&mut open, 0).await;
    let begin = Instant::now();
    for _ in 0..5 {
        node.follow(&mut open, 0).await;
    }
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_first_change_goes_out_at_once_and_those_after_it_together() {
    let plane = World::new().start().await;
    let mut node = fresh(&plane).await;
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, 0).await;
    let begin = Instant::now();
    for n in 0..20 {
        key(&plane, "", &format!("k{n}")).await;
    }
    let head = plane.head();
    while node.version.revision < head {
        let message = open.next().await.unwrap();
        node.apply(&mut open, message);
    }
    assert!((2..=3).contains(&node.deltas), "{} deltas", node.deltas);
    assert!(begin.elapsed() <= Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_hello() {
    let plane = World::new().start().await;
    let (to_plane, requests) = mpsc::channel(4);
    to_plane
        .send(StreamRequest { message: None })
        .await
        .unwrap();
    let hello = Hello::default();
    let answer = stream(&plane, requests, &to_plane, hello)
        .await
        .map(tonic::Response::new);
    refused(answer, Code::InvalidArgument, &["begins with Hello"]);
}

async fn settle() {
    sleep(Duration::from_millis(10)).await;
}

fn nodes(plane: &Plane) -> (u64, u64) {
    (
        plane.gauge("xai_nodes_connected "),
        plane.gauge("xai_nodes_current "),
    )
}

#[tokio::test(start_paused = true)]
async fn nodes_are_counted_by_their_streams_and_acknowledgements() {
    let plane = World::new().start().await;
    let (mut a, mut b) = (Node::new("a"), Node::new("b"));
    let (mut open_a, mut open_b) = (a.connect(&plane).await, b.connect(&plane).await);
    settle().await;
    assert_eq!(nodes(&plane), (2, 0));
    a.follow(&mut open_a, 0).await;
    a.ack(&open_a).await;
    settle().await;
    assert_eq!(nodes(&plane), (2, 1));
    account(&plane, "", "team").await;
    assert_eq!(nodes(&plane), (2, 0));
    b.follow(&mut open_b, plane.head()).await;
    b.ack(&open_b).await;
    settle().await;
    assert_eq!(nodes(&plane), (2, 1));
    // A node that comes back before its old stream is known to have ended stays connected.
    let again = b.connect(&plane).await;
    drop(open_b);
    settle().await;
    assert_eq!(nodes(&plane), (2, 1));
    drop((again, open_a));
    settle().await;
    assert_eq!(nodes(&plane).0, 0);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_node_is_logged_with_its_name_and_reason() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _until_the_end = tracing::subscriber::set_default(subscriber);
    let plane = World::new().start().await;
    let mut node = Node::new("edge-7");
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, 0).await;
    open.nack(Version::default(), "a route that it cannot read")
        .await;
    // It goes on being served.
    account(&plane, "", "team").await;
    node.follow(&mut open, plane.head()).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("ERROR")
            && text.contains("edge-7")
            && text.contains("a route that it cannot read"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn stop_ends_the_streams() {
    let plane = World::new().start().await;
    provider(&plane, "p").await;
    upstream_key(&plane, "u", "p").await;
    let mut node = Node::new("n");
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, 0).await;
    plane.plane.stop();
    while let Some(message) = open.next().await {
        assert!(matches!(message, Message::Bookmark(_) | Message::Drain(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_are_bounded_and_what_no_transaction_holds_is_refused() {
    let plane = World::new().start().await;
    let id = "p".repeat(63);
    provider(&plane, &id).await;
    for (route, names) in [("r1", 3_500), ("r2", 7_500), ("r3", 7_500), ("r4", 1)] {
        let request = route_request(route, "*", &vec![id.as_str(); names]);
        ok(plane.routes().create_route(request).await);
    }
    let head = plane.head();
    let request = route_request("r5", "*", &vec![id.as_str(); 20_000]);
    let answer = plane.routes().create_route(request).await;
    refused(
        answer,
        Code::ResourceExhausted,
        &["at most", "1048576 bytes"],
    );
    assert_eq!(plane.head(), head);
    assert_eq!(fresh(&plane).await.version.revision, head);
}

#[tokio::test(start_paused = true)]
async fn a_large_change_reaches_a_node_in_chunks() {
    let plane = World::new().start().await;
    let id = "p".repeat(63);
    provider(&plane, &id).await;
    let mut node = fresh(&plane).await;
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, 0).await;
    for n in 0..6 {
        let request = route_request(&format!("r{n}"), "*", &vec![id.as_str(); 7_500]);
        ok(plane.routes().create_route(request).await);
    }
    node.follow(&mut open, plane.head()).await;
    assert!(node.content == fresh(&plane).await.content);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_missed_many_changes_gets_several_deltas() {
    let plane = World::new().start().await;
    let mut node = fresh(&plane).await;
    let id = "p".repeat(63);
    provider(&plane, &id).await;
    for n in 0..40 {
        let request = route_request(&format!("r{n}"), "*", &vec![id.as_str(); 700]);
        ok(plane.routes().create_route(request).await);
    }
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, plane.head()).await;
    assert_eq!(node.snapshots, 1, "not everything again");
    assert!((2..=8).contains(&node.deltas), "{} deltas", node.deltas);
    let other = fresh(&plane).await;
    assert!(node.content == other.content && node.version == other.version);
}
