//! What administrators want of nodes and of logs: kept, told at once by every replica, and seen; and nodes that are cut off.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use prost::Message as _;
use proxyxai_control_plane::{
    store::{Op, Store as _, Txn},
    tls::Peer,
};
use proxyxai_core::{order::LogLevel, ports::LogControl};
use proxyxai_proto::{
    admin::v1::{
        GetLogLevelRequest, ListNodesRequest, NodeView, RemoveNodeRequest, ScheduleNodeRequest,
        SetLogLevelRequest,
    },
    config::v1::{
        self as proto, Hello, LogLevel as Level, Schedule, StreamRequest, Vitals,
        config_service_client::ConfigServiceClient, stream_request, stream_response::Message,
    },
    store::v1::Node as Joined,
    usage::v1::{
        Register, ReportRequest, report_request, usage_service_client::UsageServiceClient,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, server::Connected},
};

use crate::{
    harness::{PATIENCE, Plane, World, ok, refused},
    node::{Node, Open},
};

fn shared() -> World {
    let mut world = World::new();
    world.settings.shared_store = true;
    world
}

async fn schedule(plane: &Plane, id: &str, schedule: Schedule) {
    let request = ScheduleNodeRequest {
        id: id.to_owned(),
        schedule: schedule.into(),
    };
    ok(plane.nodes().schedule_node(request).await);
}

async fn seen(plane: &Plane, id: &str) -> NodeView {
    let listed = ok(plane.nodes().list_nodes(ListNodesRequest {}).await);
    let found = listed.nodes.into_iter().find(|node| node.id == id);
    found.unwrap()
}

/// Follows until something else is wanted of the node than before.
async fn told(node: &mut Node, open: &mut Open) -> proto::Order {
    let before = node.order;
    loop {
        let message = open.next().await.unwrap();
        node.apply(open, message);
        if let Some(order) = node.order.filter(|_| node.order != before) {
            return order;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_is_told_at_once_and_kept_through_restarts() {
    let world = shared();
    let (a, b) = (world.start().await, world.start().await);
    sleep(Duration::from_secs(1)).await;
    let mut node = Node::new("n");
    let mut open = node.connect(&b).await;
    let order = told(&mut node, &mut open).await;
    assert_eq!(order.schedule(), Schedule::Serve);
    for wanted in [Schedule::Cordon, Schedule::Drain, Schedule::Serve] {
        let begin = Instant::now();
        // Through one replica, to a node of the other.
        schedule(&a, "n", wanted).await;
        assert_eq!(told(&mut node, &mut open).await.schedule(), wanted);
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "not with the next bookmark"
        );
        assert_eq!(seen(&b, "n").await.schedule(), wanted);
    }
    schedule(&a, "n", Schedule::Cordon).await;
    drop((open, a, b));
    let again = world.start().await;
    assert_eq!(seen(&again, "n").await.schedule(), Schedule::Cordon);
    let mut node = Node::new("n");
    let mut open = node.connect(&again).await;
    assert_eq!(
        told(&mut node, &mut open).await.schedule(),
        Schedule::Cordon
    );
    let nobody = ScheduleNodeRequest {
        id: "nobody".into(),
        schedule: Schedule::Cordon.into(),
    };
    let answer = again.nodes().schedule_node(nobody).await;
    refused(answer, Code::NotFound, &["node `nobody`"]);
    for unknown in [0, 99] {
        let request = ScheduleNodeRequest {
            id: "n".into(),
            schedule: unknown,
        };
        let answer = again.nodes().schedule_node(request).await;
        refused(answer, Code::InvalidArgument, &["schedule"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_drained_when_it_says_that_nothing_is_left() {
    let plane = World::new().start().await;
    let mut node = Node::new("n");
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, 0).await;
    schedule(&plane, "n", Schedule::Drain).await;
    let empty = Vitals {
        schedule: Schedule::Drain.into(),
        ..Vitals::default()
    };
    let check = async |node: &mut Node, open: &Open, vitals: Vitals, drained: bool| {
        node.vitals = Some(vitals);
        node.ack(open).await;
        sleep(Duration::from_millis(10)).await;
        let view = seen(&plane, "n").await;
        assert_eq!(
            (view.drained, view.vitals),
            (drained, Some(vitals)),
            "{view:?}"
        );
    };
    assert!(!seen(&plane, "n").await.drained, "it said nothing yet");
    check(&mut node, &open, Vitals::default(), false).await;
    let busy = Vitals {
        open_requests: 3,
        ..empty
    };
    check(&mut node, &open, busy, false).await;
    let behind = Vitals {
        unreported_events: 1,
        ..empty
    };
    check(&mut node, &open, behind, false).await;
    check(&mut node, &open, empty, true).await;
    schedule(&plane, "n", Schedule::Serve).await;
    assert!(
        !seen(&plane, "n").await.drained,
        "it is not wanted any more"
    );
    schedule(&plane, "n", Schedule::Drain).await;
    assert!(seen(&plane, "n").await.drained);
    drop(open);
    sleep(Duration::from_secs(10)).await;
    assert!(
        !seen(&plane, "n").await.drained,
        "nobody knows what it does by now"
    );
}

/// A connection that showed the certificate of a node.
struct Shown(DuplexStream, Peer);

impl Connected for Shown {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.1.clone()
    }
}

impl AsyncRead for Shown {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Shown {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Clone)]
struct Certified(mpsc::UnboundedSender<io::Result<Shown>>, Peer);

impl tower::Service<http::Uri> for Certified {
    type Response = hyper_util::rt::TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (near, far) = duplex(64 * 1024);
        let sent = self.0.send(Ok(Shown(far, self.1.clone())));
        let near = hyper_util::rt::TokioIo::new(near);
        std::future::ready(sent.map(|()| near).map_err(io::Error::other))
    }
}

/// A way to a replica that shows the certificate of a node.
fn certified(plane: &Plane, node: &str) -> Channel {
    let (line, incoming) = mpsc::unbounded_channel();
    let serving = Arc::clone(&plane.plane);
    tokio::spawn(async move {
        let incoming = UnboundedReceiverStream::new(incoming);
        let _ends_with_the_test = serving.serve(incoming, CancellationToken::new()).await;
    });
    let peer = Peer {
        node: Some(node.into()),
    };
    Endpoint::from_static("http://control").connect_with_connector_lazy(Certified(line, peer))
}

/// The config stream of a node by its certificate, after its greeting.
async fn stream(
    channel: Channel,
    id: &str,
) -> Result<tonic::Streaming<proto::StreamResponse>, Status> {
    let hello = Hello {
        node_id: id.to_owned(),
        boot_id: "b".to_owned(),
        ..Hello::default()
    };
    let first = StreamRequest {
        message: Some(stream_request::Message::Hello(hello)),
    };
    let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
    let answers = ConfigServiceClient::new(channel).stream(requests).await?;
    let mut answers = answers.into_inner();
    let greeting = answers.message().await?.and_then(|first| first.message);
    assert!(matches!(greeting, Some(Message::ServerHello(_))));
    Ok(answers)
}

async fn ends<T>(messages: &mut tonic::Streaming<T>) -> Code {
    let end = async {
        loop {
            match messages.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Code::Ok,
                Err(status) => return status.code(),
            }
        }
    };
    timeout(PATIENCE, end).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_removed_by_force_is_cut_off_by_every_replica() {
    let world = shared();
    for id in ["stolen", "good"] {
        let row = Joined {
            joined_unix_ms: 1,
            ..Joined::default()
        };
        let txn = Txn {
            compares: Vec::new(),
            then: vec![Op::Put(format!("node/{id}"), row.encode_to_vec())],
        };
        world.store.txn(txn).await.unwrap();
    }
    let (a, b) = (world.start().await, world.start().await);
    sleep(Duration::from_secs(1)).await;
    let mut good = stream(certified(&b, "good"), "good").await.unwrap();
    let channels = [certified(&a, "stolen"), certified(&b, "stolen")];
    let mut streams = Vec::new();
    for channel in &channels {
        streams.push(stream(channel.clone(), "stolen").await.unwrap());
    }
    let register = report_request::Message::Register(Register {
        node_id: "stolen".into(),
        epoch: 1,
    });
    let first = ReportRequest {
        message: Some(register),
    };
    let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
    let mut reports = UsageServiceClient::new(channels[1].clone());
    let mut report = reports.report(requests).await.unwrap().into_inner();
    assert!(report.message().await.unwrap().is_some());

    let remove = |force| RemoveNodeRequest {
        id: "stolen".into(),
        force,
    };
    let answer = a.nodes().remove_node(remove(false)).await;
    refused(
        answer,
        Code::FailedPrecondition,
        &["has a stream", "drain", "by force"],
    );
    let begin = Instant::now();
    assert!(ok(a.nodes().remove_node(remove(true)).await).had_stream);
    for messages in &mut streams {
        assert_eq!(ends(messages).await, Code::Unauthenticated);
    }
    assert_eq!(ends(&mut report).await, Code::Unauthenticated);
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    for channel in &channels {
        let again = stream(channel.clone(), "stolen").await;
        assert_eq!(again.err().unwrap().code(), Code::Unauthenticated);
    }
    let listed = ok(b.nodes().list_nodes(ListNodesRequest {}).await);
    let ids: Vec<&str> = listed.nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["good"]);
    assert!(good.message().await.unwrap().is_some(), "others go on");
    let answer = a.nodes().remove_node(remove(true)).await;
    refused(answer, Code::NotFound, &["node `stolen`"]);

    // Its marks are dropped, those of others stay, and nothing is booked again, whoever brings it.
    let marks = ["usage/mark/stolen/1", "usage/mark/good/1"];
    let txn = Txn {
        compares: Vec::new(),
        then: marks.map(|key| Op::Put(key.into(), Vec::new())).to_vec(),
    };
    world.store.txn(txn).await.unwrap();
    let house = Arc::clone(&a.plane);
    tokio::spawn(async move { house.keep_house().await });
    sleep(Duration::from_secs(1)).await;
    let kept = async |key: &str| world.store.get(key).await.unwrap().is_some();
    assert!(!kept(marks[0]).await && kept(marks[1]).await);
    let register = report_request::Message::Register(Register {
        node_id: "stolen".into(),
        epoch: 1,
    });
    let first = ReportRequest {
        message: Some(register),
    };
    let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
    let mut reports = UsageServiceClient::new(certified(&b, "good"));
    // Not "unauthenticated": whoever brings it is let in, with usage of its own.
    let refused = reports.report(requests).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_certificate_is_not_cut_off() {
    let plane = World::new().start().await;
    let node = Node::new("inside");
    let _open = node.connect(&plane).await;
    let remove = RemoveNodeRequest {
        id: "inside".into(),
        force: true,
    };
    let answer = plane.nodes().remove_node(remove).await;
    refused(
        answer,
        Code::FailedPrecondition,
        &["no certificate", "stop it first"],
    );
}

/// Levels that a log was set to.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Option<LogLevel>>>>);

impl LogControl for Log {
    fn set(&self, level: Option<LogLevel>) {
        self.0.lock().unwrap().push(level);
    }
}

async fn level(plane: &Plane, node: &str, level: Level, seconds: u64) {
    let request = SetLogLevelRequest {
        node: node.to_owned(),
        level: level.into(),
        for_ms: seconds * 1_000,
    };
    ok(plane.logs().set_log_level(request).await);
}

#[tokio::test(start_paused = true)]
async fn levels_of_logs_are_set_for_a_while_on_all_replicas() {
    let world = shared();
    let (a, b) = (world.start().await, world.start().await);
    let logs = [Log::default(), Log::default()];
    for (plane, log) in [(&a, &logs[0]), (&b, &logs[1])] {
        let (plane, log) = (Arc::clone(&plane.plane), log.clone());
        tokio::spawn(async move { plane.keep_log(&log).await });
    }
    sleep(Duration::from_secs(1)).await;
    let were = |expected: &[Option<LogLevel>]| {
        for log in &logs {
            assert_eq!(*log.0.lock().unwrap(), expected);
        }
    };
    were(&[]);
    let debug = Some(LogLevel::Debug);
    level(&a, "", Level::Debug, 100).await;
    sleep(Duration::from_secs(90)).await;
    were(&[debug]);
    let shown = ok(b.logs().get_log_level(GetLogLevelRequest {}).await);
    assert_eq!(shown.level(), Level::Debug);
    assert!(shown.until_unix_ms > 0);
    sleep(Duration::from_secs(20)).await;
    were(&[debug, None]);
    let shown = ok(a.logs().get_log_level(GetLogLevelRequest {}).await);
    assert_eq!(
        (shown.level(), shown.until_unix_ms),
        (Level::Unspecified, 0)
    );
    // Without end, also for a replica that starts later; until it is taken back.
    level(&b, "", Level::Trace, 0).await;
    sleep(Duration::from_secs(500)).await;
    let c = world.start().await;
    let late = Log::default();
    let (plane, log) = (Arc::clone(&c.plane), late.clone());
    tokio::spawn(async move { plane.keep_log(&log).await });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*late.0.lock().unwrap(), [Some(LogLevel::Trace)]);
    level(&c, "", Level::Unspecified, 0).await;
    sleep(Duration::from_secs(1)).await;
    were(&[debug, None, Some(LogLevel::Trace), None]);
    let request = SetLogLevelRequest {
        level: 77,
        ..SetLogLevelRequest::default()
    };
    let answer = a.logs().set_log_level(request).await;
    refused(answer, Code::InvalidArgument, &["level"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_told_how_long_a_level_lasts() {
    let plane = World::new().start().await;
    let mut node = Node::new("n");
    let mut open = node.connect(&plane).await;
    told(&mut node, &mut open).await;
    level(&plane, "n", Level::Debug, 60).await;
    let order = told(&mut node, &mut open).await;
    assert_eq!(order.log_level(), Level::Debug);
    assert!(
        (59_000..=60_000).contains(&order.log_level_for_ms),
        "{order:?}"
    );
    let view = seen(&plane, "n").await;
    assert_eq!(view.log_level(), Level::Debug);
    assert!(view.log_level_until_unix_ms > 0);
    sleep(Duration::from_secs(61)).await;
    node.follow(&mut open, 0).await;
    while node.order.unwrap().log_level() == Level::Debug {
        told(&mut node, &mut open).await;
    }
    let view = seen(&plane, "n").await;
    assert_eq!(
        (view.log_level(), view.log_level_until_unix_ms),
        (Level::Unspecified, 0)
    );
}
