//! Manifests through the API: what is put in force comes out again, what cannot be is refused whole, and nobody gets by a file what they
//! would not get by single calls.

use proxyxai_core::manifest;
use proxyxai_proto::{
    admin::v1::{
        ApplyManifestRequest, ApplyManifestResponse, ChangeAction, CreateAccountRequest,
        CreateCredentialRequest, CreateKeyRequest, GetManifestRequest, ListAuditRecordsRequest,
        Manifest, ManifestAccount, ManifestKey, ManifestObject, ManifestPriceTable,
        ManifestProvider, ManifestRoute, ManifestUpstreamKey, QueryChangesRequest,
        QueryChangesResponse, Role, UpdateProviderRequest, manifest_object::Kind,
    },
    config::v1::{ProviderKind, RouteLevel, SwitchOver},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    audit::{records, verify},
    gateway::{ADMIN, BEGIN, Gateway, Hand},
};

const SECRET: &str = "sk-upstream-of-a-manifest";

pub(crate) fn object(kind: Kind) -> ManifestObject {
    ManifestObject { kind: Some(kind) }
}

pub(crate) fn account(path: &str, models: &[&str]) -> ManifestObject {
    object(Kind::Account(ManifestAccount {
        path: path.into(),
        allowed_models: models.iter().map(ToString::to_string).collect(),
        ..ManifestAccount::default()
    }))
}

pub(crate) fn key(account: &str, name: &str) -> ManifestObject {
    object(Kind::Key(ManifestKey {
        account: account.into(),
        name: name.into(),
        ..ManifestKey::default()
    }))
}

pub(crate) fn provider(id: &str) -> ManifestObject {
    object(Kind::Provider(ManifestProvider {
        id: id.into(),
        kind: ProviderKind::Openai.into(),
        base_url: format!("https://{id}.example"),
        ..ManifestProvider::default()
    }))
}

pub(crate) fn upstream_key(id: &str, provider: &str, secret: Option<&str>) -> ManifestObject {
    object(Kind::UpstreamKey(ManifestUpstreamKey {
        id: id.into(),
        provider_id: provider.into(),
        secret: secret.map(str::to_owned),
        ..ManifestUpstreamKey::default()
    }))
}

pub(crate) fn route(id: &str, model: &str, levels: &[&[&str]]) -> ManifestObject {
    let level = |ids: &&[&str]| RouteLevel {
        provider_ids: ids.iter().map(ToString::to_string).collect(),
    };
    object(Kind::Route(ManifestRoute {
        id: id.into(),
        model: model.into(),
        levels: levels.iter().map(level).collect(),
        ..ManifestRoute::default()
    }))
}

fn price_table(version: &str, active: bool) -> ManifestObject {
    let content = format!(
        r#"{{"version":"{version}","date":"2026-01-01","source":"a trial","families":{{}}}}"#
    );
    object(Kind::PriceTable(ManifestPriceTable {
        version: version.into(),
        active,
        content: Some(content.into_bytes()),
    }))
}

pub(crate) fn request(objects: &[ManifestObject], prune: bool) -> ApplyManifestRequest {
    ApplyManifestRequest {
        manifest: Some(Manifest {
            objects: objects.to_vec(),
            settings: None,
        }),
        prune,
        ..ApplyManifestRequest::default()
    }
}

pub(crate) async fn apply(
    hand: &Hand,
    objects: &[ManifestObject],
    prune: bool,
) -> Result<ApplyManifestResponse, Status> {
    let mut manifests = hand.manifests();
    let answer = manifests.apply_manifest(request(objects, prune)).await;
    answer.map(tonic::Response::into_inner)
}

pub(crate) async fn changes(
    hand: &Hand,
    objects: &[ManifestObject],
    prune: bool,
) -> Result<QueryChangesResponse, Status> {
    let ApplyManifestRequest { manifest, .. } = request(objects, prune);
    let query = QueryChangesRequest { manifest, prune };
    let mut manifests = hand.manifests();
    let answer = manifests.query_changes(query).await;
    answer.map(tonic::Response::into_inner)
}

pub(crate) async fn exported(hand: &Hand) -> Vec<ManifestObject> {
    let answer = hand.manifests().get_manifest(GetManifestRequest {}).await;
    answer.unwrap().into_inner().manifest.unwrap().objects
}

/// Something of every kind, out of order.
fn everything() -> Vec<ManifestObject> {
    let mut fallback = route("all", "gpt-*", &[&["one"], &["two"]]);
    if let Some(Kind::Route(route)) = &mut fallback.kind {
        route.switch_over = SwitchOver::AnyFailure.into();
    }
    let mut ending = key("root/team/app", "ending");
    if let Some(Kind::Key(key)) = &mut ending.kind {
        key.expires_unix_ms = BEGIN + 1_000_000;
        key.allowed_networks = vec!["192.0.2.0/24".into()];
        key.disabled = true;
    }
    let mut suspended = account("root/team/old", &[]);
    if let Some(Kind::Account(account)) = &mut suspended.kind {
        account.suspended = true;
    }
    let mut disabled = provider("two");
    if let Some(Kind::Provider(provider)) = &mut disabled.kind {
        provider.disabled = true;
    }
    vec![
        ending,
        fallback,
        upstream_key("main", "one", Some(SECRET)),
        account("root/team/app", &["gpt-4*"]),
        suspended,
        price_table("trial", true),
        disabled,
        account("root/team", &["gpt-*"]),
        key("root/team", "plain"),
        provider("one"),
    ]
}

#[tokio::test]
async fn a_manifest_is_put_in_force_whole_and_comes_out_again() {
    let gateway = Gateway::start(1).await;
    let root = gateway.with(ADMIN);
    let wanted = everything();
    let told = changes(&root, &wanted, false).await.unwrap().changes;
    assert_eq!(told.len(), wanted.len(), "{told:?}");
    let dry = ApplyManifestRequest {
        dry_run: true,
        ..request(&wanted, false)
    };
    let dry = root.manifests().apply_manifest(dry).await.unwrap();
    assert_eq!(dry.into_inner().changes, told);
    assert_eq!(records(&root, ListAuditRecordsRequest::default()).await, []);

    let done = apply(&root, &wanted, false).await.unwrap();
    assert_eq!(done.changes, told);
    let made: Vec<&str> = done
        .created_keys
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(made, ["ending", "plain"]);
    assert!(
        done.created_keys
            .iter()
            .all(|it| it.secret.starts_with("sk-pxai-"))
    );
    let left = changes(&root, &wanted, true).await.unwrap().changes;
    assert_eq!(left, [], "the same manifest is in force");
    let found = exported(&root).await;
    for object in &wanted {
        let name = manifest::named(object);
        let found = found.iter().find(|it| manifest::named(it) == name);
        let mut found = found
            .unwrap_or_else(|| panic!("{name:?} is not there"))
            .clone();
        let mut object = manifest::normal(object.clone());
        for one in [&mut found, &mut object] {
            if let Some(Kind::UpstreamKey(key)) = &mut one.kind {
                (key.secret, key.fingerprint) = (None, String::new());
            }
        }
        assert_eq!(found, object);
    }
    let again = apply(&root, &found, false).await.unwrap();
    assert_eq!(
        again,
        ApplyManifestResponse::default(),
        "what comes out changes nothing"
    );

    let all = records(&root, ListAuditRecordsRequest::default()).await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].action, "ApplyManifest");
    // The table that was in force went out of it.
    assert_eq!(all[0].changes.len(), wanted.len() + 1);
    let shown = format!("{all:?}{told:?}{:?}{found:?}", done.changes);
    assert!(
        !shown.contains(SECRET) && !shown.contains("sk-pxai-"),
        "{shown}"
    );
    assert_eq!(verify(&gateway).await.faults, []);
}

#[tokio::test]
async fn what_cannot_be_is_refused_whole_and_its_place_is_named() {
    let gateway = Gateway::start(2).await;
    let root = gateway.with(ADMIN);
    for _ in 0..2 {
        let create = CreateKeyRequest {
            name: "twin".into(),
            ..CreateKeyRequest::default()
        };
        root.keys().create_key(create).await.unwrap();
    }
    let before = exported(&root).await;
    let check = async |objects: &[ManifestObject], code: Code, place: &str, what: &str| {
        let mut objects = objects.to_vec();
        // What would do stands beside it, and is not done.
        objects.push(account("root/beside", &[]));
        let refusal = apply(&root, &objects, false).await.unwrap_err();
        let details = refusal.get_error_details();
        let found: Vec<&str> = details
            .bad_request()
            .map(|bad| {
                bad.field_violations
                    .iter()
                    .map(|it| it.field.as_str())
                    .collect()
            })
            .unwrap_or_default();
        assert_eq!((refusal.code(), found), (code, vec![place]), "{refusal:?}");
        assert!(
            refusal.message().contains(what),
            "{refusal:?} does not say {what}"
        );
        assert_eq!(exported(&root).await, before, "something was done");
    };
    let invalid = Code::InvalidArgument;
    let key_by_id = |id: &str| {
        let mut object = key("root", "twin");
        if let Some(Kind::Key(key)) = &mut object.kind {
            key.id = id.into();
        }
        object
    };
    check(
        &[account("team", &[])],
        invalid,
        "objects[0].path",
        "begins with",
    )
    .await;
    check(
        &[account("root/a/b", &[])],
        invalid,
        "objects[0].path",
        "no account `root/a`",
    )
    .await;
    check(
        &[account("root/a", &[]), account("root/a", &[])],
        invalid,
        "objects[1].path",
        "twice",
    )
    .await;
    check(
        &[account("root/a", &["gpt-*"]), account("root/a/b", &["o*"])],
        invalid,
        "objects[1].allowed_models",
        "o*",
    )
    .await;
    check(
        &[key("root/a", "k")],
        invalid,
        "objects[0].account",
        "root/a",
    )
    .await;
    check(&[key("root", "twin")], invalid, "objects[0].name", "2 keys").await;
    check(&[key_by_id("none")], invalid, "objects[0].id", "none").await;
    check(
        &[upstream_key("u", "p", None), provider("p")],
        invalid,
        "objects[0].secret",
        "new",
    )
    .await;
    check(
        &[upstream_key("u", "p", Some("s"))],
        invalid,
        "objects[0].provider_id",
        "`p`",
    )
    .await;
    check(
        &[route("r", "m", &[&["p"]])],
        invalid,
        "objects[0].levels",
        "`p`",
    )
    .await;
    check(
        &[route("r", "m", &[])],
        invalid,
        "objects[0].levels",
        "no provider",
    )
    .await;
    check(&[provider("Upper")], invalid, "objects[0].id", "lower-case").await;
    check(
        &[price_table("a", true), price_table("b", true)],
        invalid,
        "objects[1].active",
        "in force",
    )
    .await;
    let mut nothing = price_table("none", false);
    if let Some(Kind::PriceTable(table)) = &mut nothing.kind {
        table.content = None;
    }
    check(
        &[nothing],
        invalid,
        "objects[0].content",
        "content is needed",
    )
    .await;
    check(
        &[ManifestObject { kind: None }],
        invalid,
        "objects[0].kind",
        "kind",
    )
    .await;
    let mut out = before.clone();
    for object in &mut out {
        if let Some(Kind::PriceTable(table)) = &mut object.kind {
            table.active = false;
        }
    }
    let at = out
        .iter()
        .position(|it| matches!(it.kind, Some(Kind::PriceTable(_))))
        .unwrap();
    check(
        &out,
        invalid,
        &format!("objects[{at}].active"),
        "one must be",
    )
    .await;
}

#[tokio::test]
async fn prune_takes_away_what_an_apply_made_and_nothing_else() {
    let gateway = Gateway::start(3).await;
    let root = gateway.with(ADMIN);
    let create = CreateAccountRequest {
        name: "by-hand".into(),
        ..CreateAccountRequest::default()
    };
    root.accounts().create_account(create).await.unwrap();
    let before = exported(&root).await;
    let mut made = everything();
    made.retain(|it| !matches!(it.kind, Some(Kind::PriceTable(_))));
    apply(&root, &made, false).await.unwrap();
    // Changing what somebody else made does not make it the manifest's.
    let narrowed = account("root/by-hand", &["gpt-*"]);
    apply(&root, std::slice::from_ref(&narrowed), false)
        .await
        .unwrap();
    apply(&root, &[account("root/by-hand", &[])], false)
        .await
        .unwrap();

    let told = changes(&root, &[], true).await.unwrap().changes;
    assert!(
        told.iter().all(|it| it.action() == ChangeAction::Delete),
        "{told:?}"
    );
    assert_eq!(told.len(), made.len());
    assert_eq!(changes(&root, &[], false).await.unwrap().changes, []);
    // What is used by others stays, and everything with it.
    let create = CreateKeyRequest {
        account: "root/team/app".into(),
        name: "by hand".into(),
        ..CreateKeyRequest::default()
    };
    let hand_made = root.keys().create_key(create).await.unwrap().into_inner();
    let refusal = apply(&root, &[], true).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal:?}");
    let delete = proxyxai_proto::admin::v1::DeleteKeyRequest {
        id: hand_made.key.unwrap().id,
        resource_version: 0,
    };
    root.keys().delete_key(delete).await.unwrap();
    apply(&root, &[], true).await.unwrap();
    assert_eq!(exported(&root).await, before);
}

#[tokio::test]
async fn who_decided_on_another_configuration_is_refused() {
    let gateway = Gateway::start(4).await;
    let root = gateway.with(ADMIN);
    apply(&root, &[provider("one")], false).await.unwrap();
    let read = changes(&root, &[account("root/a", &[])], false)
        .await
        .unwrap();
    let update = UpdateProviderRequest {
        id: "one".into(),
        disabled: Some(true),
        ..UpdateProviderRequest::default()
    };
    root.providers().update_provider(update).await.unwrap();
    let stale = ApplyManifestRequest {
        expected: read.version,
        ..request(&[account("root/a", &[])], false)
    };
    let refusal = root.manifests().apply_manifest(stale).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Aborted, "{refusal:?}");
    let read = changes(&root, &[account("root/a", &[])], false)
        .await
        .unwrap();
    let current = ApplyManifestRequest {
        expected: read.version,
        ..request(&[account("root/a", &[])], false)
    };
    root.manifests().apply_manifest(current).await.unwrap();
}

#[tokio::test]
async fn roles_a_manifest_gives_nobody_more_than_single_calls_do() {
    let gateway = Gateway::start(5).await;
    let root = gateway.with(ADMIN);
    let tree = [
        account("root/team", &["gpt-*"]),
        account("root/other", &[]),
        key("root/other", "theirs"),
        provider("one"),
    ];
    apply(&root, &tree, false).await.unwrap();
    let credential = async |role: Role| {
        let create = CreateCredentialRequest {
            role: role.into(),
            account: "root/team".into(),
            name: "c".into(),
            expires_unix_ms: 0,
        };
        let made = root.credentials().create_credential(create).await.unwrap();
        gateway.with(&made.into_inner().secret)
    };
    let admin = credential(Role::Admin).await;
    let viewer = credential(Role::Viewer).await;
    let inside = [
        account("root/team/app", &["gpt-4*"]),
        key("root/team/app", "k"),
    ];
    for (hand, objects, code) in [
        (
            &admin,
            vec![account("root/team", &["*"])],
            Code::PermissionDenied,
        ),
        (
            &admin,
            vec![account("root/team/wide", &["o*"])],
            Code::InvalidArgument,
        ),
        (
            &admin,
            vec![account("root/beside", &[])],
            Code::InvalidArgument,
        ),
        (
            &admin,
            vec![account("root/other", &["gpt-*"])],
            Code::InvalidArgument,
        ),
        (
            &admin,
            vec![key("root/other", "theirs")],
            Code::InvalidArgument,
        ),
        (&admin, vec![provider("two")], Code::PermissionDenied),
        (&admin, vec![provider("one")], Code::PermissionDenied),
        (&viewer, inside.to_vec(), Code::PermissionDenied),
    ] {
        let before = exported(&root).await;
        let refusal = apply(hand, &objects, false).await.unwrap_err();
        assert_eq!(refusal.code(), code, "{objects:?}: {refusal:?}");
        assert_eq!(exported(&root).await, before);
    }
    // What is hidden and what is not there are refused in the same words.
    let hidden = apply(&admin, &[key("root/other", "k")], false)
        .await
        .unwrap_err();
    let absent = apply(&admin, &[key("root/otter", "k")], false)
        .await
        .unwrap_err();
    assert_eq!(hidden.message().replace("other", "otter"), absent.message());

    apply(&admin, &inside, false).await.unwrap();
    let seen = exported(&admin).await;
    assert_eq!(seen, exported(&viewer).await);
    let names: Vec<String> = seen
        .iter()
        .map(|it| manifest::named(it).unwrap().name)
        .collect();
    assert_eq!(names, ["root/team", "root/team/app", "root/team/app/k"]);
    let told = changes(&viewer, &[key("root/team", "more")], true)
        .await
        .unwrap()
        .changes;
    assert_eq!(told.len(), 3, "one more, two pruned: {told:?}");
    // Pruning reaches no further than the caller, and not the caller's own account.
    apply(&admin, &[], true).await.unwrap();
    let names: Vec<String> = exported(&root)
        .await
        .iter()
        .filter(|it| matches!(it.kind, Some(Kind::Account(_) | Kind::Key(_))))
        .map(|it| manifest::named(it).unwrap().name)
        .collect();
    assert_eq!(
        names,
        ["root", "root/other", "root/team", "root/other/theirs"]
    );
}
