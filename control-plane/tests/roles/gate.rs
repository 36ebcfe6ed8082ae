//! Who is let in at all, and what those who are not are told.

use proxyxai_core::secret::ExposeSecret as _;
use proxyxai_proto::{
    admin::v1::{
        CreateAccountRequest, CreateCredentialRequest, CreateCredentialResponse, CreateKeyRequest,
        ListKeysRequest, ListProvidersRequest, Role, RotateCredentialRequest, UpdateAccountRequest,
        UpdateCredentialRequest, WhoAmIRequest,
    },
    config::v1::ResolveKeysRequest,
};
use tonic::{Code, Status};

use crate::gateway::{ADMIN, BEGIN, Gateway, Hand};

const DAY: i64 = 86_400_000;

async fn account(root: &Hand, parent: &str, name: &str) -> String {
    let request = CreateAccountRequest {
        parent: parent.into(),
        name: name.into(),
        ..CreateAccountRequest::default()
    };
    let made = root.accounts().create_account(request).await.unwrap();
    made.into_inner().account.unwrap().account.unwrap().id
}

async fn credential(
    hand: &Hand,
    role: Role,
    account: &str,
    expires_unix_ms: i64,
) -> Result<CreateCredentialResponse, Status> {
    let request = CreateCredentialRequest {
        role: role.into(),
        account: account.into(),
        name: "somebody".into(),
        expires_unix_ms,
    };
    let made = hand.credentials().create_credential(request).await?;
    Ok(made.into_inner())
}

async fn is_let_in(gateway: &Gateway, secret: &str) -> Result<(), Status> {
    let mut credentials = gateway.with(secret).credentials();
    credentials.who_am_i(WhoAmIRequest {}).await.map(|_| ())
}

fn check(found: Result<(), Status>, code: Code, said: &str) {
    let (found_code, text) = match &found {
        Ok(()) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    };
    assert_eq!(found_code, code, "{text}");
    assert!(text.contains(said), "{text}\nlacks {said}");
}

#[tokio::test]
async fn who_shows_nothing_or_something_else_is_refused() {
    let gateway = Gateway::start(1).await;
    let root = gateway.with(ADMIN);
    let made = credential(&root, Role::Viewer, "root", 0).await.unwrap();
    let anonymous = gateway
        .anonymous()
        .credentials()
        .who_am_i(WhoAmIRequest {})
        .await;
    check(
        anonymous.map(|_| ()),
        Code::Unauthenticated,
        "admin-credential",
    );
    let other = made.secret.replace('a', "b");
    for wrong in [
        "x",
        "pxai-admin-of-the-test",
        "pxai-cred-",
        "pxai-cred-/../x-y",
        &other,
    ] {
        check(
            is_let_in(&gateway, wrong).await,
            Code::Unauthenticated,
            "was not made here",
        );
    }
    check(is_let_in(&gateway, &made.secret).await, Code::Ok, "");
    let node = gateway.control.node_credential().expose_secret().to_owned();
    check(is_let_in(&gateway, &node).await, Code::Ok, "");
    let asked = gateway
        .with(&node)
        .keys()
        .list_keys(ListKeysRequest::default())
        .await;
    check(
        asked.map(|_| ()),
        Code::PermissionDenied,
        "the role `node` does not do this",
    );
    let resolve = || ResolveKeysRequest::default();
    let served = gateway.with(&node).config().resolve_keys(resolve()).await;
    check(served.map(|_| ()), Code::Ok, "");
    let served = root.config().resolve_keys(resolve()).await;
    check(served.map(|_| ()), Code::PermissionDenied, "needs a node");
}

#[tokio::test]
async fn a_credential_ends_when_it_is_disabled_replaced_expired_suspended_or_deleted() {
    let gateway = Gateway::start(2).await;
    let root = gateway.with(ADMIN);
    let team = account(&root, "root", "team").await;
    let app = account(&root, &team, "app").await;
    let made = credential(&root, Role::Admin, &app, BEGIN + 10 * DAY)
        .await
        .unwrap();
    let id = made.credential.unwrap().id;
    let mut secret = made.secret;
    let disable = |disabled| UpdateCredentialRequest {
        id: id.clone(),
        disabled: Some(disabled),
        ..UpdateCredentialRequest::default()
    };
    let suspend = |suspended| UpdateAccountRequest {
        account: team.clone(),
        suspended: Some(suspended),
        ..UpdateAccountRequest::default()
    };
    check(is_let_in(&gateway, &secret).await, Code::Ok, "");
    root.credentials()
        .update_credential(disable(true))
        .await
        .unwrap();
    check(
        is_let_in(&gateway, &secret).await,
        Code::Unauthenticated,
        "disabled",
    );
    root.credentials()
        .update_credential(disable(false))
        .await
        .unwrap();
    check(is_let_in(&gateway, &secret).await, Code::Ok, "");
    root.accounts().update_account(suspend(true)).await.unwrap();
    check(
        is_let_in(&gateway, &secret).await,
        Code::Unauthenticated,
        "`root/team` is suspended",
    );
    root.accounts()
        .update_account(suspend(false))
        .await
        .unwrap();
    check(is_let_in(&gateway, &secret).await, Code::Ok, "");
    let rotate = RotateCredentialRequest { id: id.clone() };
    let rotated = gateway
        .with(&secret)
        .credentials()
        .rotate_credential(rotate)
        .await;
    let new = rotated.unwrap().into_inner().secret;
    check(
        is_let_in(&gateway, &secret).await,
        Code::Unauthenticated,
        "was not made here",
    );
    secret = new;
    check(is_let_in(&gateway, &secret).await, Code::Ok, "");
    gateway.clock.advance(10 * DAY - 1);
    check(is_let_in(&gateway, &secret).await, Code::Ok, "");
    gateway.clock.advance(1);
    check(
        is_let_in(&gateway, &secret).await,
        Code::Unauthenticated,
        "expired",
    );
    let past = credential(&root, Role::Admin, &app, BEGIN).await;
    check(past.map(|_| ()), Code::InvalidArgument, "is over");
}

#[tokio::test]
async fn a_credential_gives_at_most_what_it_is_worth() {
    let gateway = Gateway::start(3).await;
    let root = gateway.with(ADMIN);
    let team = account(&root, "root", "team").await;
    let other = account(&root, "root", "other").await;
    let app = account(&root, &team, "app").await;
    let boss = credential(&root, Role::Admin, &team, BEGIN + 10 * DAY)
        .await
        .unwrap();
    let boss = gateway.with(&boss.secret);
    let viewer = credential(&boss, Role::Viewer, "", 0).await.unwrap();
    let view = viewer.credential.unwrap();
    assert_eq!(
        (view.account_id, view.expires_unix_ms),
        (team.clone(), BEGIN + 10 * DAY)
    );
    let give = async |role, account: &str, expires| {
        credential(&boss, role, account, expires).await.map(|_| ())
    };
    check(give(Role::Admin, &app, 0).await, Code::Ok, "");
    check(
        give(Role::Admin, &app, BEGIN + 11 * DAY).await,
        Code::PermissionDenied,
        "live longer",
    );
    check(
        give(Role::Root, &team, 0).await,
        Code::PermissionDenied,
        "only root",
    );
    check(
        give(Role::Node, &team, 0).await,
        Code::PermissionDenied,
        "nodes join",
    );
    check(give(Role::Admin, &other, 0).await, Code::NotFound, &other);
    check(
        give(Role::Viewer, "root", 0).await,
        Code::NotFound,
        "`root`",
    );
    let by_viewer = credential(&gateway.with(&viewer.secret), Role::Viewer, "", 0).await;
    check(
        by_viewer.map(|_| ()),
        Code::PermissionDenied,
        "the role `viewer` does not do this",
    );
    // Whoever lives shorter does not take over what lives longer.
    let long = credential(&root, Role::Admin, &app, 0)
        .await
        .unwrap()
        .credential
        .unwrap();
    let rotate = RotateCredentialRequest {
        id: long.id.clone(),
    };
    let taken = boss.credentials().rotate_credential(rotate).await;
    check(taken.map(|_| ()), Code::PermissionDenied, "live longer");
    let disable = UpdateCredentialRequest {
        id: long.id,
        disabled: Some(true),
        ..UpdateCredentialRequest::default()
    };
    let disabled = boss.credentials().update_credential(disable).await;
    check(disabled.map(|_| ()), Code::Ok, "");
    // An admin of the root account is not root.
    let all = credential(&root, Role::Admin, "root", 0).await.unwrap();
    let master = credential(&root, Role::Root, "root", 0)
        .await
        .unwrap()
        .credential
        .unwrap();
    let rotate = RotateCredentialRequest { id: master.id };
    let taken = gateway
        .with(&all.secret)
        .credentials()
        .rotate_credential(rotate)
        .await;
    check(taken.map(|_| ()), Code::PermissionDenied, "only root");
    let off_root = credential(&root, Role::Root, &team, 0).await;
    check(
        off_root.map(|_| ()),
        Code::PermissionDenied,
        "for the root account alone",
    );
}

#[tokio::test]
async fn an_account_is_changed_from_above_and_the_deployment_by_root() {
    let gateway = Gateway::start(4).await;
    let root = gateway.with(ADMIN);
    let team = account(&root, "root", "team").await;
    let boss = credential(&root, Role::Admin, &team, 0).await.unwrap();
    let boss = gateway.with(&boss.secret);
    let app = account(&boss, "", "app").await;
    let widen = |account: &str| UpdateAccountRequest {
        account: account.to_owned(),
        suspended: Some(false),
        ..UpdateAccountRequest::default()
    };
    let own = boss.accounts().update_account(widen(&team)).await;
    check(
        own.map(|_| ()),
        Code::PermissionDenied,
        "changed from above, and `root/team`",
    );
    let below = boss.accounts().update_account(widen("root/team/app")).await;
    check(below.map(|_| ()), Code::Ok, "");
    let above = boss.accounts().update_account(widen("root")).await;
    check(
        above.map(|_| ()),
        Code::NotFound,
        "there is no account `root`",
    );
    let listed = boss
        .providers()
        .list_providers(ListProvidersRequest::default())
        .await;
    check(
        listed.map(|_| ()),
        Code::PermissionDenied,
        "only root and credentials of the account `root` see it",
    );
    let watcher = credential(&root, Role::Viewer, "root", 0).await.unwrap();
    let watcher = gateway.with(&watcher.secret);
    let listed = watcher
        .providers()
        .list_providers(ListProvidersRequest::default())
        .await;
    check(listed.map(|_| ()), Code::Ok, "");
    let who = boss
        .credentials()
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (who.role(), who.account_path.as_str()),
        (Role::Admin, "root/team")
    );
    assert_eq!(who.deployment_id, gateway.control.deployment_id());
    assert!(!app.is_empty() && !who.server_version.is_empty() && who.expires_unix_ms == 0);
}

#[tokio::test]
async fn the_idempotency_key_of_one_caller_tells_another_one_nothing() {
    let gateway = Gateway::start(5).await;
    let root = gateway.with(ADMIN);
    let create = || CreateKeyRequest {
        name: "key".into(),
        idempotency_key: "the same".into(),
        ..CreateKeyRequest::default()
    };
    let mut made = Vec::new();
    for name in ["one", "two"] {
        let team = account(&root, "root", name).await;
        let boss = credential(&root, Role::Admin, &team, 0).await.unwrap();
        let boss = gateway.with(&boss.secret);
        let first = boss.keys().create_key(create()).await.unwrap().into_inner();
        let again = boss.keys().create_key(create()).await.unwrap().into_inner();
        assert_eq!(first.key, again.key);
        let key = first.key.unwrap();
        assert_eq!(key.account_id, team);
        made.push(key.id);
    }
    assert_ne!(made[0], made[1]);
}
