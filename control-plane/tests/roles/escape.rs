//! Random callers do random things through the real services: every answer is held against a plain definition that walks the names of
//! parents, and every few steps all that exists is compared with what the definition says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicU64,
};

use proxyxai_control_plane::store::{Range, Store as _};
use proxyxai_core::secret::ExposeSecret as _;
use proxyxai_proto::admin::v1::{
    ApplyManifestRequest, CreateAccountRequest, CreateCredentialRequest, CreateKeyRequest,
    CreateRouteRequest, DeleteAccountRequest, DeleteCredentialRequest, DeleteKeyRequest,
    GetAccountRequest, GetAuditChainRequest, GetCredentialRequest, GetKeyRequest,
    GetManifestRequest, GetSettingsRequest, ListAccountsRequest, ListAuditRecordsRequest,
    ListCredentialsRequest, ListKeysRequest, ListProvidersRequest, ListRoutesRequest,
    ListUpstreamKeysRequest, Manifest, ManifestAccount, QueryChangesRequest, QueryUsageRequest,
    Role, RotateCredentialRequest, Settings, UpdateAccountRequest, UpdateCredentialRequest,
    UpdateKeyRequest, UpdateSettingsRequest, WhoAmIRequest, manifest_object::Kind,
};
use tonic::{
    Code::{self, NotFound, Ok as Done, PermissionDenied, Unauthenticated},
    Response, Status,
};

use crate::{
    audit::{records, verify},
    gateway::{ADMIN, BEGIN, Gateway, Hand, Seeded},
    manifest,
};

#[tokio::test]
async fn roles_nobody_escapes_through_the_api_in_a_thousand_calls() {
    println!("seed 1");
    play(1, 1_000).await;
}

#[tokio::test]
#[ignore = "the full number, for `make prove SUITE=roles`"]
async fn roles_nobody_escapes_through_the_api_in_twenty_thousand_calls() {
    for seed in 2..=11 {
        println!("seed {seed}");
        play(seed, 2_000).await;
    }
}

async fn play(seed: u64, calls: u64) {
    let mut world = World::new(seed).await;
    for number in 0..calls {
        world.step().await;
        if number % 100 == 0 {
            world.compare().await;
            world.gateway.reconnect();
        }
    }
    world.compare().await;
    for outcome in [Done, PermissionDenied, NotFound, Unauthenticated] {
        let often = world
            .outcomes
            .get(&format!("{outcome:?}"))
            .copied()
            .unwrap_or(0);
        assert!(
            often > calls / 40,
            "{outcome:?} came {often} times: the play proves little"
        );
    }
    assert_eq!(verify(&world.gateway).await.faults, []);
    world.no_secret_is_kept().await;
}

const ROOT: &str = "root";
const MOST_ACCOUNTS: usize = 25;
const MOST_CREDENTIALS: usize = 40;

#[derive(Clone)]
struct Credential {
    id: String,
    secret: String,
    role: Role,
    account: String,
    expires: i64,
    disabled: bool,
}

struct World {
    gateway: Gateway,
    random: Seeded,
    now: i64,
    /// Each account, its parent, and whether it is suspended.
    accounts: BTreeMap<String, (Option<String>, bool)>,
    /// Each key and its account.
    keys: BTreeMap<String, String>,
    credentials: BTreeMap<String, Credential>,
    /// Of the processes, which are in no list.
    processes: Vec<Credential>,
    secrets: Vec<String>,
    outcomes: BTreeMap<String, u64>,
    names: u64,
}

impl World {
    async fn new(seed: u64) -> Self {
        let gateway = Gateway::start(seed).await;
        let process = |id: &str, secret: &str, role| Credential {
            id: id.to_owned(),
            secret: secret.to_owned(),
            role,
            account: ROOT.to_owned(),
            expires: 0,
            disabled: false,
        };
        let node = gateway.control.node_credential();
        Self {
            random: Seeded(AtomicU64::new(seed)),
            now: BEGIN,
            accounts: BTreeMap::from([(ROOT.to_owned(), (None, false))]),
            keys: BTreeMap::new(),
            credentials: BTreeMap::new(),
            processes: vec![
                process("admin", ADMIN, Role::Root),
                process("node", node.expose_secret(), Role::Node),
            ],
            secrets: vec![ADMIN.to_owned()],
            outcomes: BTreeMap::new(),
            names: 0,
            gateway,
        }
    }

    async fn step(&mut self) {
        if self.draw(10) == 0 {
            self.gateway.clock.advance(1_000);
            self.now += 1_000;
        }
        let caller = self.any_caller();
        let hand = self.gateway.with(&caller.secret);
        match self.draw(20) {
            0 | 1 => self.create_account(&caller, &hand).await,
            2 => self.update_account(&caller, &hand).await,
            3 => self.delete_account(&caller, &hand).await,
            4 => self.read_account(&caller, &hand).await,
            5 => self.list(&caller, &hand).await,
            6 => self.create_key(&caller, &hand).await,
            7 => self.use_files(&caller, &hand).await,
            8 | 9 => self.use_key(&caller, &hand).await,
            10..=12 => self.create_credential(&caller, &hand).await,
            13..=16 => self.use_credential(&caller, &hand).await,
            17 => self.see_usage_and_audit(&caller, &hand).await,
            18 => self.act_on_deployment(&caller, &hand).await,
            _ => self.ask_who(&caller, &hand).await,
        }
    }

    async fn create_account(&mut self, caller: &Credential, hand: &Hand) {
        let parent = self.any_account();
        self.names += 1;
        if self.accounts.len() >= MOST_ACCOUNTS || self.line(&parent).len() > 10 {
            return;
        }
        let request = CreateAccountRequest {
            parent: parent.clone(),
            name: format!("n{}", self.names),
            ..CreateAccountRequest::default()
        };
        let answer = hand.accounts().create_account(request).await;
        let want = self.want(caller, Need::Write, &parent);
        if let Some(made) = self.check(answer, want) {
            let id = made.account.unwrap().account.unwrap().id;
            self.accounts.insert(id, (Some(parent), false));
        }
    }

    async fn update_account(&mut self, caller: &Credential, hand: &Hand) {
        let account = self.any_account();
        let suspended = self.draw(6) == 0 && account != ROOT;
        let request = UpdateAccountRequest {
            account: account.clone(),
            suspended: Some(suspended),
            ..UpdateAccountRequest::default()
        };
        let answer = hand.accounts().update_account(request).await;
        let want = self.want(caller, Need::Govern, &account);
        if self.check(answer, want).is_some() {
            self.accounts.get_mut(&account).unwrap().1 = suspended;
        }
    }

    async fn delete_account(&mut self, caller: &Credential, hand: &Hand) {
        let account = self.any_account();
        let parent = Some(account.clone());
        let used = account == ROOT
            || self.accounts.values().any(|(other, _)| *other == parent)
            || self.keys.values().any(|other| *other == account)
            || self
                .credentials
                .values()
                .any(|other| other.account == account);
        let request = DeleteAccountRequest {
            account: account.clone(),
            ..DeleteAccountRequest::default()
        };
        let answer = hand.accounts().delete_account(request).await;
        let want = self.want(caller, Need::Govern, &account);
        let want = but(want, used, Code::FailedPrecondition);
        if self.check(answer, want).is_some() {
            self.accounts.remove(&account);
        }
    }

    async fn read_account(&mut self, caller: &Credential, hand: &Hand) {
        let account = self.any_account();
        let request = GetAccountRequest {
            account: account.clone(),
        };
        let answer = hand.accounts().get_account(request).await;
        let want = self.want(caller, Need::Read, &account);
        self.check(answer, want);
        let request = GetAccountRequest {
            account: "acct-nowhere".to_owned(),
        };
        let answer = hand.accounts().get_account(request).await;
        let want = but(
            self.want(caller, Need::Read, &caller.account),
            true,
            NotFound,
        );
        self.check(answer, want);
    }

    /// Lists show exactly what is below the account, to who sees that.
    async fn list(&mut self, caller: &Credential, hand: &Hand) {
        let under = if self.draw(2) == 0 {
            caller.account.clone()
        } else {
            self.any_account()
        };
        let want = self.want(caller, Need::Read, &under);
        let inside = |account: &str| self.line(account).contains(&under);
        let accounts: BTreeSet<String> = self
            .accounts
            .keys()
            .filter(|id| inside(id))
            .cloned()
            .collect();
        let keys: BTreeSet<String> = self
            .keys
            .iter()
            .filter(|(_, at)| inside(at))
            .map(|(id, _)| id.clone())
            .collect();
        let credentials: BTreeSet<String> = self
            .credentials
            .values()
            .filter(|c| inside(&c.account))
            .map(|c| c.id.clone())
            .collect();
        let (page_size, page_token) = (1000, String::new());
        let answer = hand
            .accounts()
            .list_accounts(ListAccountsRequest {
                under: under.clone(),
                page_size,
                page_token: page_token.clone(),
                ..ListAccountsRequest::default()
            })
            .await;
        if let Some(found) = self.check(answer, want) {
            let found: BTreeSet<String> = found
                .accounts
                .into_iter()
                .map(|view| view.account.unwrap().id)
                .collect();
            assert_eq!(found, accounts);
        }
        let answer = hand
            .keys()
            .list_keys(ListKeysRequest {
                under: under.clone(),
                page_size,
                page_token: page_token.clone(),
                ..ListKeysRequest::default()
            })
            .await;
        if let Some(found) = self.check(answer, want) {
            let found: BTreeSet<String> = found.keys.into_iter().map(|view| view.id).collect();
            assert_eq!(found, keys);
        }
        let answer = hand
            .credentials()
            .list_credentials(ListCredentialsRequest {
                under,
                page_size,
                page_token,
            })
            .await;
        if let Some(found) = self.check(answer, want) {
            let found: BTreeSet<String> =
                found.credentials.into_iter().map(|view| view.id).collect();
            assert_eq!(found, credentials);
        }
    }

    async fn create_key(&mut self, caller: &Credential, hand: &Hand) {
        let account = self.any_account();
        let request = CreateKeyRequest {
            account: account.clone(),
            name: "key".to_owned(),
            ..CreateKeyRequest::default()
        };
        let answer = hand.keys().create_key(request).await;
        let want = self.want(caller, Need::Write, &account);
        if let Some(made) = self.check(answer, want) {
            self.secrets.push(made.secret);
            self.keys.insert(made.key.unwrap().id, account);
        }
    }

    /// By a file nobody gets what single calls do not give. What is hidden is refused like what is not there: the file is invalid.
    async fn use_files(&mut self, caller: &Credential, hand: &Hand) {
        let account = self.any_account();
        let get = GetAccountRequest {
            account: account.clone(),
        };
        let root = self.gateway.with(ADMIN);
        let found = root.accounts().get_account(get).await.unwrap().into_inner();
        let path = found.account.unwrap().path;
        let by_file = |want: Code| match want == NotFound {
            true => Code::InvalidArgument,
            false => want,
        };
        let mut manifests = hand.manifests();
        match self.draw(3) {
            0 => {
                self.names += 1;
                let object = manifest::key(&path, &format!("m{}", self.names));
                let request = manifest::request(&[object], false);
                let answer = manifests.apply_manifest(request).await;
                let want = by_file(self.want(caller, Need::Write, &account));
                if let Some(done) = self.check(answer, want) {
                    let [made] = <[_; 1]>::try_from(done.created_keys).unwrap();
                    self.secrets.push(made.secret);
                    self.keys.insert(made.id, account);
                }
            }
            1 if account != ROOT => {
                let suspended = !self.accounts[&account].1;
                let object = ManifestAccount {
                    path,
                    suspended,
                    ..ManifestAccount::default()
                };
                let object = manifest::object(Kind::Account(object));
                let request = manifest::request(&[object], false);
                let answer = manifests.apply_manifest(request).await;
                let want = by_file(self.want(caller, Need::Govern, &account));
                if self.check(answer, want).is_some() {
                    self.accounts.get_mut(&account).unwrap().1 = suspended;
                }
            }
            _ => {
                let answer = manifests.get_manifest(GetManifestRequest {}).await;
                let want = self.want(caller, Need::Read, &caller.account);
                if let Some(found) = self.check(answer, want) {
                    let objects = found.manifest.unwrap().objects;
                    let is_account = |it: &&_| matches!(it, Kind::Account(_));
                    let is_key = |it: &&_| matches!(it, Kind::Key(_));
                    let kinds: Vec<Kind> = objects.into_iter().filter_map(|it| it.kind).collect();
                    let inside = |at: &String| self.line(at).contains(&caller.account);
                    assert_eq!(
                        kinds.iter().filter(is_account).count(),
                        self.accounts.keys().filter(|id| inside(id)).count()
                    );
                    assert_eq!(
                        kinds.iter().filter(is_key).count(),
                        self.keys.values().filter(|at| inside(at)).count()
                    );
                    let of_deployment = kinds.iter().any(|it| !is_account(&it) && !is_key(&it));
                    let sees = self.want_deployment(caller, false) == Done;
                    assert_eq!(of_deployment, sees, "there is always a price table");
                }
            }
        }
    }

    async fn use_key(&mut self, caller: &Credential, hand: &Hand) {
        let Some(id) = self.pick(&self.keys) else {
            return;
        };
        let account = self.keys[&id].clone();
        let write = self.want(caller, Need::Write, &account);
        match self.draw(3) {
            0 => {
                let answer = hand.keys().get_key(GetKeyRequest { id }).await;
                let want = self.want(caller, Need::Read, &account);
                self.check(answer, want);
            }
            1 => {
                let request = UpdateKeyRequest {
                    id,
                    disabled: Some(true),
                    ..UpdateKeyRequest::default()
                };
                let answer = hand.keys().update_key(request).await;
                self.check(answer, write);
            }
            _ => {
                let answer = hand
                    .keys()
                    .delete_key(DeleteKeyRequest {
                        id: id.clone(),
                        ..DeleteKeyRequest::default()
                    })
                    .await;
                if self.check(answer, write).is_some() {
                    self.keys.remove(&id);
                }
            }
        }
    }

    async fn create_credential(&mut self, caller: &Credential, hand: &Hand) {
        let account = self.any_account();
        let role = [
            Role::Root,
            Role::Admin,
            Role::Admin,
            Role::Viewer,
            Role::Node,
        ][self.draw(5)];
        let life = i64::try_from(self.draw(60)).unwrap() * 1_000 + 500;
        let asked = if self.draw(2) == 0 {
            self.now + life
        } else {
            0
        };
        let request = CreateCredentialRequest {
            role: role.into(),
            account: account.clone(),
            name: "somebody".to_owned(),
            expires_unix_ms: asked,
        };
        let answer = hand.credentials().create_credential(request).await;
        let expires = if asked == 0 { caller.expires } else { asked };
        let want = self.want_grant(caller, role, &account, expires);
        if let Some(made) = self.check(answer, want) {
            assert!(lives_at_most(expires, caller.expires));
            let id = made.credential.unwrap().id;
            self.secrets.push(made.secret.clone());
            let made = Credential {
                id: id.clone(),
                secret: made.secret,
                role,
                account,
                expires,
                disabled: false,
            };
            self.credentials.insert(id, made);
        }
    }

    async fn use_credential(&mut self, caller: &Credential, hand: &Hand) {
        let Some(id) = self.pick(&self.credentials) else {
            return;
        };
        let other = self.credentials[&id].clone();
        let give = self.want_grant(caller, other.role, &other.account, other.expires);
        let above = other.role == Role::Root && caller.role != Role::Root;
        let take = self.want(caller, Need::Write, &other.account);
        let take = but(take, above, PermissionDenied);
        let crowded = self.credentials.len() > MOST_CREDENTIALS;
        match self.draw(if crowded { 8 } else { 5 }) {
            0 => {
                let answer = hand
                    .credentials()
                    .get_credential(GetCredentialRequest { id })
                    .await;
                let want = self.want(caller, Need::Read, &other.account);
                self.check(answer, want);
            }
            1 => {
                let answer = hand
                    .credentials()
                    .rotate_credential(RotateCredentialRequest { id: id.clone() })
                    .await;
                if let Some(made) = self.check(answer, give) {
                    self.secrets.push(made.secret.clone());
                    self.credentials.get_mut(&id).unwrap().secret = made.secret;
                }
            }
            at @ (2 | 3) => {
                let disabled = at == 2;
                let request = UpdateCredentialRequest {
                    id: id.clone(),
                    disabled: Some(disabled),
                    ..UpdateCredentialRequest::default()
                };
                let answer = hand.credentials().update_credential(request).await;
                if self
                    .check(answer, if disabled { take } else { give })
                    .is_some()
                {
                    self.credentials.get_mut(&id).unwrap().disabled = disabled;
                }
            }
            _ => {
                let answer = hand
                    .credentials()
                    .delete_credential(DeleteCredentialRequest { id: id.clone() })
                    .await;
                if self.check(answer, take).is_some() {
                    self.credentials.remove(&id);
                }
            }
        }
    }

    async fn see_usage_and_audit(&mut self, caller: &Credential, hand: &Hand) {
        let under = self.any_account();
        let want = self.want(caller, Need::Read, &under);
        let answer = hand
            .usage()
            .query_usage(QueryUsageRequest {
                under: under.clone(),
                ..QueryUsageRequest::default()
            })
            .await;
        self.check(answer, want);
        let request = ListAuditRecordsRequest {
            under,
            ..ListAuditRecordsRequest::default()
        };
        let answer = hand.audit().list_audit_records(request).await;
        self.check(answer, want);
        if self.want(caller, Need::Read, &caller.account) != Done {
            return;
        }
        for record in records(hand, ListAuditRecordsRequest::default()).await {
            let inside = |line: &[String]| caller.account == ROOT || line.contains(&caller.account);
            let actor = record.actor.unwrap();
            assert!(
                record
                    .changes
                    .iter()
                    .all(|change| inside(&change.account_line)),
                "{caller:?} sees too much"
            );
            assert!(actor.credential_id.is_empty() || inside(&actor.account_line));
        }
    }

    async fn act_on_deployment(&mut self, caller: &Credential, hand: &Hand) {
        let (see, change) = (
            self.want_deployment(caller, false),
            self.want_deployment(caller, true),
        );
        let answer = hand
            .providers()
            .list_providers(ListProvidersRequest::default())
            .await;
        self.check(answer, see);
        let answer = hand
            .upstream_keys()
            .list_upstream_keys(ListUpstreamKeysRequest::default())
            .await;
        self.check(answer, see);
        let answer = hand
            .routes()
            .list_routes(ListRoutesRequest::default())
            .await;
        self.check(answer, see);
        let answer = hand.audit().get_audit_chain(GetAuditChainRequest {}).await;
        self.check(answer, see);
        let answer = hand.settings().get_settings(GetSettingsRequest {}).await;
        let settings = self.check(answer, see).and_then(|found| found.settings);
        // As it is, so that what others see stays the same.
        let same = UpdateSettingsRequest {
            max_stale_seconds: settings
                .and_then(|it| it.set)
                .map(|set| set.max_stale_seconds),
            ..UpdateSettingsRequest::default()
        };
        let answer = hand.settings().update_settings(same).await;
        self.check(answer, change);
        self.settings_in_a_manifest(caller, hand).await;
        let request = CreateRouteRequest {
            id: "-".to_owned(),
            ..CreateRouteRequest::default()
        };
        let answer = hand.routes().create_route(request).await;
        // Nobody may make a route with this id; whoever is told so got as far as that.
        self.check(
            answer,
            if change == Done {
                Code::InvalidArgument
            } else {
                change
            },
        );
    }

    /// Whoever gives settings in a file needs what it would need to change them by themselves.
    async fn settings_in_a_manifest(&mut self, caller: &Credential, hand: &Hand) {
        let manifest = Some(Manifest {
            objects: Vec::new(),
            settings: Some(Settings {
                max_stale_seconds: 60 + u64::try_from(self.draw(600)).unwrap(),
                ..Settings::default()
            }),
        });
        let query = QueryChangesRequest {
            manifest: manifest.clone(),
            prune: false,
        };
        let see = self.want_deployment(caller, false);
        let answer = hand.manifests().query_changes(query).await;
        self.check(answer, see);
        let apply = ApplyManifestRequest {
            manifest,
            ..ApplyManifestRequest::default()
        };
        let change = self.want_deployment(caller, true);
        let answer = hand.manifests().apply_manifest(apply).await;
        self.check(answer, change);
    }

    async fn ask_who(&mut self, caller: &Credential, hand: &Hand) {
        let answer = hand.credentials().who_am_i(WhoAmIRequest {}).await;
        let want = if self.is_fit(caller) {
            Done
        } else {
            Unauthenticated
        };
        if let Some(who) = self.check(answer, want) {
            assert_eq!(
                (who.role(), &who.account_id, who.expires_unix_ms),
                (caller.role, &caller.account, caller.expires)
            );
        }
    }

    /// Everything that exists, as root sees it, is what the definition says.
    async fn compare(&self) {
        let root = self.gateway.with(ADMIN);
        let (page_size, page_token) = (1000, String::new());
        let found = root
            .accounts()
            .list_accounts(ListAccountsRequest {
                page_size,
                page_token: page_token.clone(),
                ..ListAccountsRequest::default()
            })
            .await
            .unwrap()
            .into_inner();
        let found: BTreeMap<String, (Option<String>, bool)> = found
            .accounts
            .into_iter()
            .map(|view| view.account.unwrap())
            .map(|account| {
                (
                    account.id,
                    (
                        Some(account.parent_id).filter(|id| !id.is_empty()),
                        account.suspended,
                    ),
                )
            })
            .collect();
        assert_eq!(found, self.accounts);
        let found = root
            .keys()
            .list_keys(ListKeysRequest {
                page_size,
                page_token: page_token.clone(),
                ..ListKeysRequest::default()
            })
            .await
            .unwrap()
            .into_inner();
        let found: BTreeMap<String, String> = found
            .keys
            .into_iter()
            .map(|view| (view.id, view.account_id))
            .collect();
        assert_eq!(found, self.keys);
        let found = root
            .credentials()
            .list_credentials(ListCredentialsRequest {
                page_size,
                page_token,
                ..ListCredentialsRequest::default()
            })
            .await
            .unwrap()
            .into_inner();
        let found: Vec<_> = found
            .credentials
            .iter()
            .map(|c| {
                (
                    &c.id,
                    c.role(),
                    &c.account_id,
                    c.expires_unix_ms,
                    c.disabled,
                )
            })
            .collect();
        let want: Vec<_> = self
            .credentials
            .values()
            .map(|c| (&c.id, c.role, &c.account, c.expires, c.disabled))
            .collect();
        assert_eq!(found, want);
    }

    async fn no_secret_is_kept(&self) {
        for entry in self
            .gateway
            .store
            .range(Range::default())
            .await
            .unwrap()
            .entries
        {
            let text = String::from_utf8_lossy(&entry.value);
            let kept = self
                .secrets
                .iter()
                .any(|secret| text.contains(secret.as_str()));
            assert!(!kept, "{} holds a secret in plain", entry.key);
        }
    }

    /// What the caller gets who asks for this about an account that exists.
    fn want(&self, caller: &Credential, need: Need, account: &str) -> Code {
        let inside = self.line(account).contains(&caller.account);
        match (caller.role, need) {
            _ if !self.is_fit(caller) => Unauthenticated,
            (Role::Root, _) => Done,
            (Role::Node, _) | (Role::Viewer, Need::Write | Need::Govern) => PermissionDenied,
            _ if !inside => NotFound,
            (_, Need::Govern) if account == caller.account => PermissionDenied,
            _ => Done,
        }
    }

    fn want_grant(&self, caller: &Credential, role: Role, account: &str, expires: i64) -> Code {
        let allowed = match role {
            Role::Root => caller.role == Role::Root && account == ROOT,
            Role::Admin | Role::Viewer => true,
            Role::Node | Role::Unspecified => false,
        };
        let exceeds = !allowed || !lives_at_most(expires, caller.expires);
        but(
            self.want(caller, Need::Write, account),
            exceeds,
            PermissionDenied,
        )
    }

    fn want_deployment(&self, caller: &Credential, change: bool) -> Code {
        match caller.role {
            _ if !self.is_fit(caller) => Unauthenticated,
            Role::Root => Done,
            Role::Admin | Role::Viewer if !change && caller.account == ROOT => Done,
            Role::Admin | Role::Viewer | Role::Node | Role::Unspecified => PermissionDenied,
        }
    }

    fn is_fit(&self, caller: &Credential) -> bool {
        let Some(now) = self
            .credentials
            .get(&caller.id)
            .or_else(|| self.processes.iter().find(|p| p.id == caller.id))
        else {
            return false;
        };
        let suspended = self.line(&now.account).iter().any(|id| self.accounts[id].1);
        let unstoppable = matches!(now.role, Role::Root | Role::Node);
        now.secret == caller.secret
            && !now.disabled
            && (now.expires == 0 || self.now < now.expires)
            && (unstoppable || !suspended)
    }

    /// The account and all above it.
    fn line(&self, account: &str) -> Vec<String> {
        let mut line = Vec::new();
        let mut at = Some(account.to_owned());
        while let Some(id) = at {
            at = self.accounts[&id].0.clone();
            line.push(id);
        }
        line
    }

    fn check<T>(&mut self, answer: Result<Response<T>, Status>, want: Code) -> Option<T> {
        let code = answer.as_ref().map_or_else(Status::code, |_| Done);
        assert_eq!(code, want, "{:?}", answer.err());
        *self.outcomes.entry(format!("{code:?}")).or_default() += 1;
        answer.ok().map(Response::into_inner)
    }

    /// Half of the time somebody who is let in and sees a part alone, if there is one; else anybody.
    fn any_caller(&self) -> Credential {
        let apart = |c: &&Credential| self.is_fit(c) && c.account != ROOT;
        let bounded: Vec<&Credential> = self.credentials.values().filter(apart).collect();
        if !bounded.is_empty() && self.draw(2) == 0 {
            return bounded[self.draw(bounded.len())].clone();
        }
        match self.pick(&self.credentials) {
            Some(id) if self.draw(3) > 0 => self.credentials[&id].clone(),
            _ => self.processes[self.draw(4) / 3].clone(),
        }
    }

    fn any_account(&self) -> String {
        self.pick(&self.accounts).unwrap()
    }

    fn pick<T>(&self, of: &BTreeMap<String, T>) -> Option<String> {
        (!of.is_empty()).then(|| of.keys().nth(self.draw(of.len())).unwrap().clone())
    }

    fn draw(&self, limit: usize) -> usize {
        self.random.draw(limit)
    }
}

#[derive(Clone, Copy)]
enum Need {
    Read,
    Write,
    Govern,
}

/// What is wanted, but something else where it would be granted and must not be.
fn but(want: Code, refused: bool, code: Code) -> Code {
    if want == Done && refused { code } else { want }
}

fn lives_at_most(expires: i64, other: i64) -> bool {
    let end = |expires: i64| if expires == 0 { i64::MAX } else { expires };
    end(expires) <= end(other)
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?} of {})", self.id, self.role, self.account)
    }
}
