//! Providers, upstream keys and routes.

use proxyxai_proto::{
    admin::v1::{
        CreateProviderRequest, CreateRouteRequest, CreateUpstreamKeyRequest, DeleteProviderRequest,
        DeleteRouteRequest, DeleteUpstreamKeyRequest, ListRoutesRequest, ListUpstreamKeysRequest,
        RouteLevels, RouteView, StringList, UpdateRouteRequest, UpdateUpstreamKeyRequest,
        UpstreamKeyView, provider_service_server::ProviderService as _,
        route_service_server::RouteService as _,
        upstream_key_service_server::UpstreamKeyService as _,
    },
    config::v1::{ProviderKind, RouteLevel, SwitchOver},
};
use tonic::{Code, Status};

use super::{World, by_root, fields, refused, texts};

impl World {
    async fn provider(&self, id: &str) {
        let request = CreateProviderRequest {
            id: id.into(),
            kind: ProviderKind::Openai.into(),
            base_url: "https://api.openai.com".into(),
            ..CreateProviderRequest::default()
        };
        let made = self.providers.create_provider(by_root(request));
        made.await.unwrap();
    }

    async fn upstream_key(
        &self,
        request: CreateUpstreamKeyRequest,
    ) -> Result<UpstreamKeyView, Status> {
        let made = self.upstream_keys.create_upstream_key(by_root(request));
        Ok(made.await?.into_inner().upstream_key.unwrap())
    }

    async fn route(&self, request: CreateRouteRequest) -> Result<RouteView, Status> {
        let made = self.routes.create_route(by_root(request)).await?;
        Ok(made.into_inner().route.unwrap())
    }
}

fn key(id: &str) -> CreateUpstreamKeyRequest {
    CreateUpstreamKeyRequest {
        id: id.into(),
        provider_id: "one".into(),
        secret: format!("sk-{id}"),
        ..CreateUpstreamKeyRequest::default()
    }
}

fn route(id: &str, model: &str, provider: &str) -> CreateRouteRequest {
    CreateRouteRequest {
        id: id.into(),
        model: model.into(),
        provider_ids: texts(&[provider]),
        ..CreateRouteRequest::default()
    }
}

#[tokio::test]
async fn an_upstream_key_has_a_level_a_weight_and_models() {
    let world = World::new().await;
    world.provider("one").await;
    for (wrong, field) in [
        (
            CreateUpstreamKeyRequest {
                level: 11,
                ..key("a")
            },
            "level",
        ),
        (
            CreateUpstreamKeyRequest {
                weight: 101,
                ..key("a")
            },
            "weight",
        ),
        (
            CreateUpstreamKeyRequest {
                models: texts(&[""]),
                ..key("a")
            },
            "models",
        ),
        (
            CreateUpstreamKeyRequest {
                secret: "s k".into(),
                ..key("a")
            },
            "secret",
        ),
        (
            CreateUpstreamKeyRequest {
                provider_id: "x".into(),
                ..key("a")
            },
            "provider_id",
        ),
        (CreateUpstreamKeyRequest { ..key("A") }, "id"),
    ] {
        assert_eq!(fields(world.upstream_key(wrong).await), [field]);
    }
    let plain = world.upstream_key(key("a")).await.unwrap();
    assert_eq!((plain.level, plain.weight, plain.models.len()), (0, 1, 0));
    let update = |change: UpdateUpstreamKeyRequest| {
        let request = UpdateUpstreamKeyRequest {
            id: "a".into(),
            ..change
        };
        world.upstream_keys.update_upstream_key(by_root(request))
    };
    let changed = update(UpdateUpstreamKeyRequest {
        level: Some(3),
        weight: Some(7),
        models: Some(StringList {
            values: texts(&["gpt-*"]),
        }),
        resource_version: plain.resource_version,
        ..UpdateUpstreamKeyRequest::default()
    });
    let changed = changed.await.unwrap().into_inner().upstream_key.unwrap();
    assert_eq!(
        (changed.level, changed.weight, changed.models),
        (3, 7, texts(&["gpt-*"]))
    );
    assert_eq!(changed.fingerprint, plain.fingerprint, "the secret stays");
    let stale = UpdateUpstreamKeyRequest {
        level: Some(0),
        resource_version: plain.resource_version,
        ..UpdateUpstreamKeyRequest::default()
    };
    refused(
        update(stale).await,
        Code::Aborted,
        "the upstream key `a` was changed",
    );
    let high = UpdateUpstreamKeyRequest {
        level: Some(99),
        ..UpdateUpstreamKeyRequest::default()
    };
    refused(
        update(high).await,
        Code::InvalidArgument,
        "a level is 0 to 10, and 99 is not",
    );
    let off = UpdateUpstreamKeyRequest {
        disabled: Some(true),
        ..UpdateUpstreamKeyRequest::default()
    };
    update(off).await.unwrap();
    world.upstream_key(key("b")).await.unwrap();
    for (disabled, want) in [(None, 2), (Some(true), 1), (Some(false), 1)] {
        let request = ListUpstreamKeysRequest {
            disabled,
            ..ListUpstreamKeysRequest::default()
        };
        let page = world
            .upstream_keys
            .list_upstream_keys(by_root(request))
            .await
            .unwrap();
        assert_eq!(page.into_inner().upstream_keys.len(), want);
    }
}

#[tokio::test]
async fn law_21_a_repeated_creation_is_known_without_its_secret() {
    let world = World::new().await;
    world.provider("one").await;
    let once = |secret: &str| CreateUpstreamKeyRequest {
        id: String::new(),
        secret: secret.into(),
        idempotency_key: "k".into(),
        ..key("")
    };
    let first = world.upstream_key(once("sk-one")).await.unwrap();
    assert_eq!(world.upstream_key(once("sk-one")).await.unwrap(), first);
    assert_eq!(
        fields(world.upstream_key(once("sk-two")).await),
        ["idempotency_key"]
    );
    let delete = |resource_version| {
        world
            .upstream_keys
            .delete_upstream_key(by_root(DeleteUpstreamKeyRequest {
                id: first.id.clone(),
                resource_version,
            }))
    };
    refused(delete(1).await, Code::Aborted, "read it again");
    delete(first.resource_version).await.unwrap();
    // What it made is gone, so the same call makes another one.
    assert_ne!(
        world.upstream_key(once("sk-one")).await.unwrap().id,
        first.id
    );
}

#[tokio::test]
async fn a_route_has_levels_a_rule_and_another_name() {
    let world = World::new().await;
    for id in ["one", "two", "three"] {
        world.provider(id).await;
    }
    let levels = |all: &[&[&str]]| {
        let level = |ids: &&[&str]| RouteLevel {
            provider_ids: texts(ids),
        };
        all.iter().map(level).collect::<Vec<_>>()
    };
    let base = || route("r", "gpt-*", "one");
    for (wrong, field, want) in [
        (
            CreateRouteRequest {
                next_levels: levels(&[&["two"], &["nobody"]]),
                ..base()
            },
            "next_levels",
            "its provider `nobody` does not exist",
        ),
        (
            CreateRouteRequest {
                next_levels: levels(&[&[]]),
                ..base()
            },
            "next_levels",
            "it names no provider",
        ),
        (
            CreateRouteRequest {
                upstream_model: "*/*".into(),
                ..base()
            },
            "upstream_model",
            "it has 2 `*`, but the pattern of the route has 1",
        ),
        (
            CreateRouteRequest {
                switch_over: 9,
                ..base()
            },
            "switch_over",
            "not one that this version knows",
        ),
        (route("r", "", "one"), "model", "must not be empty"),
        (route("R", "m", "one"), "id", "lower-case"),
        (route("r", "m", "x"), "provider_ids", "does not exist"),
    ] {
        let refusal = world.route(wrong).await;
        assert_eq!(fields(refusal.clone()), [field]);
        refused(refusal, Code::InvalidArgument, want);
    }
    let made = CreateRouteRequest {
        next_levels: levels(&[&["two", "three"]]),
        upstream_model: "openai/gpt-*".into(),
        switch_over: SwitchOver::AnyFailure.into(),
        idempotency_key: "k".into(),
        ..base()
    };
    let first = world.route(made.clone()).await.unwrap();
    assert_eq!(world.route(made).await.unwrap(), first);
    refused(
        world.route(base()).await,
        Code::AlreadyExists,
        "exists already",
    );
    let update = |change: UpdateRouteRequest| {
        let request = UpdateRouteRequest {
            id: "r".into(),
            ..change
        };
        world.routes.update_route(by_root(request))
    };
    let changed = update(UpdateRouteRequest {
        upstream_model: Some(String::new()),
        next_levels: Some(RouteLevels {
            values: levels(&[&["three"], &["two"]]),
        }),
        resource_version: first.resource_version,
        ..UpdateRouteRequest::default()
    });
    let changed = changed.await.unwrap().into_inner().route.unwrap();
    let inner = changed.route.unwrap();
    assert_eq!(
        (inner.model.as_str(), inner.upstream_model.as_str()),
        ("gpt-*", "")
    );
    assert_eq!(
        (inner.next_levels.len(), inner.switch_over()),
        (2, SwitchOver::AnyFailure)
    );
    world.route(route("s", "m", "one")).await.unwrap();
    for (provider, want) in [("", 2), ("two", 1), ("one", 2), ("nobody", 0)] {
        let request = ListRoutesRequest {
            provider_id: provider.into(),
            ..ListRoutesRequest::default()
        };
        let page = world.routes.list_routes(by_root(request)).await.unwrap();
        assert_eq!(page.into_inner().routes.len(), want, "{provider}");
    }
    let delete = |id: &str| {
        world
            .providers
            .delete_provider(by_root(DeleteProviderRequest {
                id: id.into(),
                resource_version: 0,
            }))
    };
    refused(
        delete("two").await,
        Code::FailedPrecondition,
        "is named by the route `r`",
    );
    let gone = |resource_version| {
        world.routes.delete_route(by_root(DeleteRouteRequest {
            id: "r".into(),
            resource_version,
        }))
    };
    refused(
        gone(first.resource_version).await,
        Code::Aborted,
        "read it again",
    );
    gone(changed.resource_version).await.unwrap();
    delete("two").await.unwrap();
}
