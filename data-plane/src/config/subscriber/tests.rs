//! A node and a scripted control plane, message by message.

use proxyxai_core::{
    account::key::KeyDigest,
    dialect::Dialect,
    secret::seal::{SealKey, seal},
    snapshot::Content,
};
use proxyxai_proto::config::v1::{
    self as proto, Bookmark, Delta, ServerHello, SnapshotBegin, SnapshotChunk, SnapshotEnd,
    resource::Kind, stream_response::Message,
};

use super::*;
use crate::{
    config::{ControlPlanes, NodeState, sample},
    fakes::{ConfigStream, Line, Still, config_plane},
    orders::Load,
};

mod outages;
mod versions;

/// How long a test waits for the node.
const PATIENCE: Duration = Duration::from_secs(60);
const VIEW_KEY: [u8; 32] = [5; 32];

struct Plane {
    line: Line,
    streams: mpsc::UnboundedReceiver<ConfigStream>,
    config: ConfigHandle,
    keys: KeyResolver,
    shutdown: CancellationToken,
    holding: watch::Receiver<Option<Holding>>,
    orders: Orders,
}

fn start() -> Plane {
    let line = Line::default();
    let (streams, _) = config_plane(&line);
    start_at(
        &[&line],
        Plane {
            line: line.clone(),
            streams,
            ..unstarted()
        },
    )
}

/// A node that nobody started yet.
fn unstarted() -> Plane {
    let config = ConfigHandle::default();
    Plane {
        line: Line::default(),
        streams: mpsc::unbounded_channel().1,
        keys: KeyResolver::new(config.clone(), 1_000).0,
        config,
        shutdown: CancellationToken::new(),
        holding: watch::channel(None).1,
        orders: Orders::new(Load::default),
    }
}

/// Starts a node that knows these control planes.
fn start_at(lines: &[&Line], plane: Plane) -> Plane {
    let channels = lines.iter().map(|line| line.channel()).collect();
    let identity = Identity {
        node_id: "n".into(),
        boot_id: "b".into(),
    };
    let (subscriber, holding) = Subscriber::new(
        ControlPlanes::new(channels, &Still).unwrap(),
        identity,
        plane.config.clone(),
        plane.keys.clone(),
        plane.orders.clone(),
        5,
        Arc::new(Still),
    );
    tokio::spawn(subscriber.run(plane.shutdown.clone()));
    Plane { holding, ..plane }
}

fn version(revision: u64) -> Option<proto::Version> {
    Some(proto::Version {
        generation: 1,
        revision,
    })
}

fn content(resources: &[proto::Resource]) -> Content {
    resources.iter().cloned().map(Arc::new).collect()
}

/// As it goes over the wire.
fn sealed(resources: &[proto::Resource], key: [u8; 32]) -> Vec<proto::Resource> {
    let mut resources = resources.to_vec();
    for resource in &mut resources {
        if let Some(Kind::UpstreamKey(upstream)) = &mut resource.kind {
            let place = format!("view/{}", upstream.id);
            upstream.secret = seal(
                &SealKey::new(key),
                [1; 32],
                place.as_bytes(),
                &upstream.secret,
            )
            .unwrap();
        }
    }
    resources
}

/// The next stream to a control plane, and what its Hello says.
async fn accept(streams: &mut mpsc::UnboundedReceiver<ConfigStream>) -> (ConfigStream, Hello) {
    let mut stream = timeout(PATIENCE, streams.recv()).await.unwrap().unwrap();
    let first = stream.from_node.message().await.unwrap().unwrap();
    let Some(stream_request::Message::Hello(hello)) = first.message else {
        panic!("a stream begins with Hello")
    };
    (stream, hello)
}

impl Plane {
    /// The next stream, and what its Hello says that the node holds.
    async fn accept(&mut self) -> (ConfigStream, Hello) {
        accept(&mut self.streams).await
    }

    fn revision(&self) -> u64 {
        self.config.version().revision
    }
}

impl ConfigStream {
    async fn say(&self, message: Message) {
        self.to_node
            .send(Ok(StreamResponse {
                message: Some(message),
            }))
            .await
            .unwrap();
    }

    async fn greet(&self, head: u64) {
        self.greet_with(head, |_| {}).await;
    }

    async fn greet_with(&self, head: u64, change: impl FnOnce(&mut ServerHello)) {
        let mut hello = ServerHello {
            deployment_id: "d".into(),
            head: version(head),
            bookmark_interval_ms: 1_000,
            view_key: VIEW_KEY.to_vec(),
            pepper: vec![7; 32],
            schema: 1,
            ..ServerHello::default()
        };
        change(&mut hello);
        self.say(Message::ServerHello(hello)).await;
    }

    async fn bookmark(&self, head: u64) {
        self.say(Message::Bookmark(Bookmark {
            head: version(head),
            ..Bookmark::default()
        }))
        .await;
    }

    async fn snapshot(&self, revision: u64, resources: &[proto::Resource]) {
        let (begin, end) = resources.split_at(resources.len() / 2);
        let count = u64::try_from(resources.len()).unwrap();
        self.say(Message::SnapshotBegin(SnapshotBegin {
            version: version(revision),
            resources: count,
        }))
        .await;
        for half in [begin, end] {
            self.say(Message::SnapshotChunk(SnapshotChunk {
                resources: sealed(half, VIEW_KEY),
            }))
            .await;
        }
        let digest = content(resources).digest().0.to_vec();
        self.say(Message::SnapshotEnd(SnapshotEnd {
            version: version(revision),
            digest,
        }))
        .await;
    }

    async fn delta(&self, from: u64, to: u64, upsert: proto::Resource, all: &[proto::Resource]) {
        let delta = Delta {
            from: version(from),
            to: version(to),
            upserts: sealed(&[upsert], VIEW_KEY),
            removed: vec![],
            digest: content(all).digest().0.to_vec(),
        };
        self.say(Message::Delta(delta)).await;
    }

    async fn heard(&mut self) -> stream_request::Message {
        timeout(PATIENCE, self.from_node.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .message
            .unwrap()
    }

    async fn acked(&mut self, revision: u64) {
        let heard = self.heard().await;
        let stream_request::Message::Ack(ack) = heard else {
            panic!("expected an acknowledgement of {revision}: {heard:?}")
        };
        assert_eq!(ack.applied, version(revision));
    }

    async fn refused(&mut self) -> (u64, String) {
        let heard = self.heard().await;
        let stream_request::Message::Nack(nack) = heard else {
            panic!("expected a refusal: {heard:?}")
        };
        (
            nack.refused.unwrap().revision,
            nack.rejected[0].reason.clone(),
        )
    }
}

fn with(resources: &[proto::Resource], more: proto::Resource) -> Vec<proto::Resource> {
    [resources, &[more]].concat()
}

fn key(id: &str, digest: u8) -> proto::Resource {
    sample::resource(Kind::VirtualKey(sample::virtual_key(id, digest)))
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_and_its_differences_are_served_and_acknowledged() {
    let mut plane = start();
    assert_eq!(plane.config.state(), NodeState::Waiting);
    let (mut stream, hello) = plane.accept().await;
    assert_eq!((hello.held, hello.node_id.as_str()), (None, "n"));
    stream.greet(3).await;
    let first = sample::resources(&["a"]);
    stream.snapshot(3, &first).await;
    stream.acked(3).await;
    assert_eq!(
        (plane.revision(), plane.config.state()),
        (3, NodeState::Current)
    );
    let pinned = plane.config.current();
    assert_eq!(pinned.credentials[0].raw, "sk-upstream");
    let second = with(&first, key("k", 1));
    stream.delta(3, 4, key("k", 1), &second).await;
    stream.acked(4).await;
    assert!(
        plane
            .config
            .current()
            .snapshot
            .keys
            .get(&KeyDigest([1; 16]))
            .is_some()
    );
    assert!(
        pinned.snapshot.keys.is_empty(),
        "law 9: who pinned the old one sees the old one"
    );
    stream
        .say(Message::Bookmark(Bookmark {
            head: version(4),
            ..Bookmark::default()
        }))
        .await;
    stream.acked(4).await;
    plane.line.cut();
    let (_, hello) = plane.accept().await;
    assert_eq!(
        (hello.held, hello.held_digest),
        (version(4), content(&second).digest().0.to_vec())
    );
    plane.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_within_a_snapshot_changes_nothing() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    stream.greet(3).await;
    stream.snapshot(3, &sample::resources(&[])).await;
    stream.acked(3).await;
    plane.line.cut();
    let (stream, _) = plane.accept().await;
    stream.greet(5).await;
    stream
        .say(Message::SnapshotBegin(SnapshotBegin {
            version: version(5),
            resources: 9,
        }))
        .await;
    stream
        .say(Message::SnapshotChunk(SnapshotChunk {
            resources: vec![key("k", 1)],
        }))
        .await;
    plane.line.cut();
    let (mut stream, hello) = plane.accept().await;
    assert_eq!((hello.held, plane.revision()), (version(3), 3));
    assert!(plane.config.current().snapshot.keys.is_empty());
    stream.greet(5).await;
    stream.snapshot(5, &sample::resources(&["b"])).await;
    stream.acked(5).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_or_a_wrong_digest_asks_for_everything_anew() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    let all = sample::resources(&[]);
    stream.greet(3).await;
    stream.snapshot(3, &all).await;
    stream.acked(3).await;
    for (from, digest_of) in [(2, with(&all, key("k", 1))), (3, all.clone())] {
        stream.delta(from, 9, key("k", 1), &digest_of).await;
        let (again, hello) = plane.accept().await;
        assert_eq!((hello.held, plane.revision()), (None, 3));
        stream = again;
        stream.greet(9).await;
    }
    stream.snapshot(3, &all).await;
    stream.acked(3).await;
    stream.snapshot(9, &with(&all, key("k", 1))).await;
    stream.acked(9).await;
}

#[tokio::test(start_paused = true)]
async fn law_10_a_refused_configuration_leaves_the_old_one() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    let all = sample::resources(&["a"]);
    stream.greet(3).await;
    stream.snapshot(3, &all).await;
    stream.acked(3).await;
    let route = sample::resource(Kind::Route(proto::Route {
        id: "r".into(),
        model: "m".into(),
        provider_ids: vec!["none".into()],
        ..proto::Route::default()
    }));
    stream.delta(3, 4, route.clone(), &with(&all, route)).await;
    assert_eq!(
        stream.refused().await,
        (4, "its provider `none` does not exist".to_owned())
    );
    assert_eq!(
        (plane.revision(), plane.config.state()),
        (3, NodeState::Syncing)
    );
    let wrong = SnapshotChunk {
        resources: sealed(&[sample::upstream_key(b"sk-other")], [6; 32]),
    };
    stream
        .say(Message::SnapshotBegin(SnapshotBegin {
            version: version(5),
            resources: 1,
        }))
        .await;
    stream.say(Message::SnapshotChunk(wrong)).await;
    stream
        .say(Message::SnapshotEnd(SnapshotEnd {
            version: version(5),
            digest: vec![0; 32],
        }))
        .await;
    assert_eq!(stream.refused().await.0, 5);
    assert_eq!(plane.config.current().credentials[0].raw, "sk-upstream");
    assert_eq!(plane.config.counters().refused.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn law_9_an_older_configuration_is_passed_over() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    stream.greet(8).await;
    stream.snapshot(8, &sample::resources(&[])).await;
    stream.acked(8).await;
    stream.snapshot(7, &sample::resources(&["old"])).await;
    stream.acked(8).await;
    let pools = plane.config.current().snapshot.pools.len();
    assert_eq!(pools, Dialect::ALL.len(), "the default ones alone");
}

#[tokio::test(start_paused = true)]
async fn a_silent_control_plane_makes_a_node_stale_that_serves_on() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    stream.greet(3).await;
    stream.snapshot(3, &sample::resources(&[])).await;
    stream.acked(3).await;
    sleep(Duration::from_millis(2_900)).await;
    assert_eq!(plane.config.state(), NodeState::Current);
    stream
        .say(Message::Bookmark(Bookmark {
            head: version(3),
            ..Bookmark::default()
        }))
        .await;
    stream.acked(3).await;
    sleep(Duration::from_millis(2_900)).await;
    assert_eq!(
        plane.config.state(),
        NodeState::Current,
        "a bookmark makes it fresh for three intervals"
    );
    sleep(Duration::from_millis(200)).await;
    assert_eq!(
        (plane.config.state(), plane.config.is_ready()),
        (NodeState::Stale, true)
    );
    let (stream, hello) = plane.accept().await;
    assert_eq!(
        hello.held,
        version(3),
        "a silent stream is dropped for a new one"
    );
    stream.greet(3).await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(plane.config.state(), NodeState::Current);
}
