//! The fields of the admin API and what they are enforced by, asked of the services themselves on a store in memory.

mod prices;
mod upstreams;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use proxyxai_core::{
    access::{Caller, Role},
    account::{key::Pepper, terms::KeyRefusal},
    ports::{Clock, Random},
    secret::seal::SealKey,
};
use proxyxai_proto::admin::v1::{
    AccountView, CreateAccountRequest, CreateKeyRequest, CreateKeyResponse, DeleteAccountRequest,
    DeleteKeyRequest, KeyView, ListAccountsRequest, ListKeysRequest, RotateKeyRequest, StringList,
    UpdateAccountRequest, UpdateKeyRequest, account_service_server::AccountService as _,
    key_service_server::KeyService as _,
};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use super::{
    accounts::AccountServer, keys::KeyServer, prices::PriceServer, providers::ProviderServer,
    routes::RouteServer, upstream_keys::UpstreamKeyServer,
};
use crate::{
    audit::Trail,
    auth::Credentials,
    bootstrap,
    config_store::ConfigStore,
    publish::{Publisher, ViewKey},
    store::{Store, embedded::EmbeddedStore},
};

const START_MS: i64 = 1_767_225_600_000;

pub(super) struct Time(AtomicI64);

impl Clock for Time {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn unix_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct Sequence(AtomicU64);

impl Random for Sequence {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
            *byte = (next >> 37) as u8;
        }
    }
}

/// The services on one store.
pub(super) struct World {
    pub(super) time: Arc<Time>,
    pub(super) config: Arc<ConfigStore>,
    pub(super) pepper: Pepper,
    accounts: AccountServer,
    keys: KeyServer,
    providers: ProviderServer,
    upstream_keys: UpstreamKeyServer,
    routes: RouteServer,
    prices: PriceServer,
}

impl World {
    pub(super) async fn new() -> Self {
        let time = Arc::new(Time(AtomicI64::new(START_MS)));
        let random: Arc<dyn Random> = Arc::new(Sequence(AtomicU64::new(1)));
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
        let kek = SealKey::new([5; 32]);
        let deployment = bootstrap::deployment(&store, &*random, &*time, kek.into())
            .await
            .unwrap();
        let clock: Arc<dyn Clock> = Arc::<Time>::clone(&time);
        let trail = Arc::new(Trail::new(Arc::clone(&store), Arc::clone(&clock)).unwrap());
        let credentials = Arc::new(Credentials {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            pepper: deployment.pepper.clone(),
            processes: Vec::new(),
        });
        let (generation, keyring) = (deployment.generation, deployment.keyring);
        let publisher = Arc::new(Publisher::new(ViewKey::new(Arc::clone(&random))));
        let config = ConfigStore::load(store, random, clock, keyring, generation, trail, publisher);
        let (config, pepper) = (Arc::new(config.await.unwrap()), deployment.pepper);
        Self {
            time,
            accounts: AccountServer {
                config: Arc::clone(&config),
                credentials,
            },
            keys: KeyServer {
                config: Arc::clone(&config),
                pepper: pepper.clone(),
            },
            providers: ProviderServer {
                config: Arc::clone(&config),
            },
            upstream_keys: UpstreamKeyServer {
                config: Arc::clone(&config),
                pepper: pepper.clone(),
            },
            routes: RouteServer {
                config: Arc::clone(&config),
            },
            prices: PriceServer {
                config: Arc::clone(&config),
            },
            pepper,
            config,
        }
    }

    fn pass(&self, ms: i64) {
        self.time.0.fetch_add(ms, Ordering::SeqCst);
    }

    async fn account(&self, request: CreateAccountRequest) -> Result<AccountView, Status> {
        let made = self.accounts.create_account(by_root(request)).await?;
        Ok(made.into_inner().account.unwrap())
    }

    async fn key(&self, request: CreateKeyRequest) -> Result<CreateKeyResponse, Status> {
        let made = self.keys.create_key(by_root(request)).await;
        made.map(Response::into_inner)
    }

    async fn update(&self, request: UpdateKeyRequest) -> Result<KeyView, Status> {
        let changed = self.keys.update_key(by_root(request)).await?;
        Ok(changed.into_inner().key.unwrap())
    }

    /// Whether nodes accept this text now.
    fn judge(&self, secret: &str) -> Option<Result<(), KeyRefusal>> {
        let state = self.config.state();
        let key = state.snapshot.key(&self.pepper.digest(secret))?;
        Some(key.active(self.time.unix_ms()))
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// As root asks for it.
pub(super) fn by_root<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let root = Caller::of_deployment("test", Role::Root);
    request.extensions_mut().insert(root);
    request
}

pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, want: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    let message = status.message();
    assert!(message.contains(want), "{message:?} does not say {want:?}");
}

/// The fields that a refusal names.
fn fields<T: std::fmt::Debug>(result: Result<T, Status>) -> Vec<String> {
    let details = result.unwrap_err().get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    violations.iter().map(|one| one.field.clone()).collect()
}

fn named(name: &str) -> CreateKeyRequest {
    CreateKeyRequest {
        name: name.into(),
        ..CreateKeyRequest::default()
    }
}

#[tokio::test]
async fn law_15_a_child_may_only_narrow_and_its_ancestor_is_named() {
    let world = World::new().await;
    let child = |parent: &str, name: &str, models: &[&str], endpoints: &[&str], from: &[&str]| {
        CreateAccountRequest {
            parent: parent.into(),
            name: name.into(),
            allowed_models: texts(models),
            allowed_endpoints: texts(endpoints),
            allowed_networks: texts(from),
            ..CreateAccountRequest::default()
        }
    };
    let team = child(
        "root",
        "team",
        &["gpt-*", "o3"],
        &["chat.completions", "models"],
        &["10.0.0.0/8"],
    );
    world.account(team).await.unwrap();
    let inner = child("root/team", "inner", &[], &[], &["10.1.0.0/16"]);
    world.account(inner).await.unwrap();
    for (models, endpoints, from, wrong, want) in [
        (
            &["claude-*"][..],
            &[][..],
            &[][..],
            &["allowed_models"][..],
            "`claude-*` is more than the account `root/team` allows",
        ),
        (
            &["gpt-4*", "*-mini"],
            &[],
            &[],
            &["allowed_models"],
            "`*-mini` is more",
        ),
        (
            &[],
            &["embeddings"],
            &["10.0.0.0/8"],
            &["allowed_networks", "allowed_endpoints"],
            "`10.0.0.0/8` is more than the account `root/team/inner` allows",
        ),
        (
            &["gpt-4*"],
            &[],
            &["10.1.2.3", "192.0.2.1"],
            &["allowed_networks"],
            "`192.0.2.1/32` is more",
        ),
        (
            &[],
            &[],
            &["10.1.2.3/8"],
            &["allowed_networks"],
            "write 10.0.0.0/8",
        ),
    ] {
        let request = child("root/team/inner", "leaf", models, endpoints, from);
        let refusal = world.account(request).await;
        assert_eq!(fields(refusal.clone()), wrong);
        refused(refusal, Code::InvalidArgument, want);
        let key = world.key(CreateKeyRequest {
            account: "root/team/inner".into(),
            name: "k".into(),
            allowed_models: texts(models),
            allowed_endpoints: texts(endpoints),
            allowed_networks: texts(from),
            ..CreateKeyRequest::default()
        });
        refused(key.await, Code::InvalidArgument, want);
    }
    let narrow = child(
        "root/team/inner",
        "leaf",
        &["gpt-4*"],
        &["models"],
        &["10.1.9.0/24"],
    );
    world.account(narrow).await.unwrap();
    // An ancestor may always be narrowed; what stands below then stays, and may be changed in other ways.
    let update = |account: &str, models: &[&str]| UpdateAccountRequest {
        account: account.into(),
        allowed_models: Some(StringList {
            values: texts(models),
        }),
        ..UpdateAccountRequest::default()
    };
    let narrowed = by_root(update("root/team", &["o3"]));
    world.accounts.update_account(narrowed).await.unwrap();
    let renamed = UpdateAccountRequest {
        account: "root/team/inner/leaf".into(),
        name: Some("still".into()),
        ..UpdateAccountRequest::default()
    };
    world
        .accounts
        .update_account(by_root(renamed))
        .await
        .unwrap();
    let again = by_root(update("root/team/inner/still", &["gpt-4*"]));
    let refusal = world.accounts.update_account(again).await;
    refused(refusal, Code::InvalidArgument, "`root/team` allows");
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_for_a_while() {
    let world = World::new().await;
    let first = world.key(named("k")).await.unwrap();
    let id = first.key.unwrap().id;
    let rotate = |overlap_ms, resource_version| {
        world.keys.rotate_key(by_root(RotateKeyRequest {
            id: id.clone(),
            overlap_ms,
            resource_version,
        }))
    };
    let second = rotate(60_000, 0).await.unwrap().into_inner();
    let view = second.key.unwrap();
    assert_eq!(view.previous_expires_unix_ms, START_MS + 60_000);
    assert_ne!(first.secret, second.secret);
    world.pass(59_999);
    assert_eq!(world.judge(&first.secret), Some(Ok(())));
    world.pass(1);
    assert_eq!(world.judge(&first.secret), Some(Err(KeyRefusal::Replaced)));
    assert_eq!(world.judge(&second.secret), Some(Ok(())));
    // At once; and what was replaced before is not known any more.
    let third = rotate(0, 0).await.unwrap().into_inner();
    assert_eq!(world.judge(&second.secret), Some(Err(KeyRefusal::Replaced)));
    assert_eq!(world.judge(&first.secret), None);
    assert_eq!(world.judge(&third.secret), Some(Ok(())));
    refused(
        rotate(0, view.resource_version).await,
        Code::Aborted,
        "was changed since it was read",
    );
    let long = rotate(31 * 24 * 3_600_000, 0).await;
    refused(long, Code::InvalidArgument, "30 days at most");
    let none = RotateKeyRequest {
        id: "nokeynokey00".into(),
        ..RotateKeyRequest::default()
    };
    let none = world.keys.rotate_key(by_root(none)).await;
    refused(none, Code::NotFound, "there is no virtual key");
    let gone = DeleteKeyRequest {
        id: id.clone(),
        ..DeleteKeyRequest::default()
    };
    world.keys.delete_key(by_root(gone)).await.unwrap();
    for secret in [&second.secret, &third.secret] {
        assert_eq!(world.judge(secret), None, "law 11");
    }
}

#[tokio::test]
async fn a_key_ends_when_it_is_said_to() {
    let world = World::new().await;
    let made = world
        .key(CreateKeyRequest {
            expires_unix_ms: START_MS + 1_000,
            ..named("k")
        })
        .await
        .unwrap();
    let id = made.key.unwrap().id;
    world.pass(999);
    assert_eq!(world.judge(&made.secret), Some(Ok(())));
    world.pass(1);
    assert_eq!(world.judge(&made.secret), Some(Err(KeyRefusal::Expired)));
    let end = |expires_unix_ms| UpdateKeyRequest {
        id: id.clone(),
        expires_unix_ms: Some(expires_unix_ms),
        ..UpdateKeyRequest::default()
    };
    let past = world.update(end(START_MS)).await;
    assert_eq!(fields(past), ["expires_unix_ms"]);
    world.update(end(0)).await.unwrap();
    assert_eq!(world.judge(&made.secret), Some(Ok(())));
}

#[tokio::test]
async fn a_repeated_creation_makes_nothing_again() {
    let world = World::new().await;
    let once = |name: &str| CreateKeyRequest {
        idempotency_key: "deploy-7".into(),
        ..named(name)
    };
    let first = world.key(once("k")).await.unwrap();
    assert!(!first.repeated && !first.secret.is_empty());
    let again = world.key(once("k")).await.unwrap();
    assert!(again.repeated && again.secret.is_empty());
    assert_eq!(again.key, first.key);
    let later = CreateKeyRequest {
        expires_unix_ms: START_MS + 99,
        ..once("k")
    };
    assert!(world.key(later).await.unwrap().repeated);
    assert_eq!(fields(world.key(once("other")).await), ["idempotency_key"]);
    let account = || CreateAccountRequest {
        name: "team".into(),
        idempotency_key: "deploy-7".into(),
        ..CreateAccountRequest::default()
    };
    let team = world.account(account()).await.unwrap();
    assert_eq!(world.account(account()).await.unwrap(), team);
    world.pass(24 * 3_600_000);
    let later = world.key(once("k")).await.unwrap();
    assert_ne!(later.key.unwrap().id, first.key.unwrap().id);
    let long = CreateKeyRequest {
        idempotency_key: "x".repeat(129),
        ..named("k")
    };
    assert_eq!(fields(world.key(long).await), ["idempotency_key"]);
}

#[tokio::test]
async fn a_write_on_an_old_version_is_refused() {
    let world = World::new().await;
    let team = CreateAccountRequest {
        name: "team".into(),
        ..CreateAccountRequest::default()
    };
    let team = world.account(team).await.unwrap();
    let update = |name: &str, resource_version| {
        world.accounts.update_account(by_root(UpdateAccountRequest {
            account: team.account.as_ref().unwrap().id.clone(),
            name: Some(name.into()),
            resource_version,
            ..UpdateAccountRequest::default()
        }))
    };
    let read = team.resource_version;
    let changed = update("one", read)
        .await
        .unwrap()
        .into_inner()
        .account
        .unwrap();
    assert!(changed.resource_version > read);
    refused(update("two", read).await, Code::Aborted, "read it again");
    update("three", 0).await.unwrap();
    let delete = |account: &str, resource_version| {
        world.accounts.delete_account(by_root(DeleteAccountRequest {
            account: account.into(),
            resource_version,
        }))
    };
    refused(delete("root/three", read).await, Code::Aborted, "version");
    let key = world
        .key(CreateKeyRequest {
            account: "root/three".into(),
            ..named("k")
        })
        .await
        .unwrap()
        .key
        .unwrap();
    let in_use = delete("root/three", 0).await;
    refused(
        in_use,
        Code::FailedPrecondition,
        "has 1 virtual keys; delete those first",
    );
    let delete_key = |resource_version| {
        world.keys.delete_key(by_root(DeleteKeyRequest {
            id: key.id.clone(),
            resource_version,
        }))
    };
    refused(delete_key(1).await, Code::Aborted, "version 1, now");
    delete_key(key.resource_version).await.unwrap();
    delete("root/three", 0).await.unwrap();
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let world = World::new().await;
    let team = CreateAccountRequest {
        name: "team".into(),
        ..CreateAccountRequest::default()
    };
    world.account(team).await.unwrap();
    for (account, name, end) in [
        ("root", "web-1", 0),
        ("root", "web-2", START_MS + 5),
        ("root/team", "web-3", 0),
        ("root/team", "job", START_MS + 5),
    ] {
        let request = CreateKeyRequest {
            account: account.into(),
            expires_unix_ms: end,
            ..named(name)
        };
        let made = world.key(request).await.unwrap().key.unwrap();
        if name == "job" {
            let off = UpdateKeyRequest {
                id: made.id,
                disabled: Some(true),
                ..UpdateKeyRequest::default()
            };
            world.update(off).await.unwrap();
        }
    }
    world.pass(5);
    let check = async |filter: ListKeysRequest, want: &[&str]| {
        let mut names = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListKeysRequest {
                page_size: 1,
                page_token,
                ..filter.clone()
            };
            let page = world
                .keys
                .list_keys(by_root(request))
                .await
                .unwrap()
                .into_inner();
            assert!(page.keys.len() <= 1);
            names.extend(page.keys.into_iter().map(|key| key.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        names.sort();
        assert_eq!(names, want, "{filter:?}");
    };
    let all = ListKeysRequest::default;
    check(all(), &["job", "web-1", "web-2", "web-3"]).await;
    check(
        ListKeysRequest {
            under: "root/team".into(),
            ..all()
        },
        &["job", "web-3"],
    )
    .await;
    check(
        ListKeysRequest {
            name: "web-*".into(),
            ..all()
        },
        &["web-1", "web-2", "web-3"],
    )
    .await;
    check(
        ListKeysRequest {
            disabled: Some(true),
            ..all()
        },
        &["job"],
    )
    .await;
    check(
        ListKeysRequest {
            expired: Some(true),
            ..all()
        },
        &["job", "web-2"],
    )
    .await;
    check(
        ListKeysRequest {
            expired: Some(false),
            disabled: Some(false),
            under: "root/team".into(),
            ..all()
        },
        &["web-3"],
    )
    .await;
    let wrong = ListKeysRequest {
        name: "x".repeat(300),
        ..all()
    };
    assert_eq!(fields(world.keys.list_keys(by_root(wrong)).await), ["name"]);
    let suspend = UpdateAccountRequest {
        account: "root/team".into(),
        suspended: Some(true),
        ..UpdateAccountRequest::default()
    };
    world
        .accounts
        .update_account(by_root(suspend))
        .await
        .unwrap();
    for (suspended, name, want) in [
        (Some(true), "", 1),
        (Some(false), "", 1),
        (None, "t*", 1),
        (None, "", 2),
    ] {
        let request = ListAccountsRequest {
            suspended,
            name: name.into(),
            ..ListAccountsRequest::default()
        };
        let page = world
            .accounts
            .list_accounts(by_root(request))
            .await
            .unwrap();
        assert_eq!(
            page.into_inner().accounts.len(),
            want,
            "{suspended:?} {name}"
        );
    }
}
