//! Look-ups of virtual keys by digest: what is there, what is not, and from which version on.

use proxyxai_core::account::key::Pepper;
use proxyxai_proto::{
    admin::v1::{DeleteKeyRequest, UpdateKeyRequest},
    config::v1::{ResolveKeysRequest, ResolvedKey, Version},
};
use tonic::Code;

use crate::{
    editor::{account, key},
    harness::{Plane, World, ok, refused},
    node::Node,
};

fn version(generation: u64, revision: u64) -> Version {
    Version {
        generation,
        revision,
    }
}

async fn look_up(plane: &Plane, digests: &[Vec<u8>]) -> Vec<ResolvedKey> {
    let request = ResolveKeysRequest {
        digests: digests.to_vec(),
        at_least: Some(version(1, plane.head())),
    };
    let answer = ok(plane.config().resolve_keys(request).await);
    assert_eq!(answer.as_of, Some(version(1, plane.head())));
    let of: Vec<Vec<u8>> = answer.keys.iter().map(|key| key.digest.clone()).collect();
    assert_eq!(of, digests, "in the order of the request");
    answer.keys
}

#[tokio::test(start_paused = true)]
async fn keys_are_found_by_digest_with_their_line_of_accounts_until_they_are_deleted() {
    let world = World::new();
    let plane = world.start().await;
    account(&plane, "", "a").await;
    account(&plane, "root/a", "b").await;
    let (made, text) = key(&plane, "root/a/b", "k").await;
    let open = Node::new("n").connect(&plane).await;
    let pepper = Pepper::new(open.greeting.pepper.as_slice().try_into().unwrap());
    let digest = pepper.digest(&text).0.to_vec();
    let strangers = [vec![0; 16], vec![1; 15], Vec::new(), vec![2; 1000]];

    let mut asked = strangers.to_vec();
    asked.insert(1, digest.clone());
    asked.push(digest.clone());
    let found = look_up(&plane, &asked).await;
    for (position, answer) in found.iter().enumerate() {
        if position == 1 || position == 5 {
            assert_eq!(answer.virtual_key.as_ref().unwrap().id, made.id);
            let names: Vec<&str> = answer.accounts.iter().map(|a| a.name.as_str()).collect();
            assert_eq!(names, ["b", "a", "root"], "leaf first");
        } else {
            assert!(answer.virtual_key.is_none() && answer.accounts.is_empty());
        }
    }
    let off = UpdateKeyRequest {
        id: made.id.clone(),
        name: None,
        disabled: Some(true),
        ..UpdateKeyRequest::default()
    };
    ok(plane.keys().update_key(off).await);
    let found = look_up(&plane, std::slice::from_ref(&digest)).await;
    assert!(found[0].virtual_key.as_ref().unwrap().disabled);

    ok(plane
        .keys()
        .delete_key(DeleteKeyRequest {
            id: made.id,
            ..DeleteKeyRequest::default()
        })
        .await);
    assert!(
        look_up(&plane, std::slice::from_ref(&digest)).await[0]
            .virtual_key
            .is_none()
    );
    drop(plane);
    let plane = world.start().await;
    assert!(
        look_up(&plane, &[digest]).await[0].virtual_key.is_none(),
        "after a restart"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_never_older_than_asked_for() {
    let plane = World::new().start().await;
    let head = plane.head();
    for (at_least, refusal) in [
        (None, false),
        (Some(version(1, head)), false),
        (Some(version(0, u64::MAX)), false),
        (Some(version(1, head + 1)), true),
        (Some(version(2, 0)), true),
    ] {
        let request = ResolveKeysRequest {
            digests: Vec::new(),
            at_least,
        };
        let answer = plane.config().resolve_keys(request).await;
        if refusal {
            refused(answer, Code::Unavailable, &["behind", "ask again"]);
        } else {
            assert_eq!(ok(answer).as_of, Some(version(1, head)));
        }
    }
}
