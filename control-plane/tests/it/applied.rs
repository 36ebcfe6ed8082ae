//! What administrators see of nodes, and waiting until a change is enforced.

use std::time::Duration;

use proxyxai_control_plane::store::{Op, Store as _, Txn};
use proxyxai_core::snapshot::Version;
use proxyxai_proto::admin::v1::{
    ListNodesRequest, ListNodesResponse, ListWithheldRequest, NodeState, RemoveNodeRequest,
    WaitAppliedRequest, WaitAppliedResponse,
};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    editor::{key, provider},
    harness::{Plane, World, ok, refused},
    node::{Node, Open},
};

async fn list(plane: &Plane) -> ListNodesResponse {
    ok(plane.nodes().list_nodes(ListNodesRequest {}).await)
}

async fn states(plane: &Plane) -> Vec<(String, NodeState)> {
    let nodes = list(plane).await.nodes.into_iter();
    nodes.map(|node| (node.id.clone(), node.state())).collect()
}

async fn wait(plane: &Plane, seconds: u32) -> WaitAppliedResponse {
    let request = WaitAppliedRequest {
        version: None,
        timeout_ms: seconds * 1_000,
    };
    ok(plane.nodes().wait_applied(request).await)
}

fn missing(answer: &WaitAppliedResponse) -> Vec<&str> {
    answer.missing.iter().map(|node| node.id.as_str()).collect()
}

/// Applies and acknowledges everything, for ever.
async fn obey(mut node: Node, mut open: Open, delay: Duration) {
    while let Some(message) = open.next().await {
        node.apply(&mut open, message);
        tokio::time::sleep(delay).await;
        node.ack(&open).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_every_live_node_enforces_the_change() {
    let plane = World::new().start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for (n, delay) in [10, 200, 700].into_iter().enumerate() {
        let node = Node::with_limit(&format!("n{n}"), if n == 1 { 0 } else { 1_000 });
        let open = node.connect(&plane).await;
        tasks.spawn(obey(node, open, Duration::from_millis(delay)));
    }
    assert!(missing(&wait(&plane, 30).await).is_empty());
    let begin = Instant::now();
    key(&plane, "", "k").await;
    let answer = wait(&plane, 30).await;
    assert!(
        missing(&answer).is_empty() && answer.applied == 3,
        "{answer:?}"
    );
    assert_eq!(answer.version.map(|v| v.revision), Some(plane.head()));
    assert!(
        begin.elapsed() >= Duration::from_millis(700),
        "the slowest one counts"
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
    let want = ["n0", "n1", "n2"].map(|id| (id.to_owned(), NodeState::Current));
    assert_eq!(states(&plane).await, want);
    let nodes = list(&plane).await.nodes;
    assert_eq!(
        nodes.iter().map(|node| node.keyed).collect::<Vec<_>>(),
        [false, true, false]
    );
    assert!(
        nodes
            .iter()
            .all(|node| node.digest_equal == Some(true) && node.connected)
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_names_who_does_not_follow() {
    let world = World::new();
    let plane = world.start().await;
    let mut deaf = Node::new("deaf");
    let mut open = deaf.connect(&plane).await;
    deaf.follow(&mut open, 0).await;
    deaf.ack(&open).await;
    provider(&plane, "p").await;
    let begin = Instant::now();
    let answer = wait(&plane, 3).await;
    assert_eq!(
        (missing(&answer), begin.elapsed().as_secs()),
        (vec!["deaf"], 3)
    );
    assert_eq!(states(&plane).await, [("deaf".into(), NodeState::Behind)]);
    // Once it is not live it is named without being waited for.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let begin = Instant::now();
    let answer = wait(&plane, 30).await;
    assert_eq!(
        (missing(&answer), begin.elapsed().as_secs()),
        (vec!["deaf"], 0)
    );
    assert_eq!(answer.missing[0].state(), NodeState::Silent);
    // A refusal is final, and said why.
    deaf.follow(&mut open, plane.head()).await;
    let here = deaf.version;
    open.nack(here, "not this one").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let answer = wait(&plane, 30).await;
    assert_eq!(
        (missing(&answer), answer.missing[0].state()),
        (vec!["deaf"], NodeState::Refused)
    );
    assert_eq!(answer.missing[0].refused_reasons, ["not this one"]);
    // While it has a stream it is not forgotten; after that, also by those who start later.
    let remove = || RemoveNodeRequest {
        id: "deaf".into(),
        force: false,
    };
    let answer = plane.nodes().remove_node(remove()).await;
    refused(answer, Code::FailedPrecondition, &["has a stream"]);
    drop(open);
    drop(plane);
    let plane = world.start().await;
    assert_eq!(states(&plane).await, [("deaf".into(), NodeState::Unknown)]);
    assert_eq!(missing(&wait(&plane, 30).await), ["deaf"]);
    ok(plane.nodes().remove_node(remove()).await);
    assert!(list(&plane).await.nodes.is_empty());
    let answer = plane.nodes().remove_node(remove()).await;
    refused(answer, Code::NotFound, &["node `deaf`"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_with_another_content_is_named() {
    let plane = World::new().start().await;
    let mut node = Node::new("odd");
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, 0).await;
    let version = node.version;
    node.content = proxyxai_core::snapshot::Content::default();
    node.ack(&open).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let answer = wait(&plane, 1).await;
    assert_eq!(missing(&answer), ["odd"]);
    assert_eq!(answer.missing[0].digest_equal, Some(false));
    assert_eq!(answer.missing[0].applied.map(Version::from), Some(version));
}

#[tokio::test(start_paused = true)]
async fn law_10_what_is_withheld_is_listed_by_page() {
    let world = World::new();
    let plane = world.start().await;
    let poison = (0..7).map(|n| Op::Put(format!("cfg/route/r{n}"), b"\xff".to_vec()));
    let txn = Txn {
        compares: Vec::new(),
        then: poison.collect(),
    };
    assert!(world.store.txn(txn).await.unwrap().succeeded);
    provider(&plane, "p").await;
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListWithheldRequest {
            page_size: 3,
            page_token,
        };
        let page = ok(plane.nodes().list_withheld(request).await);
        assert!(
            page.withheld
                .iter()
                .all(|one| !one.stand_in && !one.reason.is_empty())
        );
        names.extend(page.withheld.into_iter().map(|one| one.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let want: Vec<String> = (0..7).map(|n| format!("route/r{n}")).collect();
    assert_eq!(names, want);
    assert_eq!(plane.gauge("xai_config_withheld "), 7);
}
