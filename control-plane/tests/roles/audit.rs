//! The audit trail as it is written: what leaves a record, what a record says, and that the chain tells what was done to it.

use prost::Message as _;
use proxyxai_control_plane::{
    app::Settings,
    store::{Op, Range, Store as _, Txn, embedded::EmbeddedStore},
};
use proxyxai_core::{
    account::key,
    audit::chain::{Fault, Mark, Verdict, Verifier},
    secret::ExposeSecret as _,
};
use proxyxai_proto::{
    admin::v1::{
        ActivatePriceTableRequest, AuditOutcome, AuditRecord, BackupRequest, CreateAccountRequest,
        CreateCredentialRequest, CreateJoinTokenRequest, CreateKeyRequest, CreateProviderRequest,
        CreateRouteRequest, CreateUpstreamKeyRequest, DeleteAccountRequest,
        DeleteCredentialRequest, DeleteKeyRequest, DeletePriceTableRequest, DeleteProviderRequest,
        DeleteRouteRequest, DeleteUpstreamKeyRequest, GetAuditChainRequest, GetPriceTableRequest,
        GetSettingsRequest, ListAuditRecordsRequest, ListKeysRequest, ManagedBy,
        PutPriceTableRequest, RemoveNodeRequest, RevokeJoinTokenRequest, Role,
        RotateCredentialRequest, RotateKeyRequest, RotateKeyringRequest, ScheduleNodeRequest,
        SetLogLevelRequest, UpdateAccountRequest, UpdateCredentialRequest, UpdateKeyRequest,
        UpdateProviderRequest, UpdateRouteRequest, UpdateSettingsRequest, UpdateUpstreamKeyRequest,
    },
    config::v1::{LogLevel, ProviderKind, Schedule},
    store::v1::Node as StoredNode,
};
use tonic::Code;

use crate::gateway::{ADMIN, Gateway, Hand};

/// All records that a caller sees, the oldest first.
pub(crate) async fn records(hand: &Hand, query: ListAuditRecordsRequest) -> Vec<AuditRecord> {
    let (mut query, mut found) = (query, Vec::new());
    loop {
        let page = hand
            .audit()
            .list_audit_records(query.clone())
            .await
            .unwrap()
            .into_inner();
        found.extend(page.records);
        query.page_token = page.next_page_token;
        if query.page_token.is_empty() {
            return found;
        }
    }
}

/// Checks the trail as `xai audit verify` does.
pub(crate) async fn verify(gateway: &Gateway) -> Verdict {
    let root = gateway.with(ADMIN);
    let chain = root
        .audit()
        .get_audit_chain(GetAuditChainRequest {})
        .await
        .unwrap()
        .into_inner();
    let mark = |mark: Option<_>| Mark::from_proto(&mark.unwrap()).unwrap();
    let mut verifier = Verifier::new(mark(chain.anchor), mark(chain.head));
    let all = records(&root, ListAuditRecordsRequest::default()).await;
    all.iter().for_each(|record| verifier.take(record));
    verifier.finish()
}

const UPSTREAM_SECRETS: [&str; 2] = ["sk-upstream-one-0123456789", "sk-upstream-two-0123456789"];

/// Every kind of change, once; gives the secrets that came up.
async fn every_change(gateway: &Gateway) -> Vec<String> {
    let root = &gateway.with(ADMIN);
    let account = |name: &str| CreateAccountRequest {
        parent: "root".into(),
        name: name.into(),
        ..CreateAccountRequest::default()
    };
    let made = root
        .accounts()
        .create_account(account("team"))
        .await
        .unwrap()
        .into_inner();
    let team = made.account.unwrap().account.unwrap().id;
    let update = UpdateAccountRequest {
        account: team.clone(),
        suspended: Some(true),
        ..UpdateAccountRequest::default()
    };
    root.accounts().update_account(update).await.unwrap();

    let create = CreateKeyRequest {
        account: team.clone(),
        name: "key".into(),
        ..CreateKeyRequest::default()
    };
    let key = root.keys().create_key(create).await.unwrap().into_inner();
    let id = key.key.unwrap().id;
    let update = UpdateKeyRequest {
        id: id.clone(),
        disabled: Some(true),
        ..UpdateKeyRequest::default()
    };
    root.keys().update_key(update).await.unwrap();
    let rotate = RotateKeyRequest {
        id: id.clone(),
        ..RotateKeyRequest::default()
    };
    let rotated_key = root.keys().rotate_key(rotate).await.unwrap().into_inner();
    root.keys()
        .delete_key(DeleteKeyRequest {
            id,
            ..DeleteKeyRequest::default()
        })
        .await
        .unwrap();

    let create = CreateCredentialRequest {
        role: Role::Viewer.into(),
        account: team.clone(),
        name: "eve".into(),
        expires_unix_ms: 0,
    };
    let credential = root
        .credentials()
        .create_credential(create)
        .await
        .unwrap()
        .into_inner();
    let id = credential.credential.unwrap().id;
    let update = UpdateCredentialRequest {
        id: id.clone(),
        name: Some("adam".into()),
        ..UpdateCredentialRequest::default()
    };
    root.credentials().update_credential(update).await.unwrap();
    let rotated = root
        .credentials()
        .rotate_credential(RotateCredentialRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    root.credentials()
        .delete_credential(DeleteCredentialRequest { id })
        .await
        .unwrap();
    root.accounts()
        .delete_account(DeleteAccountRequest {
            account: team,
            ..DeleteAccountRequest::default()
        })
        .await
        .unwrap();

    let id = "one".to_owned();
    let create = CreateProviderRequest {
        id: id.clone(),
        kind: ProviderKind::Openai.into(),
        base_url: "https://one.example".into(),
        ..CreateProviderRequest::default()
    };
    root.providers().create_provider(create).await.unwrap();
    let update = UpdateProviderRequest {
        id: id.clone(),
        disabled: Some(true),
        ..UpdateProviderRequest::default()
    };
    root.providers().update_provider(update).await.unwrap();
    let create = CreateUpstreamKeyRequest {
        id: id.clone(),
        provider_id: id.clone(),
        secret: UPSTREAM_SECRETS[0].into(),
        ..CreateUpstreamKeyRequest::default()
    };
    root.upstream_keys()
        .create_upstream_key(create)
        .await
        .unwrap();
    let update = UpdateUpstreamKeyRequest {
        id: id.clone(),
        secret: Some(UPSTREAM_SECRETS[1].into()),
        ..UpdateUpstreamKeyRequest::default()
    };
    root.upstream_keys()
        .update_upstream_key(update)
        .await
        .unwrap();
    root.upstream_keys()
        .delete_upstream_key(DeleteUpstreamKeyRequest {
            id: id.clone(),
            ..DeleteUpstreamKeyRequest::default()
        })
        .await
        .unwrap();
    let create = CreateRouteRequest {
        id: id.clone(),
        model: "gpt-*".into(),
        provider_ids: vec![id.clone()],
        ..CreateRouteRequest::default()
    };
    root.routes().create_route(create).await.unwrap();
    let update = UpdateRouteRequest {
        id: id.clone(),
        model: Some("o*".into()),
        ..UpdateRouteRequest::default()
    };
    root.routes().update_route(update).await.unwrap();
    root.routes()
        .delete_route(DeleteRouteRequest {
            id: id.clone(),
            ..DeleteRouteRequest::default()
        })
        .await
        .unwrap();
    root.providers()
        .delete_provider(DeleteProviderRequest {
            id,
            ..DeleteProviderRequest::default()
        })
        .await
        .unwrap();
    let before = root
        .prices()
        .get_price_table(GetPriceTableRequest::default())
        .await
        .unwrap();
    let before = before.into_inner().price_table.unwrap();
    let put = PutPriceTableRequest {
        content: br#"{"version":"trial","date":"2026-01-01","source":"a trial","families":{}}"#
            .to_vec(),
    };
    root.prices().put_price_table(put).await.unwrap();
    for version in ["trial", &before.version] {
        let activate = ActivatePriceTableRequest {
            version: version.to_owned(),
            ..ActivatePriceTableRequest::default()
        };
        root.prices().activate_price_table(activate).await.unwrap();
    }
    let delete = DeletePriceTableRequest {
        version: "trial".into(),
        ..DeletePriceTableRequest::default()
    };
    root.prices().delete_price_table(delete).await.unwrap();
    let narrow = crate::manifest::account("root", &["gpt-*"]);
    let is_narrow = crate::manifest::exported(root).await.contains(&narrow);
    let other = crate::manifest::account("root", if is_narrow { &[] } else { &["gpt-*"] });
    crate::manifest::apply(root, &[other], false).await.unwrap();
    let found = root.settings().get_settings(GetSettingsRequest {}).await;
    let found = found.unwrap().into_inner().settings.unwrap();
    let other = UpdateSettingsRequest {
        max_stale_seconds: Some(7_200 - found.set.unwrap().max_stale_seconds),
        ..UpdateSettingsRequest::default()
    };
    root.settings().update_settings(other).await.unwrap();
    let made = root
        .join_tokens()
        .create_join_token(CreateJoinTokenRequest::default())
        .await
        .unwrap()
        .into_inner();
    let id = made.join_token.unwrap_or_default().id;
    root.join_tokens()
        .revoke_join_token(RevokeJoinTokenRequest { id })
        .await
        .unwrap();

    // As if it had joined.
    let joined = StoredNode {
        joined_unix_ms: 1,
        ..StoredNode::default()
    };
    let txn = Txn {
        compares: Vec::new(),
        then: vec![
            Op::Put("node/n-1".into(), joined.encode_to_vec()),
            // As if it had been served, and the level of the log been set before.
            Op::Put("roster/n-1".into(), Vec::new()),
            Op::Put("meta/log-level".into(), Vec::new()),
        ],
    };
    gateway.store.txn(txn).await.unwrap();
    let id = "n-1".to_owned();
    let cordon = ScheduleNodeRequest {
        id: id.clone(),
        schedule: Schedule::Cordon.into(),
    };
    root.nodes().schedule_node(cordon).await.unwrap();
    let level = SetLogLevelRequest {
        level: LogLevel::Debug.into(),
        ..SetLogLevelRequest::default()
    };
    root.logs().set_log_level(level).await.unwrap();
    let remove = RemoveNodeRequest { id, force: false };
    root.nodes().remove_node(remove).await.unwrap();

    for key_encryption_key in [true, false] {
        let rotate = RotateKeyringRequest { key_encryption_key };
        root.secrets().rotate_keyring(rotate).await.unwrap();
    }
    let copy = root.backups().backup(BackupRequest {}).await.unwrap();
    let mut copy = copy.into_inner();
    while copy.message().await.unwrap().is_some() {}

    let mut secrets = vec![
        key.secret,
        rotated_key.secret,
        credential.secret,
        rotated.secret,
        made.token,
    ];
    secrets.extend(UPSTREAM_SECRETS.map(str::to_owned));
    secrets
}

const EVERY_CHANGE: [&str; 35] = [
    "CreateAccount",
    "UpdateAccount",
    "CreateKey",
    "UpdateKey",
    "RotateKey",
    "DeleteKey",
    "CreateCredential",
    "UpdateCredential",
    "RotateCredential",
    "DeleteCredential",
    "DeleteAccount",
    "CreateProvider",
    "UpdateProvider",
    "CreateUpstreamKey",
    "UpdateUpstreamKey",
    "DeleteUpstreamKey",
    "CreateRoute",
    "UpdateRoute",
    "DeleteRoute",
    "DeleteProvider",
    "PutPriceTable",
    "ActivatePriceTable",
    "ActivatePriceTable",
    "DeletePriceTable",
    "ApplyManifest",
    "UpdateSettings",
    "CreateJoinToken",
    "RevokeJoinToken",
    "ScheduleNode",
    "SetLogLevel",
    "RemoveNode",
    // The next key-encryption key, and a data key under it.
    "RotateKeyring",
    "RotateKeyring",
    "RotateKeyring",
    "Backup",
];

#[tokio::test]
async fn every_call_that_changes_something_leaves_one_record_of_its_name() {
    let set = prost_types::FileDescriptorSet::decode(proxyxai_proto::DESCRIPTORS).unwrap();
    let admin = set
        .file
        .iter()
        .filter(|file| file.package() == "proxyxai.admin.v1");
    let looks = |name: &str| {
        ["List", "Get", "Query", "WaitApplied", "WhoAmI"]
            .iter()
            .any(|word| name.starts_with(word))
    };
    let mut changing: Vec<String> = admin
        .flat_map(|file| file.service.iter().flat_map(|service| &service.method))
        .map(|method| method.name().to_owned())
        .filter(|name| !looks(name))
        .collect();
    let mut tried = EVERY_CHANGE.map(str::to_owned).to_vec();
    changing.sort();
    tried.sort();
    tried.dedup();
    assert_eq!(changing, tried, "a call is not tried here");

    let gateway = Gateway::start(1).await;
    let root = gateway.with(ADMIN);
    every_change(&gateway).await;
    let all = records(&root, ListAuditRecordsRequest::default()).await;
    let actions: Vec<&str> = all.iter().map(|record| record.action.as_str()).collect();
    assert_eq!(actions, EVERY_CHANGE);
    for record in &all {
        let actor = record.actor.as_ref().unwrap();
        assert_eq!(
            (actor.credential_id.as_str(), actor.role.as_str()),
            ("admin", "root")
        );
        let objects = match record.action.as_str() {
            // Putting a table in force takes another one out of it.
            "ActivatePriceTable" => 2,
            "Backup" => 0,
            _ => 1,
        };
        assert_eq!(record.changes.len(), objects, "{record:?}");
        let made = ["Create", "Put"]
            .iter()
            .any(|word| record.action.starts_with(word));
        let gone = record.action.starts_with("Delete");
        for change in &record.changes {
            assert_eq!(
                (change.before.is_empty(), change.after.is_empty()),
                (made, gone),
                "{record:?}"
            );
            assert_ne!(
                change.before, change.after,
                "{record:?} tells no difference"
            );
        }
    }
    let reading = records(&root, ListAuditRecordsRequest::default()).await;
    assert_eq!(reading.len(), all.len(), "looking leaves no record");
    assert_eq!(verify(&gateway).await.faults, []);
}

#[tokio::test]
async fn law_21_no_secret_and_no_hash_of_one_is_in_the_trail() {
    let gateway = Gateway::start(2).await;
    let secrets = every_change(&gateway).await;
    let mut all = Vec::new();
    for entry in gateway.store.range(Range::default()).await.unwrap().entries {
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        for secret in &secrets {
            assert!(
                !text.contains(secret.as_str()),
                "{} holds a secret",
                entry.key
            );
        }
        if entry.key.starts_with("audit/record/") {
            all.push(AuditRecord::decode(entry.value.as_slice()).unwrap());
        }
    }
    assert_eq!(all.len(), EVERY_CHANGE.len());
    for change in all.iter().flat_map(|record| &record.changes) {
        for text in [&change.before, &change.after]
            .into_iter()
            .filter(|text| !text.is_empty())
        {
            let object: serde_json::Value = serde_json::from_str(text).unwrap();
            for field in ["secret", "digest"] {
                let told = object
                    .get(field)
                    .and_then(|value| value.as_str())
                    .unwrap_or("(withheld)");
                assert!(told.starts_with("(withheld"), "{text}");
            }
            assert!(object.get("fingerprint").is_none(), "{text}");
        }
    }
}

#[tokio::test]
async fn what_the_process_does_by_itself_has_its_own_actor() {
    let gateway = Gateway::start(3).await;
    let first = key::generate([9; 64]);
    gateway.control.adopt_first_key(&first).await.unwrap();
    for by in [ManagedBy::Env, ManagedBy::Demo] {
        let secret = gateway.control.managing_credential(by).unwrap();
        let create = CreateProviderRequest {
            id: format!("p{}", i32::from(by)),
            kind: ProviderKind::Openai.into(),
            base_url: "https://one.example".into(),
            managed_by: by.into(),
            ..CreateProviderRequest::default()
        };
        gateway
            .with(secret.expose_secret())
            .providers()
            .create_provider(create)
            .await
            .unwrap();
    }
    let all = records(&gateway.with(ADMIN), ListAuditRecordsRequest::default()).await;
    let actors: Vec<String> = all
        .into_iter()
        .map(|record| record.actor.unwrap().credential_id)
        .collect();
    assert_eq!(actors, ["start", "env", "demo"]);
}

async fn team(root: &Hand, name: &str) -> String {
    let request = CreateAccountRequest {
        parent: "root".into(),
        name: name.into(),
        ..CreateAccountRequest::default()
    };
    let made = root
        .accounts()
        .create_account(request)
        .await
        .unwrap()
        .into_inner();
    made.account.unwrap().account.unwrap().id
}

pub(crate) async fn credential(root: &Hand, role: Role, account: &str) -> (String, String) {
    let request = CreateCredentialRequest {
        role: role.into(),
        account: account.into(),
        name: "x".into(),
        expires_unix_ms: 0,
    };
    let made = root
        .credentials()
        .create_credential(request)
        .await
        .unwrap()
        .into_inner();
    (made.credential.unwrap().id, made.secret)
}

#[tokio::test]
async fn denied_changes_are_recorded_and_what_is_hidden_like_what_is_not_there() {
    let gateway = Gateway::start(4).await;
    let root = gateway.with(ADMIN);
    let (one, two) = (team(&root, "one").await, team(&root, "two").await);
    let create = CreateKeyRequest {
        account: two.clone(),
        name: "key".into(),
        ..CreateKeyRequest::default()
    };
    let hidden = root
        .keys()
        .create_key(create)
        .await
        .unwrap()
        .into_inner()
        .key
        .unwrap()
        .id;
    let (viewer_id, viewer) = credential(&root, Role::Viewer, &one).await;
    let (admin_id, admin) = credential(&root, Role::Admin, &one).await;
    let before = records(&root, ListAuditRecordsRequest::default())
        .await
        .len();
    let delete = |id: &str| DeleteKeyRequest {
        id: id.to_owned(),
        ..DeleteKeyRequest::default()
    };
    let by_viewer = gateway
        .with(&viewer)
        .keys()
        .delete_key(delete("nothing"))
        .await
        .unwrap_err();
    assert_eq!(by_viewer.code(), Code::PermissionDenied);
    let found = gateway
        .with(&admin)
        .keys()
        .delete_key(delete(&hidden))
        .await
        .unwrap_err();
    let none = gateway
        .with(&admin)
        .keys()
        .delete_key(delete("nothing"))
        .await
        .unwrap_err();
    assert_eq!(
        (found.code(), none.code()),
        (Code::NotFound, Code::NotFound)
    );
    assert_eq!(found.message().replace(&hidden, "nothing"), none.message());
    let anonymous = gateway
        .anonymous()
        .keys()
        .delete_key(delete(&hidden))
        .await
        .unwrap_err();
    assert_eq!(anonymous.code(), Code::Unauthenticated);
    // That an object is missing tells nothing of one who sees everything.
    root.keys().delete_key(delete("nothing")).await.unwrap_err();
    let looked = gateway
        .with(&admin)
        .keys()
        .list_keys(ListKeysRequest {
            under: two,
            ..ListKeysRequest::default()
        })
        .await;
    assert_eq!(looked.unwrap_err().code(), Code::NotFound);
    let denied = records(&root, ListAuditRecordsRequest::default())
        .await
        .split_off(before);
    let told: Vec<_> = denied
        .iter()
        .map(|record| {
            (
                record.outcome(),
                record.action.as_str(),
                record.actor.clone().unwrap().credential_id,
            )
        })
        .collect();
    let one = |by: &str| (AuditOutcome::Denied, "DeleteKey", by.to_owned());
    assert_eq!(told, [one(&viewer_id), one(&admin_id), one(&admin_id)]);
    assert_eq!(verify(&gateway).await.faults, []);
}

#[tokio::test]
async fn records_are_found_by_time_actor_object_and_account() {
    let gateway = Gateway::start(5).await;
    let root = gateway.with(ADMIN);
    let (one, two) = (team(&root, "one").await, team(&root, "two").await);
    let (_, admin) = credential(&root, Role::Admin, &one).await;
    gateway.clock.advance(1000);
    let boss = gateway.with(&admin);
    let create = |account: &str| CreateKeyRequest {
        account: account.to_owned(),
        name: "key".into(),
        ..CreateKeyRequest::default()
    };
    let key = boss
        .keys()
        .create_key(create(""))
        .await
        .unwrap()
        .into_inner()
        .key
        .unwrap()
        .id;
    root.keys().create_key(create(&two)).await.unwrap();
    let by_boss = records(&root, ListAuditRecordsRequest::default()).await[3]
        .actor
        .clone()
        .unwrap()
        .credential_id;
    let query = ListAuditRecordsRequest::default;
    let check = async |hand: &Hand, query: ListAuditRecordsRequest, want: &[u64]| {
        for newest_first in [false, true] {
            for page_size in [1, 2, 100] {
                let query = ListAuditRecordsRequest {
                    newest_first,
                    page_size,
                    ..query.clone()
                };
                let mut found: Vec<u64> = records(hand, query.clone())
                    .await
                    .iter()
                    .map(|r| r.sequence)
                    .collect();
                if newest_first {
                    found.reverse();
                }
                assert_eq!(found, want, "{query:?}");
            }
        }
    };
    let begin = crate::gateway::BEGIN;
    check(&root, query(), &[1, 2, 3, 4, 5]).await;
    check(
        &root,
        ListAuditRecordsRequest {
            from_unix_ms: begin + 1,
            ..query()
        },
        &[4, 5],
    )
    .await;
    check(
        &root,
        ListAuditRecordsRequest {
            to_unix_ms: begin + 1,
            ..query()
        },
        &[1, 2, 3],
    )
    .await;
    check(
        &root,
        ListAuditRecordsRequest {
            credential_id: by_boss,
            ..query()
        },
        &[4],
    )
    .await;
    check(
        &root,
        ListAuditRecordsRequest {
            object_id: key,
            ..query()
        },
        &[4],
    )
    .await;
    check(
        &root,
        ListAuditRecordsRequest {
            object_kind: "virtual_key".into(),
            ..query()
        },
        &[4, 5],
    )
    .await;
    check(
        &root,
        ListAuditRecordsRequest {
            under: "root/two".into(),
            ..query()
        },
        &[2, 5],
    )
    .await;
    check(&boss, query(), &[1, 3, 4]).await;
    let seen = records(&boss, query()).await;
    let actors: Vec<String> = seen
        .into_iter()
        .map(|r| r.actor.unwrap().credential_id)
        .collect();
    assert!(
        actors[0].is_empty() && actors[1].is_empty() && !actors[2].is_empty(),
        "{actors:?}"
    );
    let elsewhere = ListAuditRecordsRequest {
        under: two,
        ..query()
    };
    assert_eq!(
        boss.audit()
            .list_audit_records(elsewhere)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    let whole = boss.audit().get_audit_chain(GetAuditChainRequest {}).await;
    assert_eq!(whole.unwrap_err().code(), Code::PermissionDenied);
}

fn put(key: &str, record: &AuditRecord) -> Op {
    Op::Put(key.to_owned(), record.encode_to_vec())
}

/// Sees all records with their keys, and says what to write over them.
type Tampering = dyn Fn(&mut Vec<(String, AuditRecord)>) -> Vec<Op>;

#[tokio::test]
async fn a_trail_that_was_tampered_with_in_the_store_is_told() {
    let check = async |change: &Tampering, want: &[Fault]| {
        let gateway = Gateway::start(6).await;
        every_change(&gateway).await;
        let page = gateway
            .store
            .range(Range::prefix("audit/record/"))
            .await
            .unwrap();
        let mut all: Vec<(String, AuditRecord)> = page
            .entries
            .into_iter()
            .map(|entry| {
                (
                    entry.key,
                    AuditRecord::decode(entry.value.as_slice()).unwrap(),
                )
            })
            .collect();
        let then = change(&mut all);
        gateway
            .store
            .txn(Txn {
                compares: Vec::new(),
                then,
            })
            .await
            .unwrap();
        assert_eq!(verify(&gateway).await.faults, want);
    };
    check(&|_| Vec::new(), &[]).await;
    check(
        &|all| {
            all[4].1.actor.get_or_insert_default().credential_id = "nobody".into();
            vec![put(&all[4].0, &all[4].1)]
        },
        &[Fault::Edited(5)],
    )
    .await;
    check(
        &|all| vec![Op::Delete(all[7].0.clone())],
        &[Fault::Missing(8)],
    )
    .await;
    check(
        &|all| vec![Op::Delete(all[19].0.clone())],
        &[Fault::Missing(20)],
    )
    .await;
    check(
        &|all| vec![put(&all[2].0, &all[3].1), put(&all[3].0, &all[2].1)],
        &[Fault::Reordered(3)],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn old_records_are_pruned_and_the_rest_still_holds() {
    let day = 86_400_000;
    let settings = Settings {
        audit_keep: std::time::Duration::from_secs(10 * 86_400),
        ..Settings::default()
    };
    let gateway = Gateway::on(EmbeddedStore::in_memory().unwrap(), 7, settings).await;
    let root = gateway.with(ADMIN);
    for _ in 0..10 {
        every_change(&gateway).await;
    }
    gateway.clock.advance(5 * day);
    team(&root, "later").await;
    let count = async || {
        records(&root, ListAuditRecordsRequest::default())
            .await
            .len()
    };
    let keep_house = async || {
        // One round, until it waits for the next one; the runtime's time is paused.
        let kept = tokio::time::timeout(
            std::time::Duration::from_secs(1),
            gateway.control.keep_house(),
        );
        kept.await.unwrap_err();
    };
    keep_house().await;
    assert_eq!(count().await, 10 * EVERY_CHANGE.len() + 1);
    gateway.clock.advance(5 * day + 1);
    keep_house().await;
    assert_eq!(count().await, 1);
    assert_eq!(verify(&gateway).await.faults, []);
    team(&root, "much-later").await;
    gateway.clock.advance(20 * day);
    keep_house().await;
    assert_eq!(count().await, 0);
    team(&root, "after-all").await;
    assert_eq!((count().await, verify(&gateway).await.faults), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_deployment_says_how_long_records_are_kept_while_it_runs() {
    let day = 86_400_000;
    let gateway = Gateway::start(7).await;
    let root = gateway.with(ADMIN);
    every_change(&gateway).await;
    gateway.clock.advance(3 * day);
    let brief = UpdateSettingsRequest {
        audit_keep_seconds: Some(2 * 86_400),
        ..UpdateSettingsRequest::default()
    };
    root.settings().update_settings(brief).await.unwrap();
    let kept = std::time::Duration::from_secs(1);
    let kept = tokio::time::timeout(kept, gateway.control.keep_house());
    kept.await.unwrap_err();
    let left = records(&root, ListAuditRecordsRequest::default()).await;
    let actions: Vec<&str> = left.iter().map(|record| record.action.as_str()).collect();
    assert_eq!(actions, ["UpdateSettings"], "who shortened it is told");
    assert_eq!(verify(&gateway).await.faults, []);
}

#[tokio::test]
async fn two_control_planes_on_one_store_write_one_chain() {
    let store = EmbeddedStore::in_memory().unwrap();
    let one = Gateway::on(store.clone(), 8, Settings::default()).await;
    let two = Gateway::on(store, 9, Settings::default()).await;
    let mut writing = tokio::task::JoinSet::new();
    for number in 0..40 {
        let gateway = if number % 2 == 0 { &one } else { &two };
        let root = gateway.with(ADMIN);
        writing.spawn(async move {
            if number % 4 < 2 {
                credential(&root, Role::Viewer, "root").await;
            } else {
                team(&root, &format!("team-{number}")).await;
            }
        });
    }
    while let Some(done) = writing.join_next().await {
        done.unwrap();
    }
    let verdict = verify(&two).await;
    assert_eq!((verdict.checked, verdict.faults), (40, vec![]));
}
