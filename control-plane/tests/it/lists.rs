//! Lists: pages in the order of ids, whatever is made or deleted between two of them.

use std::collections::BTreeSet;

use proxyxai_proto::admin::v1::{
    DeleteAccountRequest, ListAccountsRequest, ListKeysRequest, ListProvidersRequest,
    ListRoutesRequest, ListUpstreamKeysRequest,
};
use tonic::Code;

use crate::{
    editor::{account, key, provider, route_request, upstream_key},
    harness::{Plane, World, ok, refused},
};

async fn accounts(plane: &Plane, under: &str, size: u32, token: &str) -> (Vec<String>, String) {
    let request = ListAccountsRequest {
        under: under.into(),
        page_size: size,
        page_token: token.into(),
        ..ListAccountsRequest::default()
    };
    let page = ok(plane.accounts().list_accounts(request).await);
    let ids = page
        .accounts
        .into_iter()
        .map(|view| view.account.unwrap().id);
    (ids.collect(), page.next_page_token)
}

#[tokio::test(start_paused = true)]
async fn pages_hold_everything_once_also_when_what_the_token_names_is_deleted() {
    let plane = World::new().start().await;
    for n in 0..10 {
        account(&plane, "", &format!("a{n}")).await;
    }
    let (all, end) = accounts(&plane, "", 0, "").await;
    assert_eq!((all.len(), end.as_str()), (11, ""));
    assert!(all.is_sorted());
    for size in [1, 3, 10, 11, 12, u32::MAX] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let (ids, next) = accounts(&plane, "", size, &token).await;
            assert!(ids.len() <= usize::try_from(size).unwrap());
            seen.extend(ids);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(seen, all, "pages of {size}");
    }
    let (first, token) = accounts(&plane, "", 4, "").await;
    assert_eq!(first.last(), Some(&token));
    let delete = DeleteAccountRequest {
        account: token.clone(),
        ..DeleteAccountRequest::default()
    };
    ok(plane.accounts().delete_account(delete).await);
    let (rest, _) = accounts(&plane, "", 0, &token).await;
    assert_eq!(rest, all[4..]);
    assert_eq!(
        accounts(&plane, "", 0, "zzz").await,
        (Vec::new(), String::new())
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_has_a_hundred_unless_asked_otherwise_and_never_more_than_a_thousand() {
    let plane = World::new().start().await;
    for n in 0..1001 {
        key(&plane, "", &format!("k{n}")).await;
    }
    for (asked, want) in [(0, 100), (7, 7), (1000, 1000), (5000, 1000)] {
        let request = ListKeysRequest {
            page_size: asked,
            ..ListKeysRequest::default()
        };
        let page = ok(plane.keys().list_keys(request).await);
        assert_eq!(page.keys.len(), want);
        assert_eq!(page.next_page_token, page.keys.last().unwrap().id);
    }
}

#[tokio::test(start_paused = true)]
async fn lists_are_of_what_was_asked_for() {
    let plane = World::new().start().await;
    for path in ["a", "a/b", "a/b/c", "ab"] {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = format!("root/{parent}");
        account(&plane, parent.trim_end_matches('/'), name).await;
        key(
            &plane,
            &format!("root/{path}"),
            path.rsplit('/').next().unwrap(),
        )
        .await;
    }
    for (under, want) in [
        ("root/a", vec!["a", "b", "c"]),
        ("root/a/b", vec!["b", "c"]),
        ("root/ab", vec!["ab"]),
        ("", vec!["a", "ab", "b", "c"]),
    ] {
        let request = ListKeysRequest {
            under: under.into(),
            ..ListKeysRequest::default()
        };
        let keys = ok(plane.keys().list_keys(request).await).keys;
        let names: BTreeSet<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, want.into_iter().collect(), "under {under:?}");
    }
    assert_eq!(accounts(&plane, "root/a", 0, "").await.0.len(), 3);
    let unknown = ListAccountsRequest {
        under: "root/x".into(),
        ..ListAccountsRequest::default()
    };
    refused(
        plane.accounts().list_accounts(unknown).await,
        Code::NotFound,
        &["no account `root/x`"],
    );

    for id in ["p1", "p2", "p3"] {
        provider(&plane, id).await;
        upstream_key(&plane, &format!("{id}-key"), id).await;
        ok(plane
            .routes()
            .create_route(route_request(&format!("{id}-route"), "*", &[id]))
            .await);
    }
    let request = ListProvidersRequest {
        page_size: 2,
        page_token: "p1".into(),
        ..ListProvidersRequest::default()
    };
    let page = ok(plane.providers().list_providers(request).await);
    let ids: Vec<String> = page
        .providers
        .into_iter()
        .map(|view| view.provider.unwrap().id)
        .collect();
    assert_eq!(
        (ids, page.next_page_token.as_str()),
        (vec!["p2".to_owned(), "p3".to_owned()], "")
    );
    let request = ListUpstreamKeysRequest {
        provider_id: "p2".into(),
        ..ListUpstreamKeysRequest::default()
    };
    let keys = ok(plane.upstream_keys().list_upstream_keys(request).await).upstream_keys;
    assert_eq!(
        keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(),
        ["p2-key"]
    );
    let request = ListRoutesRequest {
        page_size: 1,
        page_token: String::new(),
        ..ListRoutesRequest::default()
    };
    let page = ok(plane.routes().list_routes(request).await);
    assert_eq!(
        (page.routes.len(), page.next_page_token.as_str()),
        (1, "p1-route")
    );
}
