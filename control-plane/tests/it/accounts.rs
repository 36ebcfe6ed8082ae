//! Accounts and virtual keys: what is made, changed and taken away, and every refusal with its code and its advice.

use proxyxai_core::account::{key as key_form, tree::MAX_DEPTH};
use proxyxai_proto::admin::v1::{
    CreateAccountRequest, CreateKeyRequest, DeleteAccountRequest, DeleteKeyRequest,
    GetAccountRequest, GetKeyRequest, StringList, UpdateAccountRequest, UpdateKeyRequest,
};
use tonic::Code;

use crate::{
    editor::{account, key},
    harness::{EPOCH_MS, World, ok, refused},
};

fn new_account(parent: &str, name: &str, models: &[&str]) -> CreateAccountRequest {
    CreateAccountRequest {
        parent: parent.into(),
        name: name.into(),
        allowed_models: models.iter().map(ToString::to_string).collect(),
        ..CreateAccountRequest::default()
    }
}

fn rename(account: &str, name: &str) -> UpdateAccountRequest {
    UpdateAccountRequest {
        account: account.into(),
        name: Some(name.into()),
        ..UpdateAccountRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn accounts_are_made_changed_and_deleted() {
    let plane = World::new().start().await;
    let team = account(&plane, "", "team").await;
    assert_eq!(
        (team.path.as_str(), team.created_unix_ms),
        ("root/team", EPOCH_MS)
    );
    let id = team.account.unwrap().id;
    let leaf = account(&plane, &id, "leaf of ü").await;
    assert_eq!(leaf.path, "root/team/leaf of ü");
    let by_path = GetAccountRequest {
        account: leaf.path.clone(),
    };
    let found = ok(plane.accounts().get_account(by_path).await)
        .account
        .unwrap();
    assert_eq!(found, leaf);

    let request = UpdateAccountRequest {
        account: "root/team".into(),
        name: Some("crew".into()),
        suspended: Some(true),
        allowed_models: Some(StringList {
            values: vec!["gpt-*".into()],
        }),
        ..UpdateAccountRequest::default()
    };
    let crew = ok(plane.accounts().update_account(request).await)
        .account
        .unwrap();
    let content = crew.account.unwrap();
    assert_eq!(
        (crew.path.as_str(), &content.id, content.parent_id.as_str()),
        ("root/crew", &id, "root")
    );
    assert!(crew.effectively_suspended && content.allowed_models == ["gpt-*"]);
    let leaf_id = leaf.account.unwrap().id;
    let by_id = GetAccountRequest {
        account: leaf_id.clone(),
    };
    let below = ok(plane.accounts().get_account(by_id).await)
        .account
        .unwrap();
    assert!(below.effectively_suspended && !below.account.unwrap().suspended);
    assert_eq!(below.path, "root/crew/leaf of ü");

    // An update without fields changes nothing; an empty list lifts the restriction of this account.
    let nothing = UpdateAccountRequest {
        account: id.clone(),
        ..UpdateAccountRequest::default()
    };
    let same = ok(plane.accounts().update_account(nothing).await)
        .account
        .unwrap();
    assert_eq!(same.account.unwrap(), content);
    let lift = UpdateAccountRequest {
        account: id.clone(),
        allowed_models: Some(StringList::default()),
        ..UpdateAccountRequest::default()
    };
    let lifted = ok(plane.accounts().update_account(lift).await)
        .account
        .unwrap();
    assert!(lifted.account.unwrap().allowed_models.is_empty());

    for account in [leaf_id.clone(), id] {
        ok(plane
            .accounts()
            .delete_account(DeleteAccountRequest {
                account,
                ..DeleteAccountRequest::default()
            })
            .await);
    }
    let gone = plane
        .accounts()
        .get_account(GetAccountRequest { account: leaf_id })
        .await;
    refused(gone, Code::NotFound, &["there is no account", "list them"]);
}

#[tokio::test(start_paused = true)]
async fn accounts_that_do_not_fit_are_refused() {
    let plane = World::new().start().await;
    account(&plane, "", "team").await;
    account(&plane, "root/team", "leaf").await;
    account(&plane, "", "keys").await;
    key(&plane, "root/keys", "one").await;
    let long = "n".repeat(64);
    let pattern = "m".repeat(257);
    let cases: [(CreateAccountRequest, Code, &[&str]); 12] = [
        (
            new_account("root/nobody", "a", &[]),
            Code::NotFound,
            &["no account `root/nobody`", "list them"],
        ),
        (
            new_account("acct-nobody", "a", &[]),
            Code::NotFound,
            &["no account `acct-nobody`"],
        ),
        (
            new_account("team", "a", &[]),
            Code::NotFound,
            &["no account `team`"],
        ),
        (
            new_account("", "team", &[]),
            Code::AlreadyExists,
            &["the account `root/team` exists already", "choose another"],
        ),
        (
            new_account("", "", &[]),
            Code::InvalidArgument,
            &["a name has 1 to 63 characters"],
        ),
        (
            new_account("", "a/b", &[]),
            Code::InvalidArgument,
            &["no `/`"],
        ),
        (
            new_account("", " a", &[]),
            Code::InvalidArgument,
            &["no space at either end"],
        ),
        (
            new_account("", "a\nb", &[]),
            Code::InvalidArgument,
            &["no control character"],
        ),
        (
            new_account("", &long, &[]),
            Code::InvalidArgument,
            &["1 to 63 characters"],
        ),
        (
            new_account("", "a", &["gpt-*", ""]),
            Code::InvalidArgument,
            &["must not be empty", "use `*`"],
        ),
        (
            new_account("", "a", &[&pattern]),
            Code::InvalidArgument,
            &["at most 256 bytes"],
        ),
        (
            new_account("", "a", &["a\0"]),
            Code::InvalidArgument,
            &["no control characters"],
        ),
    ];
    let head = plane.head();
    for (request, code, words) in cases {
        refused(plane.accounts().create_account(request).await, code, words);
    }
    let cases: [(UpdateAccountRequest, Code, &[&str]); 5] = [
        (rename("root/nobody", "a"), Code::NotFound, &["no account"]),
        (
            rename("root/team", "keys"),
            Code::AlreadyExists,
            &["`root/keys` exists already"],
        ),
        (
            rename("root/team", "a/b"),
            Code::InvalidArgument,
            &["no `/`"],
        ),
        (
            rename("", "trunk"),
            Code::InvalidArgument,
            &["keeps its name"],
        ),
        (
            UpdateAccountRequest {
                account: "root/team".into(),
                allowed_models: Some(StringList {
                    values: vec![String::new()],
                }),
                ..UpdateAccountRequest::default()
            },
            Code::InvalidArgument,
            &["must not be empty"],
        ),
    ];
    for (request, code, words) in cases {
        refused(plane.accounts().update_account(request).await, code, words);
    }
    let cases: [(&str, Code, &[&str]); 5] = [
        (
            "",
            Code::FailedPrecondition,
            &["root account cannot be deleted"],
        ),
        (
            "root",
            Code::FailedPrecondition,
            &["root account cannot be deleted"],
        ),
        (
            "root/team",
            Code::FailedPrecondition,
            &["has children", "root/team/leaf", "delete those first"],
        ),
        (
            "root/keys",
            Code::FailedPrecondition,
            &["has 1 virtual key", "delete those first"],
        ),
        ("root/nobody", Code::NotFound, &["no account"]),
    ];
    for (account, code, words) in cases {
        let account = account.into();
        refused(
            plane
                .accounts()
                .delete_account(DeleteAccountRequest {
                    account,
                    ..DeleteAccountRequest::default()
                })
                .await,
            code,
            words,
        );
    }
    assert_eq!(plane.head(), head, "a refusal changes nothing");
    // The same name is free under another parent, and renaming to one's own name is no clash.
    account(&plane, "root/team", "team").await;
    ok(plane
        .accounts()
        .update_account(rename("root/team", "team"))
        .await);
}

#[tokio::test(start_paused = true)]
async fn trees_are_as_deep_as_allowed_and_no_deeper() {
    let plane = World::new().start().await;
    let mut path = "root".to_owned();
    for depth in 1..MAX_DEPTH {
        path = account(&plane, &path, &format!("d{depth}")).await.path;
    }
    assert_eq!(path.split('/').count(), MAX_DEPTH);
    let deeper = plane
        .accounts()
        .create_account(new_account(&path, "more", &[]))
        .await;
    refused(deeper, Code::InvalidArgument, &["deeper than 32 accounts"]);
    let (made, _) = key(&plane, &path, "deep").await;
    assert_eq!(made.account_path, path);
}

#[tokio::test(start_paused = true)]
async fn keys_are_made_changed_and_deleted() {
    let plane = World::new().start().await;
    let team = account(&plane, "", "team").await.account.unwrap().id;
    let (made, secret) = key(&plane, "root/team", "laptop").await;
    assert_eq!(key_form::parse(&secret).unwrap().id(), made.id);
    assert_eq!(made.hint, format!("sk-pxai-{}…", made.id));
    assert_eq!(
        (&made.account_id, made.account_path.as_str()),
        (&team, "root/team")
    );
    let get = GetKeyRequest {
        id: made.id.clone(),
    };
    assert_eq!(
        ok(plane.keys().get_key(get.clone()).await).key.unwrap(),
        made
    );
    let request = UpdateKeyRequest {
        id: made.id.clone(),
        name: Some("desk".into()),
        disabled: Some(true),
        ..UpdateKeyRequest::default()
    };
    let changed = ok(plane.keys().update_key(request).await).key.unwrap();
    assert_eq!((changed.name.as_str(), changed.disabled), ("desk", true));

    let unnamed = |name: &str| CreateKeyRequest {
        account: String::new(),
        name: name.into(),
        ..CreateKeyRequest::default()
    };
    refused(
        plane.keys().create_key(unnamed("")).await,
        Code::InvalidArgument,
        &["a name has"],
    );
    refused(
        plane.keys().create_key(unnamed("a/b")).await,
        Code::InvalidArgument,
        &["no `/`"],
    );
    let orphan = CreateKeyRequest {
        account: "root/nobody".into(),
        name: "a".into(),
        ..CreateKeyRequest::default()
    };
    refused(
        plane.keys().create_key(orphan).await,
        Code::NotFound,
        &["no account `root/nobody`"],
    );
    let bad = UpdateKeyRequest {
        id: made.id.clone(),
        name: Some(" ".into()),
        disabled: None,
        ..UpdateKeyRequest::default()
    };
    refused(
        plane.keys().update_key(bad).await,
        Code::InvalidArgument,
        &["a name has"],
    );
    let unknown = UpdateKeyRequest {
        id: "nobody".into(),
        ..UpdateKeyRequest::default()
    };
    refused(
        plane.keys().update_key(unknown).await,
        Code::NotFound,
        &["no virtual key `nobody`"],
    );

    let delete = DeleteKeyRequest {
        id: made.id,
        ..DeleteKeyRequest::default()
    };
    ok(plane.keys().delete_key(delete.clone()).await);
    refused(
        plane.keys().delete_key(delete).await,
        Code::NotFound,
        &["no virtual key", "list them"],
    );
    refused(
        plane.keys().get_key(get).await,
        Code::NotFound,
        &["no virtual key"],
    );
}

#[tokio::test(start_paused = true)]
async fn an_account_is_a_gateways_only_where_that_is_said() {
    let plane = World::new().start().await;
    let request = CreateAccountRequest {
        gateway: true,
        ..new_account("", "branch", &[])
    };
    let made = ok(plane.accounts().create_account(request).await);
    assert!(made.account.unwrap().account.unwrap().gateway);
    let below = account(&plane, "root/branch", "client").await;
    assert!(!below.account.unwrap().gateway, "it is not handed down");
    // What is not mentioned stays.
    let rename = rename("root/branch", "office");
    let renamed = ok(plane.accounts().update_account(rename).await);
    assert!(renamed.account.unwrap().account.unwrap().gateway);
    let no = UpdateAccountRequest {
        account: "root/office".into(),
        gateway: Some(false),
        ..UpdateAccountRequest::default()
    };
    let changed = ok(plane.accounts().update_account(no).await);
    assert!(!changed.account.unwrap().account.unwrap().gateway);
}
