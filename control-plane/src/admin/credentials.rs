//! Credentials of administrators. A secret appears in one answer, that of its making; after that only its digest exists.

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::{
    access::{
        Caller, Grant, Permission, Refusal, Role, credential,
        grant::{default_expiry, may_grant, may_manage},
        may,
    },
    account::rules,
    ports::random_bytes,
    secret::{ExposeSecret as _, SecretString},
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::{
    admin::v1::{
        AuditChange, CreateCredentialRequest, CreateCredentialResponse, CredentialView,
        DeleteCredentialRequest, DeleteCredentialResponse, GetCredentialRequest,
        GetCredentialResponse, ListCredentialsRequest, ListCredentialsResponse,
        RotateCredentialRequest, RotateCredentialResponse, UpdateCredentialRequest,
        UpdateCredentialResponse, WhoAmIRequest, WhoAmIResponse,
        credential_service_server::CredentialService,
    },
    store::v1::{Counter, StoredCredential},
};
use tonic::{Request, Response, Status};

use super::{accounts::find_account, page};
use crate::{
    audit::{Deed, Trail},
    auth::{self, Credentials},
    config_store::{ConfigStore, State},
    status::Fault,
    store::{Compare, Entry, Op, Txn, keyspace::Key},
};

/// Tries before a write gives up on others that change the same credential.
const TRIES: usize = 8;

pub(crate) struct CredentialServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) deployment_id: String,
}

/// What a change makes of a credential: `None` takes it away.
type Changed = Option<StoredCredential>;

#[tonic::async_trait]
impl CredentialService for CredentialServer {
    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let caller = auth::caller(&request)?;
        Ok(Response::new(WhoAmIResponse {
            role: caller.role.to_proto().into(),
            account_path: path(&self.config.state(), &caller.account),
            credential_id: caller.credential,
            account_id: caller.account,
            expires_unix_ms: caller.expires_unix_ms.unwrap_or_default(),
            deployment_id: self.deployment_id.clone(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn create_credential(
        &self,
        request: Request<CreateCredentialRequest>,
    ) -> Result<Response<CreateCredentialResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        rules::check_account_name(&request.name).map_err(|e| Fault::Invalid(e.to_string()))?;
        let role = Role::from_proto(request.role())
            .ok_or_else(|| Fault::Invalid("say which role: root, admin or viewer".to_owned()))?;
        let expires = default_expiry(&caller, request.expires_unix_ms);
        let now = self.check_expiry(expires)?;
        let id = credential::new_id(&random_bytes(self.config.random()));
        let (secret, digest) = self.new_secret(&id);
        let decide = |state: &State, found: Option<StoredCredential>| {
            if found.is_some() {
                return Err(Fault::Defect("a new id was taken already".to_owned()));
            }
            let account = find_account(state, &caller, Permission::Write, &request.account)?;
            let grant = Grant {
                role,
                account,
                expires_unix_ms: expires,
            };
            let accounts = &state.snapshot.accounts;
            may_grant(&caller, &grant, accounts).map_err(Fault::Denied)?;
            Ok(Some(StoredCredential {
                id: id.clone(),
                name: request.name.clone(),
                role: role.to_proto().into(),
                account_id: accounts.id(account).to_owned(),
                disabled: false,
                expires_unix_ms: expires.unwrap_or_default(),
                created_unix_ms: now,
                rotated_unix_ms: now,
                digest: digest.clone(),
            }))
        };
        let made = self
            .change(&caller, "CreateCredential", &id, decide)
            .await?;
        Ok(Response::new(CreateCredentialResponse {
            credential: self.view(made),
            secret: secret.expose_secret().to_owned(),
        }))
    }

    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Result<Response<ListCredentialsResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let state = self.config.state();
        let under = find_account(&state, &caller, Permission::Read, &request.under)?;
        let accounts = &state.snapshot.accounts;
        let all = self.credentials.all().await?;
        let inside = all.iter().filter(|stored| {
            let at = accounts.get(&stored.account_id);
            at.is_some_and(|at| accounts.in_subtree(at, under))
        });
        let (credentials, next_page_token) = page(
            inside.map(|stored| view(&state, stored)),
            |view| view.id.clone(),
            request.page_size,
            &request.page_token,
        );
        Ok(Response::new(ListCredentialsResponse {
            credentials,
            next_page_token,
        }))
    }

    async fn get_credential(
        &self,
        request: Request<GetCredentialRequest>,
    ) -> Result<Response<GetCredentialResponse>, Status> {
        let caller = auth::caller(&request)?;
        let id = request.into_inner().id;
        let state = self.config.state();
        let found = self.credentials.read(&id).await?;
        let stored = found.map(|(_, stored)| stored);
        let stored = seen(&state, &caller, Permission::Read, &id, stored)?;
        Ok(Response::new(GetCredentialResponse {
            credential: Some(view(&state, &stored)),
        }))
    }

    async fn update_credential(
        &self,
        request: Request<UpdateCredentialRequest>,
    ) -> Result<Response<UpdateCredentialResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        if let Some(name) = &request.name {
            rules::check_account_name(name).map_err(|e| Fault::Invalid(e.to_string()))?;
        }
        let expires = request
            .expires_unix_ms
            .map(|wanted| default_expiry(&caller, wanted));
        if let Some(expires) = expires {
            self.check_expiry(expires)?;
        }
        let decide = |state: &State, found: Option<StoredCredential>| {
            let mut stored = seen(state, &caller, Permission::Write, &request.id, found)?;
            if let Some(name) = &request.name {
                stored.name.clone_from(name);
            }
            stored.disabled = request.disabled.unwrap_or(stored.disabled);
            if let Some(expires) = expires {
                stored.expires_unix_ms = expires.unwrap_or_default();
            }
            // To let it be used again, or longer, is to give it anew.
            let gives = request.disabled == Some(false) || expires.is_some();
            worth(state, &caller, &stored, gives)?;
            Ok(Some(stored))
        };
        let changed = self
            .change(&caller, "UpdateCredential", &request.id, decide)
            .await?;
        Ok(Response::new(UpdateCredentialResponse {
            credential: self.view(changed),
        }))
    }

    async fn rotate_credential(
        &self,
        request: Request<RotateCredentialRequest>,
    ) -> Result<Response<RotateCredentialResponse>, Status> {
        let caller = auth::caller(&request)?;
        let id = request.into_inner().id;
        let (secret, digest) = self.new_secret(&id);
        let now = self.config.clock.unix_ms();
        let decide = |state: &State, found: Option<StoredCredential>| {
            let mut stored = seen(state, &caller, Permission::Write, &id, found)?;
            worth(state, &caller, &stored, true)?;
            stored.digest.clone_from(&digest);
            stored.rotated_unix_ms = now;
            Ok(Some(stored))
        };
        let changed = self
            .change(&caller, "RotateCredential", &id, decide)
            .await?;
        Ok(Response::new(RotateCredentialResponse {
            credential: self.view(changed),
            secret: secret.expose_secret().to_owned(),
        }))
    }

    async fn delete_credential(
        &self,
        request: Request<DeleteCredentialRequest>,
    ) -> Result<Response<DeleteCredentialResponse>, Status> {
        let caller = auth::caller(&request)?;
        let id = request.into_inner().id;
        let decide = |state: &State, found: Option<StoredCredential>| {
            let stored = seen(state, &caller, Permission::Write, &id, found)?;
            worth(state, &caller, &stored, false)?;
            Ok(None)
        };
        self.change(&caller, "DeleteCredential", &id, decide)
            .await?;
        Ok(Response::new(DeleteCredentialResponse {}))
    }
}

impl CredentialServer {
    /// Changes one credential, and records who did: `decide` sees what is stored and says what shall be.
    async fn change(
        &self,
        caller: &Caller,
        action: &str,
        id: &str,
        decide: impl Fn(&State, Option<StoredCredential>) -> Result<Changed, Fault>,
    ) -> Result<Changed, Fault> {
        for _ in 0..TRIES {
            let state = self.config.state();
            let found = self.credentials.read(id).await?;
            let before = found.as_ref().map(|(_, stored)| stored.clone());
            let after = match decide(&state, before.clone()) {
                Ok(after) => after,
                Err(fault) => return Err(self.config.refused(caller, action, fault).await),
            };
            if before == after {
                return Ok(after);
            }
            let change = self.audited(&state, id, before.as_ref(), after.as_ref())?;
            let deed = Deed {
                caller,
                action,
                accounts: &state.snapshot.accounts,
            };
            let entry = found.map(|(entry, _)| entry);
            let mut txn = write(id, entry.as_ref(), after.as_ref());
            if let (None, Some(made)) = (&before, &after) {
                self.note_made(&state, made, &mut txn).await?;
            }
            if self.trail.commit(&deed, vec![change], txn).await?.succeeded {
                return Ok(after);
            }
        }
        Err(Fault::Contended)
    }

    /// Has a new credential fail when its account is changed or deleted meanwhile, and tells those who delete accounts of it.
    async fn note_made(
        &self,
        state: &State,
        made: &StoredCredential,
        txn: &mut Txn,
    ) -> Result<(), Fault> {
        let account = ResourceName {
            kind: ResourceKind::Account,
            id: made.account_id.clone(),
        };
        let version = state.version(&account);
        let account = Key::Config(account).to_string();
        txn.compares.push(Compare::ModRevision(account, version));
        let (count, entry) = self.credentials.made().await?;
        let key = Key::CredentialsMade.to_string();
        txn.compares
            .push(Compare::unchanged(key.clone(), entry.as_ref()));
        let value = count.saturating_add(1);
        txn.then
            .push(Op::Put(key, Counter { value }.encode_to_vec()));
        Ok(())
    }

    fn audited(
        &self,
        state: &State,
        id: &str,
        before: Option<&StoredCredential>,
        after: Option<&StoredCredential>,
    ) -> Result<AuditChange, Fault> {
        let accounts = &state.snapshot.accounts;
        let account = after.or(before).map(|stored| stored.account_id.as_str());
        let at = account.and_then(|account| accounts.get(account));
        self.trail.change(
            ("credential", id),
            at.map(|at| accounts.id_line(at)).unwrap_or_default(),
            "proxyxai.store.v1.StoredCredential",
            before.map(StoredCredential::encode_to_vec).as_deref(),
            after.map(StoredCredential::encode_to_vec).as_deref(),
        )
    }

    fn new_secret(&self, id: &str) -> (SecretString, Vec<u8>) {
        let secret = credential::generate(id, random_bytes(self.config.random()));
        let digest = credential::digest(&self.credentials.pepper, secret.expose_secret());
        (secret, digest.to_vec())
    }

    /// The time now, before which nothing new expires.
    fn check_expiry(&self, expires: Option<i64>) -> Result<i64, Fault> {
        let now = self.config.clock.unix_ms();
        if expires.is_some_and(|expires| expires <= now) {
            return Err(Fault::Invalid(
                "the time at which the credential shall expire is over; say a later one".to_owned(),
            ));
        }
        Ok(now)
    }

    fn view(&self, stored: Changed) -> Option<CredentialView> {
        let state = self.config.state();
        stored.map(|stored| view(&state, &stored))
    }
}

/// The credential, if the caller may do this with what is in its account.
fn seen(
    state: &State,
    caller: &Caller,
    permission: Permission,
    id: &str,
    found: Option<StoredCredential>,
) -> Result<StoredCredential, Fault> {
    let accounts = &state.snapshot.accounts;
    let found = found.and_then(|stored| Some((accounts.get(&stored.account_id)?, stored)));
    let checked = found
        .ok_or(Refusal::Hidden)
        .and_then(|(at, stored)| may(caller, permission, accounts, at).map(|()| stored));
    checked.map_err(|refusal| Fault::refused(refusal, "credential", id))
}

/// Whether the caller has what this credential is worth: all of it when the credential is given, else enough to take from it.
fn worth(
    state: &State,
    caller: &Caller,
    stored: &StoredCredential,
    gives: bool,
) -> Result<(), Fault> {
    let accounts = &state.snapshot.accounts;
    let (Some(role), Some(account)) = (
        Role::from_proto(stored.role()),
        accounts.get(&stored.account_id),
    ) else {
        return Err(Fault::Defect(format!(
            "the credential `{}` has no role or no account",
            stored.id
        )));
    };
    let grant = Grant {
        role,
        account,
        expires_unix_ms: Some(stored.expires_unix_ms).filter(|expires| *expires != 0),
    };
    let allowed = if gives {
        may_grant(caller, &grant, accounts)
    } else {
        may_manage(caller, role, account, accounts)
    };
    allowed.map_err(|refusal| Fault::refused(refusal, "credential", &stored.id))
}

fn write(id: &str, entry: Option<&Entry>, after: Option<&StoredCredential>) -> Txn {
    let key = Key::Credential(id.to_owned()).to_string();
    let op = match after {
        Some(stored) => Op::Put(key.clone(), stored.encode_to_vec()),
        None => Op::Delete(key.clone()),
    };
    Txn {
        compares: vec![Compare::unchanged(key, entry)],
        then: vec![op],
    }
}

fn view(state: &State, stored: &StoredCredential) -> CredentialView {
    CredentialView {
        id: stored.id.clone(),
        name: stored.name.clone(),
        role: stored.role,
        account_id: stored.account_id.clone(),
        account_path: path(state, &stored.account_id),
        disabled: stored.disabled,
        expires_unix_ms: stored.expires_unix_ms,
        created_unix_ms: stored.created_unix_ms,
        rotated_unix_ms: stored.rotated_unix_ms,
    }
}

fn path(state: &State, account: &str) -> String {
    let accounts = &state.snapshot.accounts;
    let at = accounts.get(account);
    at.map(|at| accounts.path(at)).unwrap_or_default()
}
