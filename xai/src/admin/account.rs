//! `xai account …`

use clap::Subcommand;
use proxyxai_proto::admin::v1::{
    AccountView, CreateAccountRequest, DeleteAccountRequest, GetAccountRequest,
    ListAccountsRequest, StringList, UpdateAccountRequest,
};
use serde_json::Value;

use super::api::{Api, PAGE, all_pages, call};
use crate::{
    failure::Failure,
    output::{
        Output,
        view::{self, ACCOUNT},
    },
};

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make an account below another one.
    Create {
        /// Its name, unique among its siblings.
        name: String,
        /// Id or path of the account above it [default: your own].
        #[arg(
            long,
            value_name = "ACCOUNT",
            default_value = "",
            hide_default_value = true
        )]
        parent: String,
        /// A model that it may use, `*` standing for any characters; may be given several times [default: all that its parent may use].
        #[arg(long, value_name = "PATTERN")]
        allow_model: Vec<String>,
    },
    /// List accounts as a tree.
    List {
        /// Id or path of the account at the top [default: your own].
        #[arg(
            long,
            value_name = "ACCOUNT",
            default_value = "",
            hide_default_value = true
        )]
        under: String,
    },
    /// Show one account.
    Show {
        /// Its id or path.
        account: String,
    },
    /// Change an account.
    Set {
        /// Its id or path.
        account: String,
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        /// The models that it may use from now on; may be given several times.
        #[arg(long, value_name = "PATTERN")]
        allow_model: Vec<String>,
        /// It may use all that its parent may.
        #[arg(long, conflicts_with = "allow_model")]
        allow_all_models: bool,
    },
    /// Stop an account and all below it.
    #[command(alias = "disable")]
    Suspend {
        /// Its id or path.
        account: String,
    },
    /// Let a suspended account go on.
    #[command(alias = "enable")]
    Resume {
        /// Its id or path.
        account: String,
    },
    /// Delete an account that has neither children nor keys.
    Delete {
        /// Its id or path.
        account: String,
    },
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let update = match verb {
        Verb::Create {
            name,
            parent,
            allow_model,
        } => {
            let request = CreateAccountRequest {
                parent,
                name,
                allowed_models: allow_model,
            };
            let made = call!(api, api.accounts().create_account(request)).account;
            return output.one(&ACCOUNT, one(made), &[]);
        }
        Verb::List { under } => return list(under, api, output).await,
        Verb::Show { account } => {
            let found = call!(
                api,
                api.accounts().get_account(GetAccountRequest { account })
            );
            return output.one(&ACCOUNT, one(found.account), &[]);
        }
        Verb::Delete { account } => {
            let request = DeleteAccountRequest {
                account: account.clone(),
            };
            call!(api, api.accounts().delete_account(request));
            return output.done(&format!("Deleted account {account}."));
        }
        Verb::Set {
            account,
            name,
            allow_model,
            allow_all_models,
        } => {
            let models = !allow_model.is_empty() || allow_all_models;
            UpdateAccountRequest {
                account,
                name,
                suspended: None,
                allowed_models: models.then_some(StringList {
                    values: allow_model,
                }),
            }
        }
        Verb::Suspend { account } => suspended(account, true),
        Verb::Resume { account } => suspended(account, false),
    };
    let changed = call!(api, api.accounts().update_account(update));
    output.one(&ACCOUNT, one(changed.account), &[])
}

fn suspended(account: String, suspended: bool) -> UpdateAccountRequest {
    UpdateAccountRequest {
        account,
        suspended: Some(suspended),
        ..UpdateAccountRequest::default()
    }
}

/// Children stand below their parent; people see them indented.
async fn list(under: String, api: &Api, output: Output) -> Result<(), Failure> {
    let mut accounts = all_pages!(api, accounts, page_token => api.accounts().list_accounts(ListAccountsRequest {
        under: under.clone(),
        page_size: PAGE,
        page_token,
    }));
    accounts.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    let top = accounts.first().map_or(0, |account| depth(&account.path));
    let shown = |account: &AccountView| {
        let mut item = view::account(account);
        if output == Output::Table {
            let name = account.path.rsplit('/').next().unwrap_or_default();
            let indent = "  ".repeat(depth(&account.path).saturating_sub(top));
            item["path"] = Value::String(format!("{indent}{name}"));
        }
        item
    };
    output.many(&ACCOUNT, accounts.iter().map(shown).collect())
}

fn depth(path: &str) -> usize {
    path.matches('/').count()
}

fn one(account: Option<AccountView>) -> Value {
    view::account(&account.unwrap_or_default())
}
