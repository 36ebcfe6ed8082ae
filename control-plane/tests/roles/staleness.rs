//! Who may say how old a node's configuration may become for an account: through calls and through manifests alike.

use proxyxai_proto::{
    admin::v1::{
        ApplyManifestRequest, CreateAccountRequest, Manifest, ManifestAccount, ManifestObject,
        Role, UpdateAccountRequest, manifest_object::Kind,
    },
    config::v1::{Account, ServeExpired},
};
use tonic::{Code, Status};

use crate::{
    audit::credential,
    gateway::{ADMIN, Gateway, Hand},
};

/// Seconds and what is said of serving past the limit of the deployment.
type Said = (u64, ServeExpired);

async fn create(hand: &Hand, path: &str, said: Said) -> Result<Account, Status> {
    let (parent, name) = path.rsplit_once('/').unwrap();
    let wanted = CreateAccountRequest {
        parent: parent.into(),
        name: name.into(),
        max_stale_seconds: said.0,
        serve_expired: said.1.into(),
        ..CreateAccountRequest::default()
    };
    let made = hand.accounts().create_account(wanted).await?.into_inner();
    Ok(made.account.unwrap().account.unwrap())
}

async fn set(
    hand: &Hand,
    path: &str,
    seconds: Option<u64>,
    serve: Option<ServeExpired>,
) -> Result<Account, Status> {
    let wanted = UpdateAccountRequest {
        account: path.into(),
        max_stale_seconds: seconds,
        serve_expired: serve.map(i32::from),
        ..UpdateAccountRequest::default()
    };
    let made = hand.accounts().update_account(wanted).await?.into_inner();
    Ok(made.account.unwrap().account.unwrap())
}

async fn apply(hand: &Hand, path: &str, said: Said) -> Result<(), Status> {
    let account = ManifestAccount {
        path: path.into(),
        max_stale_seconds: said.0,
        serve_expired: said.1.into(),
        ..ManifestAccount::default()
    };
    let objects = vec![ManifestObject {
        kind: Some(Kind::Account(account)),
    }];
    let manifest = Some(Manifest {
        objects,
        settings: None,
    });
    let request = ApplyManifestRequest {
        manifest,
        ..ApplyManifestRequest::default()
    };
    hand.manifests().apply_manifest(request).await.map(|_| ())
}

#[tokio::test]
async fn law_15_an_account_says_no_more_of_staleness_than_those_above_it_let_it() {
    use ServeExpired::{Allowed, Forbidden, Unspecified};
    let gateway = Gateway::start(41).await;
    let root = gateway.with(ADMIN);
    let team = create(&root, "root/team", (3_600, Unspecified))
        .await
        .unwrap();
    let (_, secret) = credential(&root, Role::Admin, &team.id).await;
    let admin = gateway.with(&secret);
    create(&admin, "root/team/a", (600, Unspecified))
        .await
        .unwrap();
    for (path, said, words) in [
        (
            "root/team/b",
            (3_601, Unspecified),
            "of the account `root/team`",
        ),
        (
            "root/team/a/b",
            (601, Unspecified),
            "of the account `root/team/a`",
        ),
        ("root/team/b", (59, Unspecified), "60 seconds to 365 days"),
        ("root/team/b", (0, Allowed), "root alone gives it"),
    ] {
        let refusal = create(&admin, path, said).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{path} {said:?}");
        assert!(refusal.message().contains(words), "{refusal}");
        let refusal = apply(&admin, path, said).await.unwrap_err();
        assert!(refusal.message().contains(words), "{refusal}");
    }
    // Its own account is changed from above.
    let own = set(&admin, "root/team", Some(7_200), Some(Allowed)).await;
    assert_eq!(own.unwrap_err().code(), Code::PermissionDenied);
    let kept = set(&admin, "root/team/a", None, Some(Forbidden))
        .await
        .unwrap();
    assert_eq!(
        (kept.max_stale_seconds, kept.serve_expired()),
        (600, Forbidden)
    );
    // Once root gave it, it is handed on.
    set(&root, "root/team", None, Some(Allowed)).await.unwrap();
    let given = set(&admin, "root/team/a", None, Some(Allowed))
        .await
        .unwrap();
    assert_eq!(
        (given.max_stale_seconds, given.serve_expired()),
        (600, Allowed)
    );
    apply(&admin, "root/team/c", (60, Allowed)).await.unwrap();
    // Above, it may always be said less; below, what is not written is not judged again.
    let brief = set(&root, "root/team", Some(120), Some(Forbidden)).await;
    assert_eq!(brief.unwrap().max_stale_seconds, 120);
    set(&admin, "root/team/a", None, Some(Unspecified))
        .await
        .unwrap();
    let refusal = set(&admin, "root/team/a", Some(600), Some(Allowed)).await;
    let refusal = refusal.unwrap_err();
    assert!(
        refusal.message().contains("`root/team` forbids it"),
        "{refusal}"
    );
    let nothing = set(&admin, "root/team/a", Some(0), None).await.unwrap();
    assert_eq!(nothing.max_stale_seconds, 0);
}
