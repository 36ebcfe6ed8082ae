//! Subaccounts.

use std::sync::Arc;

use proxyxai_core::{
    account::{
        rules,
        tree::{AccountIndex, ROOT},
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

use super::{new_id, object, page, with};
use crate::{
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

pub(crate) struct AccountServer {
    pub(crate) config: Arc<ConfigStore>,
}

/// The account with this id or at this path; the root account when nothing is given.
pub(crate) fn find_account(state: &State, id_or_path: &str) -> Result<AccountIndex, Fault> {
    let wanted = if id_or_path.is_empty() {
        ROOT
    } else {
        id_or_path
    };
    let found = state.snapshot.accounts.find(wanted);
    found.ok_or_else(|| Fault::NotFound {
        what: "account",
        id: wanted.to_owned(),
    })
}

#[tonic::async_trait]
impl AccountService for AccountServer {
    async fn create_account(
        &self,
        request: Request<CreateAccountRequest>,
    ) -> Result<Response<CreateAccountResponse>, Status> {
        let request = request.into_inner();
        let id = new_id(self.config.random(), "acct");
        let created = self.config.clock.unix_ms();
        let edit = |state: &State| {
            let parent = find_account(state, &request.parent)?;
            check_free(state, parent, &request.name)?;
            let account = Account {
                id: id.clone(),
                parent_id: state.snapshot.accounts.id(parent).to_owned(),
                name: request.name.clone(),
                suspended: false,
                allowed_models: request.allowed_models.clone(),
            };
            Ok((
                vec![Edit::Put(object(
                    Kind::Account(account),
                    ManagedBy::Admin,
                    created,
                ))],
                (),
            ))
        };
        self.config.edit(edit).await?;
        Ok(Response::new(CreateAccountResponse {
            account: Some(self.view(&id)?),
        }))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let request = request.into_inner();
        let state = self.config.state();
        let under = find_account(&state, &request.under)?;
        let accounts = &state.snapshot.accounts;
        let inside = state
            .of_kind(ResourceKind::Account)
            .filter_map(|stored| view(&state, stored))
            .filter(|view| {
                accounts
                    .get(&id_of(view))
                    .is_some_and(|at| accounts.in_subtree(at, under))
            });
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
        let state = self.config.state();
        let at = find_account(&state, &request.into_inner().account)?;
        Ok(Response::new(GetAccountResponse {
            account: Some(self.view(state.snapshot.accounts.id(at))?),
        }))
    }

    async fn update_account(
        &self,
        request: Request<UpdateAccountRequest>,
    ) -> Result<Response<UpdateAccountResponse>, Status> {
        let request = request.into_inner();
        let edit = |state: &State| {
            let (stored, mut account) = stored(state, &request.account)?;
            let id = account.id.clone();
            if let Some(name) = request.name.as_ref().filter(|name| **name != account.name) {
                if let Some(parent) = state.snapshot.accounts.get(&account.parent_id) {
                    check_free(state, parent, name)?;
                }
                account.name.clone_from(name);
            }
            if let Some(suspended) = request.suspended {
                account.suspended = suspended;
            }
            if let Some(models) = &request.allowed_models {
                account.allowed_models.clone_from(&models.values);
            }
            Ok((vec![Edit::Put(with(&stored, Kind::Account(account)))], id))
        };
        let id = self.config.edit(edit).await?;
        Ok(Response::new(UpdateAccountResponse {
            account: Some(self.view(&id)?),
        }))
    }

    async fn delete_account(
        &self,
        request: Request<DeleteAccountRequest>,
    ) -> Result<Response<DeleteAccountResponse>, Status> {
        let request = request.into_inner();
        let edit = |state: &State| {
            let at = find_account(state, &request.account)?;
            let accounts = &state.snapshot.accounts;
            let (id, path) = (accounts.id(at).to_owned(), accounts.path(at));
            if id == ROOT {
                return Err(Fault::Precondition(
                    "the root account cannot be deleted".to_owned(),
                ));
            }
            if let Some(child) = accounts.children(at).next() {
                let child = accounts.path(child);
                return Err(Fault::Precondition(format!(
                    "the account `{path}` has children, among them `{child}`; delete those first"
                )));
            }
            let owned = |stored: &&StoredResource| matches!(kind(stored), Some(Kind::VirtualKey(key)) if key.account_id == id);
            let keys = state
                .of_kind(ResourceKind::VirtualKey)
                .filter(owned)
                .count();
            if keys > 0 {
                return Err(Fault::Precondition(format!(
                    "the account `{path}` has {keys} virtual keys; delete those first"
                )));
            }
            Ok((
                vec![Edit::Delete(ResourceName {
                    kind: ResourceKind::Account,
                    id,
                })],
                (),
            ))
        };
        self.config.edit(edit).await?;
        Ok(Response::new(DeleteAccountResponse {}))
    }
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
    rules::check_account_name(name).map_err(|error| Fault::Invalid(error.to_string()))?;
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

fn stored(state: &State, id_or_path: &str) -> Result<(StoredResource, Account), Fault> {
    let at = find_account(state, id_or_path)?;
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
    })
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
