//! Subaccounts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_core::{
    access::{Caller, Permission, may},
    account::{
        limits::Dimension,
        rules,
        staleness::Looser,
        tree::{AccountIndex, ROOT, limits_of},
    },
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::{
    admin::v1::{
        AccountView, CreateAccountRequest, CreateAccountResponse, DeleteAccountRequest,
        DeleteAccountResponse, GetAccountRequest, GetAccountResponse, ListAccountsRequest,
        ListAccountsResponse, ManagedBy, UpdateAccountRequest, UpdateAccountResponse,
        account_service_server::AccountService,
    },
    config::v1::{Account, resource::Kind},
    store::v1::StoredResource,
};
use tonic::{Request, Response, Status};

use super::{
    new_id, object, page,
    staleness::{check_staleness, staleness_of},
    with,
    writing::{call_mark, check_limits, check_version, made_before, name_filter},
};
use crate::{
    auth::{self, Credentials},
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

/// Tries to delete an account while credentials are being made, and the time between them.
const TRIES: usize = 8;
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct AccountServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) credentials: Arc<Credentials>,
}

/// The account with this id or at this path, if the caller may do this with it; the caller's own when nothing is given.
pub(crate) fn find_account(
    state: &State,
    caller: &Caller,
    permission: Permission,
    id_or_path: &str,
) -> Result<AccountIndex, Fault> {
    let wanted = if id_or_path.is_empty() {
        &caller.account
    } else {
        id_or_path
    };
    let accounts = &state.snapshot.accounts;
    let at = accounts.find(wanted).ok_or_else(|| Fault::NotFound {
        what: "account",
        id: wanted.to_owned(),
    })?;
    may(caller, permission, accounts, at)
        .map_err(|refusal| Fault::refused(refusal, "account", wanted))?;
    Ok(at)
}

#[tonic::async_trait]
impl AccountService for AccountServer {
    async fn create_account(
        &self,
        request: Request<CreateAccountRequest>,
    ) -> Result<Response<CreateAccountResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let mark = call_mark(
            &caller,
            "CreateAccount",
            &request.idempotency_key,
            &request.encode_to_vec(),
        )?;
        let new_id = new_id(self.config.random(), "acct");
        let now = self.config.clock.unix_ms();
        let edit = |state: &State| {
            if let Some(made) = made_before(state, ResourceKind::Account, mark.as_ref(), now)? {
                return Ok((Vec::new(), made));
            }
            let stored = create(state, &caller, &request, &new_id, now)?;
            let created_by = mark.clone();
            Ok((
                vec![Edit::Put(StoredResource {
                    created_by,
                    ..stored
                })],
                new_id.clone(),
            ))
        };
        let id = self.config.edit(&caller, "CreateAccount", edit).await?;
        Ok(Response::new(CreateAccountResponse {
            account: Some(self.view(&id)?),
        }))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let state = self.config.state();
        let under = find_account(&state, &caller, Permission::Read, &request.under)?;
        let name = name_filter(&request.name)?;
        let accounts = &state.snapshot.accounts;
        let wanted = |stored: &&StoredResource| {
            account_of(stored).is_some_and(|account| {
                name.as_ref().is_none_or(|name| name.matches(&account.name))
                    && request.suspended.is_none_or(|s| s == account.suspended)
                    && accounts
                        .get(&account.id)
                        .is_some_and(|at| accounts.in_subtree(at, under))
            })
        };
        let inside = state
            .after(ResourceKind::Account, &request.page_token)
            .filter(wanted)
            .filter_map(|stored| view(&state, stored));
        let (accounts, next_page_token) =
            page(inside, id_of, request.page_size, &request.page_token);
        Ok(Response::new(ListAccountsResponse {
            accounts,
            next_page_token,
        }))
    }

    async fn get_account(
        &self,
        request: Request<GetAccountRequest>,
    ) -> Result<Response<GetAccountResponse>, Status> {
        let caller = auth::caller(&request)?;
        let state = self.config.state();
        let wanted = request.into_inner().account;
        let at = find_account(&state, &caller, Permission::Read, &wanted)?;
        Ok(Response::new(GetAccountResponse {
            account: Some(self.view(state.snapshot.accounts.id(at))?),
        }))
    }

    async fn update_account(
        &self,
        request: Request<UpdateAccountRequest>,
    ) -> Result<Response<UpdateAccountResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| {
            let (edit, id) = update(state, &caller, &request)?;
            Ok((vec![edit], id))
        };
        let id = self.config.edit(&caller, "UpdateAccount", edit).await?;
        Ok(Response::new(UpdateAccountResponse {
            account: Some(self.view(&id)?),
        }))
    }

    async fn delete_account(
        &self,
        request: Request<DeleteAccountRequest>,
    ) -> Result<Response<DeleteAccountResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State, with_credentials: &BTreeSet<String>| {
            let gone = delete(state, &caller, &request, with_credentials)?;
            Ok((vec![gone], ()))
        };
        let (config, credentials) = (&self.config, &self.credentials);
        edit_without_new_credentials(config, credentials, &caller, "DeleteAccount", edit).await?;
        Ok(Response::new(DeleteAccountResponse {}))
    }
}

/// A change that takes accounts away: `decide` also sees the ids of those that have credentials, and none is made until it is in force.
pub(crate) async fn edit_without_new_credentials<T>(
    config: &ConfigStore,
    credentials: &Credentials,
    caller: &Caller,
    action: &str,
    decide: impl Fn(&State, &BTreeSet<String>) -> Result<(Vec<Edit>, T), Fault>,
) -> Result<T, Fault> {
    for _ in 0..TRIES {
        let guard = credentials.none_made_meanwhile().await?;
        let with_credentials = credentials.accounts().await?;
        let edit = |state: &State| {
            let (mut edits, answer) = decide(state, &with_credentials)?;
            if !edits.is_empty() {
                edits.push(Edit::Only(guard.clone()));
            }
            Ok((edits, answer))
        };
        match config.edit(caller, action, edit).await {
            Err(Fault::Contended) => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
    Err(Fault::Contended)
}

/// A new account under this id.
pub(crate) fn create(
    state: &State,
    caller: &Caller,
    request: &CreateAccountRequest,
    id: &str,
    now_unix_ms: i64,
) -> Result<StoredResource, Fault> {
    let parent = find_account(state, caller, Permission::Write, &request.parent)?;
    check_free(state, parent, &request.name)?;
    let account = Account {
        id: id.to_owned(),
        parent_id: state.snapshot.accounts.id(parent).to_owned(),
        name: request.name.clone(),
        suspended: false,
        allowed_models: request.allowed_models.clone(),
        allowed_endpoints: request.allowed_endpoints.clone(),
        allowed_networks: request.allowed_networks.clone(),
        max_stale_seconds: request.max_stale_seconds,
        serve_expired: request.serve_expired,
        gateway: request.gateway,
    };
    check_limits(state, Some(parent), limits_of(&account), &Dimension::ALL)?;
    let said = staleness_of(&account)?;
    check_staleness((state, caller), Some(parent), said, |_| true)?;
    Ok(object(
        Kind::Account(account),
        ManagedBy::Admin,
        now_unix_ms,
    ))
}

/// Changes the fields that are given; gives the account's id too.
pub(crate) fn update(
    state: &State,
    caller: &Caller,
    request: &UpdateAccountRequest,
) -> Result<(Edit, String), Fault> {
    let (stored, mut account) = stored(state, caller, &request.account)?;
    let id = account.id.clone();
    check_version(state, "account", &name_of(&id), request.resource_version)?;
    if let Some(name) = request.name.as_ref().filter(|name| **name != account.name) {
        if let Some(parent) = state.snapshot.accounts.get(&account.parent_id) {
            check_free(state, parent, name)?;
        }
        account.name.clone_from(name);
    }
    if let Some(suspended) = request.suspended {
        account.suspended = suspended;
    }
    if let Some(gateway) = request.gateway {
        account.gateway = gateway;
    }
    let mut written = Vec::new();
    for (dimension, given, list) in [
        (
            Dimension::Models,
            &request.allowed_models,
            &mut account.allowed_models,
        ),
        (
            Dimension::Endpoints,
            &request.allowed_endpoints,
            &mut account.allowed_endpoints,
        ),
        (
            Dimension::Networks,
            &request.allowed_networks,
            &mut account.allowed_networks,
        ),
    ] {
        if let Some(given) = given {
            list.clone_from(&given.values);
            written.push(dimension);
        }
    }
    let parent = state.snapshot.accounts.get(&account.parent_id);
    check_limits(state, parent, limits_of(&account), &written)?;
    let (max_stale, serve_expired) = (request.max_stale_seconds, request.serve_expired);
    account.max_stale_seconds = max_stale.unwrap_or(account.max_stale_seconds);
    account.serve_expired = serve_expired.unwrap_or(account.serve_expired);
    let said = staleness_of(&account)?;
    check_staleness((state, caller), parent, said, |looser| match looser {
        Looser::MaxStale { .. } => max_stale.is_some(),
        Looser::Forbidden { .. } | Looser::NotGiven => serve_expired.is_some(),
    })?;
    Ok((Edit::Put(with(&stored, Kind::Account(account))), id))
}

/// Takes an account away that nothing is in. `with_credentials` are the ids of accounts that have any.
pub(crate) fn delete(
    state: &State,
    caller: &Caller,
    request: &DeleteAccountRequest,
    with_credentials: &BTreeSet<String>,
) -> Result<Edit, Fault> {
    let at = find_account(state, caller, Permission::Govern, &request.account)?;
    let accounts = &state.snapshot.accounts;
    let (id, path) = (accounts.id(at).to_owned(), accounts.path(at));
    if id == ROOT {
        return Err(Fault::Precondition(
            "the root account cannot be deleted".to_owned(),
        ));
    }
    check_version(state, "account", &name_of(&id), request.resource_version)?;
    let in_use = |why: String| Fault::InUse {
        what: "account",
        id: path.clone(),
        why,
    };
    if let Some(child) = accounts.children(at).next() {
        let child = accounts.path(child);
        return Err(in_use(format!(
            "has children, among them `{child}`; delete those first"
        )));
    }
    let keys = state.snapshot.keys.owned(at);
    if keys > 0 {
        return Err(in_use(format!(
            "has {keys} virtual keys; delete those first"
        )));
    }
    if with_credentials.contains(&id) {
        return Err(in_use("has credentials; delete those first".to_owned()));
    }
    Ok(Edit::Delete(name_of(&id)))
}

impl AccountServer {
    fn view(&self, id: &str) -> Result<AccountView, Fault> {
        let state = self.config.state();
        let stored = state.get(ResourceKind::Account, id);
        stored
            .and_then(|stored| view(&state, stored))
            .ok_or_else(|| Fault::NotFound {
                what: "account",
                id: id.to_owned(),
            })
    }
}

/// Whether a child of this name may be made: the name has the form of one, and no child has it.
fn check_free(state: &State, parent: AccountIndex, name: &str) -> Result<(), Fault> {
    rules::check_account_name(name).map_err(|error| Fault::field("name", error))?;
    let accounts = &state.snapshot.accounts;
    let path = format!("{}/{name}", accounts.path(parent));
    match accounts.by_path(&path) {
        None => Ok(()),
        Some(_) => Err(Fault::Exists {
            what: "account",
            id: path,
        }),
    }
}

fn stored(
    state: &State,
    caller: &Caller,
    id_or_path: &str,
) -> Result<(StoredResource, Account), Fault> {
    let at = find_account(state, caller, Permission::Govern, id_or_path)?;
    let found = state.get(ResourceKind::Account, state.snapshot.accounts.id(at));
    match found.and_then(|stored| kind(stored).map(|kind| (stored, kind))) {
        Some((stored, Kind::Account(account))) => Ok((stored.clone(), account.clone())),
        _ => Err(Fault::NotFound {
            what: "account",
            id: id_or_path.to_owned(),
        }),
    }
}

fn view(state: &State, stored: &StoredResource) -> Option<AccountView> {
    let Some(Kind::Account(account)) = kind(stored) else {
        return None;
    };
    let accounts = &state.snapshot.accounts;
    let at = accounts.get(&account.id)?;
    Some(AccountView {
        account: Some(account.clone()),
        path: accounts.path(at),
        effectively_suspended: accounts.active(at).is_err(),
        created_unix_ms: stored.created_unix_ms,
        resource_version: state.version(&name_of(&account.id)),
    })
}

fn name_of(id: &str) -> ResourceName {
    ResourceName {
        kind: ResourceKind::Account,
        id: id.to_owned(),
    }
}

fn account_of(stored: &StoredResource) -> Option<&Account> {
    match kind(stored) {
        Some(Kind::Account(account)) => Some(account),
        _ => None,
    }
}

fn id_of(view: &AccountView) -> String {
    view.account
        .as_ref()
        .map(|account| account.id.clone())
        .unwrap_or_default()
}

fn kind(stored: &StoredResource) -> Option<&Kind> {
    stored.resource.as_ref()?.kind.as_ref()
}
