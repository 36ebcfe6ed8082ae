//! What a node says of itself, and what it takes from control planes of other views and schemas.

use proxyxai_proto::config::v1::{Invalidate, Invalidation, ResourceKind, ResourceName};

use super::*;

fn names(of: &[(ResourceKind, &str)]) -> Vec<Invalidation> {
    let name = |(kind, id): &(ResourceKind, &str)| Invalidation {
        name: Some(ResourceName {
            kind: (*kind).into(),
            id: (*id).to_owned(),
        }),
        revoked: false,
    };
    of.iter().map(name).collect()
}

impl ConfigStream {
    /// What an acknowledgement says that the node noted.
    async fn noted(&mut self) -> u64 {
        let heard = self.heard().await;
        let stream_request::Message::Ack(ack) = heard else {
            panic!("expected an acknowledgement: {heard:?}")
        };
        ack.invalidated_through.unwrap().revision
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_says_what_it_reads_and_what_it_noted() {
    let mut plane = start();
    let (mut stream, hello) = plane.accept().await;
    assert_eq!(
        (hello.schema_min, hello.schema_max, hello.preload_max),
        (1, 1, 5)
    );
    assert_eq!(hello.program_version, env!("CARGO_PKG_VERSION"));
    assert_eq!(hello.invalidated_through, None);
    stream.greet(3).await;
    stream.snapshot(3, &sample::resources(&[])).await;
    assert_eq!(
        stream.noted().await,
        3,
        "a whole content is all that there is"
    );
    plane.line.cut();
    let (stream, hello) = plane.accept().await;
    assert_eq!(hello.invalidated_through, version(3));
    stream.greet_with(3, |hello| hello.schema = 2).await;
    let (mut stream, hello) = plane.accept().await;
    assert_eq!(
        hello.held,
        version(3),
        "a strange schema is no reason to start over"
    );
    stream.greet_with(3, |hello| hello.schema = 0).await;
    stream.bookmark(3).await;
    stream.acked(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_difference_that_comes_again_is_passed_over() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    stream.greet(3).await;
    let first = sample::resources(&["a"]);
    stream.snapshot(3, &first).await;
    stream.acked(3).await;
    let second = with(&first, key("k", 1));
    let third = with(&second, key("l", 2));
    stream.delta(3, 4, key("k", 1), &second).await;
    stream.acked(4).await;
    stream.delta(4, 5, key("l", 2), &third).await;
    stream.acked(5).await;
    stream.delta(3, 4, key("k", 1), &second).await;
    stream.acked(5).await;
    stream.delta(4, 5, key("l", 2), &third).await;
    stream.acked(5).await;
    let pinned = plane.config.current();
    assert_eq!(pinned.snapshot.digest, content(&third).digest());
    assert_eq!(pinned.snapshot.keys.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_keyed_view_notes_changes_beside_its_content() {
    let mut plane = start();
    let (mut stream, _) = plane.accept().await;
    stream.greet_with(3, |hello| hello.keyed = true).await;
    let content = sample::resources(&["a"]);
    stream.snapshot(3, &content).await;
    stream.acked(3).await;
    assert!(plane.config.current().keyed);
    let invalidate = |from: u64, to: u64, entries| {
        Message::Invalidate(Invalidate {
            from: version(from),
            to: version(to),
            entries,
        })
    };
    let entries = names(&[
        (ResourceKind::VirtualKey, "k1xxxxxxxxxx"),
        (ResourceKind::Account, "team"),
    ]);
    stream.say(invalidate(0, 7, entries)).await;
    assert_eq!(stream.noted().await, 7);
    stream
        .say(Message::Bookmark(Bookmark {
            head: version(9),
            invalidated_through: version(9),
            order: None,
        }))
        .await;
    assert_eq!(stream.noted().await, 9);
    assert_eq!(
        (plane.revision(), plane.config.state()),
        (3, NodeState::Current),
        "keys changed, and the content did not"
    );
    // Of many changes only the last message moves on; what the others name is of its version too.
    let name = proxyxai_core::snapshot::ResourceName {
        kind: proxyxai_core::snapshot::ResourceKind::VirtualKey,
        id: "k1xxxxxxxxxx".into(),
    };
    let many = names(&[(ResourceKind::VirtualKey, &name.id)]);
    stream.say(invalidate(9, 9, many)).await;
    stream.say(invalidate(9, 10, names(&[]))).await;
    assert_eq!(stream.noted().await, 10);
    let at = |revision| version(revision).unwrap().into();
    assert!(!plane.keys.admits(&name, at(9)) && plane.keys.admits(&name, at(10)));
    plane.line.cut();
    let (stream, hello) = plane.accept().await;
    assert_eq!(hello.invalidated_through, version(10));
    stream.greet_with(10, |hello| hello.keyed = true).await;
    let unnamed = vec![Invalidation::default()];
    stream.say(invalidate(10, 11, unnamed)).await;
    let (_, hello) = plane.accept().await;
    assert_eq!(
        hello.held, None,
        "what cannot be understood is not passed over"
    );
}
