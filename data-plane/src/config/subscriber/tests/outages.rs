//! Control planes that die, send nodes away, or stay away.

use proxyxai_core::order::Schedule;
use proxyxai_proto::config::v1::Drain;
use tokio::time::Instant;

use super::*;

/// How long the node of a test serves by its own setting.
const LIMIT: Duration = Duration::from_secs(600);

impl ConfigStream {
    async fn drain(&self, after_ms: u32) {
        self.say(Message::Drain(Drain {
            reconnect_after_ms: after_ms,
            reason: "leaving".into(),
        }))
        .await;
    }
}

/// A node, and two control planes that hold the same.
async fn two() -> (Plane, [Line; 2], [mpsc::UnboundedReceiver<ConfigStream>; 2]) {
    let lines = [Line::default(), Line::default()];
    let mut streams = [&lines[0], &lines[1]].map(|line| config_plane(line).0);
    let plane = start_at(&[&lines[0], &lines[1]], unstarted());
    let (mut stream, _) = accept(&mut streams[0]).await;
    stream.greet(3).await;
    stream.snapshot(3, &sample::resources(&["a"])).await;
    stream.acked(3).await;
    (plane, lines, streams)
}

#[tokio::test(start_paused = true)]
async fn a_node_moves_on_when_its_control_plane_dies() {
    let (plane, lines, mut streams) = two().await;
    let mut kept = None;
    lines[0].set_down(&mut kept, true);
    lines[0].cut();
    let (mut stream, hello) = accept(&mut streams[1]).await;
    assert_eq!(hello.held, version(3));
    stream.greet(4).await;
    let second = with(&sample::resources(&["a"]), key("k", 1));
    stream.delta(3, 4, key("k", 1), &second).await;
    stream.acked(4).await;
    assert_eq!(
        (plane.revision(), plane.config.state()),
        (4, NodeState::Current)
    );
    lines[0].set_down(&mut kept, false);
    for _ in 0..60 {
        stream.bookmark(4).await;
        stream.acked(4).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert!(
        streams[0].try_recv().is_err(),
        "the node stays where it is well"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_is_left_without_going_back() {
    let (plane, lines, mut streams) = two().await;
    lines[0].cut();
    let (stream, _) = accept(&mut streams[1]).await;
    stream.greet(2).await;
    stream
        .to_node
        .send(Err(Status::unavailable("behind; ask another one")))
        .await
        .unwrap();
    let (mut stream, hello) = accept(&mut streams[0]).await;
    assert_eq!((hello.held, plane.revision()), (version(3), 3));
    stream.greet(3).await;
    stream.bookmark(3).await;
    stream.acked(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_comes_back_when_it_was_asked_to_and_where() {
    let (_plane, lines, mut streams) = two().await;
    lines[0].cut();
    let (mut stream, _) = accept(&mut streams[1]).await;
    for wait in [20_000_u64, 7] {
        let mut busy = Status::unavailable("too many nodes come at once");
        let asked = wait.to_string().parse().unwrap();
        busy.metadata_mut().insert("grpc-retry-pushback-ms", asked);
        let (refused, wait) = (Instant::now(), Duration::from_millis(wait));
        stream.to_node.send(Err(busy)).await.unwrap();
        let (again, _) = accept(&mut streams[1]).await;
        let waited = refused.elapsed();
        // The timer counts whole milliseconds.
        let latest = wait + wait / 10 + Duration::from_millis(2);
        assert!(waited >= wait && waited <= latest, "{waited:?} of {wait:?}");
        stream = again;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_finishes_and_comes_back_elsewhere() {
    let lines = [Line::default(), Line::default()];
    let mut streams = [&lines[0], &lines[1]].map(|line| config_plane(line).0);
    let plane = start_at(&[&lines[0], &lines[1]], unstarted());
    let (mut stream, _) = accept(&mut streams[0]).await;
    stream.greet(3).await;
    stream.snapshot(3, &sample::resources(&["a"])).await;
    stream.acked(3).await;
    let drained = Instant::now();
    stream.drain(2_000).await;
    let second = with(&sample::resources(&["a"]), key("k", 1));
    stream.delta(3, 4, key("k", 1), &second).await;
    stream.acked(4).await;
    let (again, hello) = accept(&mut streams[1]).await;
    let took = drained.elapsed();
    assert!(
        took >= Duration::from_secs(2) && took <= Duration::from_secs(4),
        "the node came back after {took:?}"
    );
    assert_eq!((hello.held, plane.revision()), (version(4), 4));
    again.greet(4).await;
    // One that closes at once is not called again before its time.
    let drained = Instant::now();
    again.drain(5_000).await;
    drop(again);
    accept(&mut streams[0]).await;
    assert!(drained.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_sends_everybody_away_is_not_called_in_a_circle() {
    let mut plane = start();
    let begun = Instant::now();
    for _ in 0..20 {
        let (stream, _) = plane.accept().await;
        stream.greet(3).await;
        stream.drain(0).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_900));
}

#[tokio::test(start_paused = true)]
async fn a_node_without_its_control_plane_becomes_stale_and_then_expires() {
    let line = Line::default();
    let mut plane = start_at(
        &[&line],
        Plane {
            line: line.clone(),
            streams: config_plane(&line).0,
            config: ConfigHandle::new(LIMIT),
            ..unstarted()
        },
    );
    let (mut stream, _) = plane.accept().await;
    stream.greet(3).await;
    stream.snapshot(3, &sample::resources(&["a"])).await;
    stream.acked(3).await;
    let state = |plane: &Plane| (plane.config.state(), plane.config.is_ready());
    plane.line.set_down(&mut None, true);
    plane.line.cut();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(state(&plane), (NodeState::Stale, true));
    sleep(LIMIT.saturating_sub(Duration::from_secs(5))).await;
    assert_eq!(state(&plane), (NodeState::Stale, true));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(state(&plane), (NodeState::Expired, false));
    assert!(plane.config.age().unwrap() >= LIMIT);
    let counters = plane.config.counters();
    assert_eq!(counters.went_expired.load(Ordering::Relaxed), 1);
    assert_eq!(counters.went_stale.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_control_plane_says_how_old_a_configuration_may_become_and_a_bookmark_ends_it() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    stream
        .greet_with(3, |hello| hello.max_stale_seconds = 60)
        .await;
    stream.snapshot(3, &sample::resources(&["a"])).await;
    stream.acked(3).await;
    // Another head is no proof: the node is behind, whatever comes.
    for _ in 0..30 {
        sleep(Duration::from_secs(2)).await;
        stream.bookmark(4).await;
        stream.acked(3).await;
    }
    assert_eq!(plane.config.state(), NodeState::Expired);
    let second = with(&sample::resources(&["a"]), key("k", 1));
    stream.delta(3, 4, key("k", 1), &second).await;
    stream.acked(4).await;
    assert_eq!(
        (plane.config.state(), plane.config.is_ready()),
        (NodeState::Current, true)
    );
    assert_eq!(plane.config.age(), Some(Duration::ZERO));
    let holding = plane.holding.borrow().clone().unwrap();
    assert_eq!(holding.pinned.snapshot.version.revision, 4);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_changes_on_an_open_stream_is_in_force_with_the_version_it_came_with() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    stream
        .greet_with(3, |hello| hello.max_stale_seconds = 600)
        .await;
    let resources = sample::resources(&["a"]);
    stream.snapshot(3, &resources).await;
    stream.acked(3).await;
    assert_eq!(plane.config.max_stale(), Duration::from_secs(600));
    let settings = proto::NodeSettings {
        max_stale_seconds: 60,
    };
    stream.say(Message::NodeSettings(settings)).await;
    // Nothing else changed, so the content stays.
    let step = proto::Delta {
        from: version(3),
        to: version(4),
        digest: content(&resources).digest().0.to_vec(),
        ..proto::Delta::default()
    };
    stream.say(Message::Delta(step)).await;
    stream.acked(4).await;
    assert_eq!(plane.config.max_stale(), Duration::from_secs(60));
    assert_eq!(
        plane.config.ask(Freshness::named_limit),
        Some(Duration::from_secs(60)),
        "as it goes into the disk copy"
    );
    plane.line.set_down(&mut None, true);
    plane.line.cut();
    sleep(Duration::from_secs(59)).await;
    assert_eq!(plane.config.state(), NodeState::Stale);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(plane.config.state(), NodeState::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_node_does_what_bookmarks_say_and_goes_on_so_in_an_outage() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    stream.greet(3).await;
    stream.snapshot(3, &sample::resources(&["a"])).await;
    stream.acked(3).await;
    let told = |schedule: Option<proto::Schedule>| {
        let order = schedule.map(|schedule| proto::Order {
            schedule: schedule.into(),
            ..proto::Order::default()
        });
        Message::Bookmark(Bookmark {
            head: version(3),
            order,
            ..Bookmark::default()
        })
    };
    let says = async |stream: &mut ConfigStream| {
        let heard = stream.heard().await;
        let stream_request::Message::Ack(ack) = heard else {
            panic!("{heard:?}")
        };
        ack.vitals.unwrap().schedule()
    };
    stream.say(told(None)).await;
    assert_eq!(says(&mut stream).await, proto::Schedule::Serve);
    stream.say(told(Some(proto::Schedule::Drain))).await;
    assert_eq!(says(&mut stream).await, proto::Schedule::Drain);
    stream.say(told(None)).await;
    assert_eq!(says(&mut stream).await, proto::Schedule::Drain);
    plane.line.cut();
    drop(stream);
    let (mut stream, _) = plane.accept().await;
    assert_eq!(plane.orders.schedule(), Schedule::Drain);
    stream.greet(3).await;
    stream.say(told(Some(proto::Schedule::Serve))).await;
    assert_eq!(says(&mut stream).await, proto::Schedule::Serve);
    assert_eq!(plane.orders.schedule(), Schedule::Serve);
}
