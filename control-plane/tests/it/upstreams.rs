//! Providers, upstream keys and routes: what is made, changed and taken away, and every refusal with its code and its advice.

use proxyxai_proto::{
    admin::v1::{
        CreateProviderRequest, CreateUpstreamKeyRequest, DeleteProviderRequest, DeleteRouteRequest,
        DeleteUpstreamKeyRequest, GetProviderRequest, GetRouteRequest, GetUpstreamKeyRequest,
        ManagedBy, StringList, UpdateProviderRequest, UpdateRouteRequest, UpdateUpstreamKeyRequest,
    },
    config::v1::ProviderKind,
};
use tonic::Code;

use crate::{
    editor::{provider, provider_request, route_request, upstream_key, upstream_key_request},
    harness::{Plane, SECRET, World, ok, refused},
};

#[tokio::test(start_paused = true)]
async fn providers_are_made_changed_and_deleted() {
    let plane = World::new().start().await;
    let request = CreateProviderRequest {
        base_url: " HTTPS://API.Example.com:443/openai/v1/ ".into(),
        managed_by: ManagedBy::Env.into(),
        ..provider_request("openai")
    };
    let made = ok(plane.providers().create_provider(request).await)
        .provider
        .unwrap();
    assert_eq!(made.managed_by(), ManagedBy::Env);
    assert_eq!(
        made.provider.unwrap().base_url,
        "https://api.example.com/openai"
    );
    upstream_key(&plane, "k1", "openai").await;
    upstream_key(&plane, "k2", "openai").await;
    let off = UpdateUpstreamKeyRequest {
        id: "k2".into(),
        disabled: Some(true),
        secret: None,
        ..UpdateUpstreamKeyRequest::default()
    };
    ok(plane.upstream_keys().update_upstream_key(off).await);
    let request = UpdateProviderRequest {
        id: "openai".into(),
        kind: Some(ProviderKind::OpenaiCompatible.into()),
        base_url: Some("10.0.0.7:8080".into()),
        allow_private: Some(true),
        disabled: Some(true),
        ..UpdateProviderRequest::default()
    };
    let changed = ok(plane.providers().update_provider(request).await)
        .provider
        .unwrap();
    assert_eq!((changed.keys, changed.enabled_keys), (2, 1));
    let content = changed.provider.unwrap();
    assert_eq!(content.base_url, "https://10.0.0.7:8080");
    assert!(
        content.disabled
            && content.allow_private
            && content.kind() == ProviderKind::OpenaiCompatible
    );
    let closed = UpdateProviderRequest {
        id: "openai".into(),
        allow_private: Some(false),
        ..UpdateProviderRequest::default()
    };
    let closed = plane.providers().update_provider(closed).await;
    refused(
        closed,
        Code::InvalidArgument,
        &["private address", "allow private addresses"],
    );

    ok(plane
        .routes()
        .create_route(route_request("all", "*", &["openai"]))
        .await);
    let delete = || DeleteProviderRequest {
        id: "openai".into(),
        ..DeleteProviderRequest::default()
    };
    let answer = plane.providers().delete_provider(delete()).await;
    refused(
        answer,
        Code::FailedPrecondition,
        &["has 2 upstream keys", "delete those first"],
    );
    for id in ["k1", "k2"] {
        let id = id.into();
        ok(plane
            .upstream_keys()
            .delete_upstream_key(DeleteUpstreamKeyRequest {
                id,
                ..DeleteUpstreamKeyRequest::default()
            })
            .await);
    }
    let answer = plane.providers().delete_provider(delete()).await;
    refused(
        answer,
        Code::FailedPrecondition,
        &[
            "the provider `openai` is named by the route `all`",
            "change that first",
        ],
    );
    ok(plane
        .routes()
        .delete_route(DeleteRouteRequest {
            id: "all".into(),
            ..DeleteRouteRequest::default()
        })
        .await);
    ok(plane.providers().delete_provider(delete()).await);
    let get = GetProviderRequest {
        id: "openai".into(),
    };
    refused(
        plane.providers().get_provider(get).await,
        Code::NotFound,
        &["no provider `openai`"],
    );
    refused(
        plane.providers().delete_provider(delete()).await,
        Code::NotFound,
        &["no provider"],
    );
}

async fn check_provider(
    plane: &Plane,
    id: &str,
    kind: i32,
    base: &str,
    code: Code,
    words: &[&str],
) {
    let request = CreateProviderRequest {
        id: id.into(),
        kind,
        base_url: base.into(),
        ..CreateProviderRequest::default()
    };
    refused(
        plane.providers().create_provider(request).await,
        code,
        words,
    );
}

#[tokio::test(start_paused = true)]
async fn providers_that_do_not_fit_are_refused() {
    let plane = World::new().start().await;
    provider(&plane, "taken").await;
    let kind = ProviderKind::Openai.into();
    let head = plane.head();
    for id in [
        "",
        "Upper",
        "under_score",
        "-dash",
        "a/b",
        "ü",
        &"a".repeat(64),
    ] {
        check_provider(
            &plane,
            id,
            kind,
            "https://a.example",
            Code::InvalidArgument,
            &["an id has 1 to 63"],
        )
        .await;
    }
    check_provider(
        &plane,
        "taken",
        kind,
        "https://a.example",
        Code::AlreadyExists,
        &["exists already"],
    )
    .await;
    for kind in [0, 99] {
        check_provider(
            &plane,
            "a",
            kind,
            "https://a.example",
            Code::InvalidArgument,
            &["its kind"],
        )
        .await;
    }
    for base in [
        "",
        "ftp://a.example",
        "https://",
        "https://user@a.example",
        "https://a.example/?q",
        "a b",
        "https://a:0x50",
    ] {
        check_provider(
            &plane,
            "a",
            kind,
            base,
            Code::InvalidArgument,
            &["base_url: "],
        )
        .await;
    }
    for base in [
        "127.0.0.1",
        "http://10.1.2.3",
        "http://[::1]:80",
        "http://169.254.169.254",
        "http://[::ffff:10.0.0.1]",
    ] {
        check_provider(
            &plane,
            "a",
            kind,
            base,
            Code::InvalidArgument,
            &["private address", "allow private"],
        )
        .await;
    }
    assert_eq!(plane.head(), head);
}

#[tokio::test(start_paused = true)]
async fn law_21_upstream_keys_are_write_only() {
    let plane = World::new().start().await;
    provider(&plane, "openai").await;
    upstream_key(&plane, "k1", "openai").await;
    let generated = ok(plane
        .upstream_keys()
        .create_upstream_key(upstream_key_request("", "openai"))
        .await);
    let generated = generated.upstream_key.unwrap();
    assert!(generated.id.starts_with("uk-"));
    let get = |id: &str| GetUpstreamKeyRequest { id: id.into() };
    let before = ok(plane.upstream_keys().get_upstream_key(get("k1")).await)
        .upstream_key
        .unwrap();
    assert!(before.fingerprint.len() == 16 && before.fingerprint != generated.fingerprint);
    let update = |secret: Option<String>, disabled| UpdateUpstreamKeyRequest {
        id: "k1".into(),
        disabled,
        secret,
        ..UpdateUpstreamKeyRequest::default()
    };
    let off = ok(plane
        .upstream_keys()
        .update_upstream_key(update(None, Some(true)))
        .await)
    .upstream_key
    .unwrap();
    assert!(off.disabled && off.fingerprint == before.fingerprint);
    let padded = Some(format!(" {SECRET}other\n"));
    let other = ok(plane
        .upstream_keys()
        .update_upstream_key(update(padded, None))
        .await)
    .upstream_key
    .unwrap();
    assert!(other.disabled && other.fingerprint != before.fingerprint);
    let back = Some(format!("{SECRET}k1"));
    let back = ok(plane
        .upstream_keys()
        .update_upstream_key(update(back, None))
        .await)
    .upstream_key
    .unwrap();
    assert_eq!(back.fingerprint, before.fingerprint);

    let head = plane.head();
    let twice = plane
        .upstream_keys()
        .create_upstream_key(upstream_key_request("k1", "openai"))
        .await;
    refused(
        twice,
        Code::AlreadyExists,
        &["upstream key `k1` exists already"],
    );
    let orphan = plane
        .upstream_keys()
        .create_upstream_key(upstream_key_request("k3", "nobody"))
        .await;
    refused(
        orphan,
        Code::InvalidArgument,
        &["provider `nobody` does not exist"],
    );
    let bad_id = plane
        .upstream_keys()
        .create_upstream_key(upstream_key_request("K/3", "openai"))
        .await;
    refused(bad_id, Code::InvalidArgument, &["an id has"]);
    let long = format!("{SECRET}{}", "x".repeat(100_000));
    for (secret, words) in [
        ("", "is empty"),
        (" \n", "is empty"),
        ("sk-upstream-secret-\u{fc}", "cannot stand in a header"),
        ("sk-upstream-secret- b", "cannot stand in a header"),
        (long.as_str(), "at most 4096 bytes"),
    ] {
        let request = CreateUpstreamKeyRequest {
            secret: secret.into(),
            ..upstream_key_request("k3", "openai")
        };
        let answer = plane.upstream_keys().create_upstream_key(request).await;
        refused(answer, Code::InvalidArgument, &[words]);
        let answer = plane
            .upstream_keys()
            .update_upstream_key(update(Some(secret.into()), None))
            .await;
        refused(answer, Code::InvalidArgument, &[words]);
    }
    let unknown = plane.upstream_keys().get_upstream_key(get("nobody")).await;
    refused(unknown, Code::NotFound, &["no upstream key `nobody`"]);
    assert_eq!(plane.head(), head);
}

#[tokio::test(start_paused = true)]
async fn routes_are_made_changed_and_deleted() {
    let plane = World::new().start().await;
    provider(&plane, "a").await;
    provider(&plane, "b").await;
    ok(plane
        .routes()
        .create_route(route_request("r", "org/m:*", &["a"]))
        .await);
    let update = |model: Option<&str>, providers: Option<&[&str]>| UpdateRouteRequest {
        id: "r".into(),
        model: model.map(ToOwned::to_owned),
        provider_ids: providers.map(|ids| StringList {
            values: ids.iter().map(ToString::to_string).collect(),
        }),
        ..UpdateRouteRequest::default()
    };
    let changed = ok(plane
        .routes()
        .update_route(update(None, Some(&["b", "a"])))
        .await);
    let route = changed.route.unwrap().route.unwrap();
    assert_eq!(
        (route.model.as_str(), route.provider_ids),
        ("org/m:*", vec!["b".to_owned(), "a".to_owned()])
    );

    let head = plane.head();
    let long = "m".repeat(257);
    for (request, code, words) in [
        (
            route_request("r", "*", &["a"]),
            Code::AlreadyExists,
            "route `r` exists already",
        ),
        (
            route_request("R", "*", &["a"]),
            Code::InvalidArgument,
            "an id has",
        ),
        (
            route_request("s", "*", &[]),
            Code::InvalidArgument,
            "names no provider",
        ),
        (
            route_request("s", "*", &["a", "c"]),
            Code::InvalidArgument,
            "provider `c` does not exist",
        ),
        (
            route_request("s", "", &["a"]),
            Code::InvalidArgument,
            "must not be empty",
        ),
        (
            route_request("s", &long, &["a"]),
            Code::InvalidArgument,
            "at most 256 bytes",
        ),
    ] {
        refused(plane.routes().create_route(request).await, code, &[words]);
    }
    refused(
        plane.routes().update_route(update(Some(""), None)).await,
        Code::InvalidArgument,
        &["use `*`"],
    );
    refused(
        plane.routes().update_route(update(None, Some(&[]))).await,
        Code::InvalidArgument,
        &["names no provider"],
    );
    assert_eq!(plane.head(), head);
    ok(plane
        .routes()
        .delete_route(DeleteRouteRequest {
            id: "r".into(),
            ..DeleteRouteRequest::default()
        })
        .await);
    let get = plane
        .routes()
        .get_route(GetRouteRequest { id: "r".into() })
        .await;
    refused(get, Code::NotFound, &["no route `r`"]);
}
