//! `xai account …`

use clap::Subcommand;
use proxyxai_proto::admin::v1::{
    AccountView, CreateAccountRequest, DeleteAccountRequest, GetAccountRequest,
    ListAccountsRequest, UpdateAccountRequest,
};
use serde_json::Value;

use super::{
    api::{Api, PAGE, all_pages, call},
    options::{Allow, IfVersion, Once, SetAllow, yes_or_no},
    stale::Staleness,
};
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
        /// A child gateway will call as this account: believe what its requests say of attempts, time and their name.
        #[arg(long)]
        gateway: bool,
        /// What it may be used for.
        #[command(flatten)]
        allow: Allow,
        /// How long nodes may serve it alone.
        #[command(flatten)]
        staleness: Staleness,
        /// That it is made once.
        #[command(flatten)]
        once: Once,
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
        /// Only those whose name fits, `*` standing for any characters.
        #[arg(
            long,
            value_name = "PATTERN",
            default_value = "",
            hide_default_value = true
        )]
        name: String,
        /// Only those that are suspended themselves, or only the others.
        #[arg(long, value_name = "YES_OR_NO", value_parser = yes_or_no)]
        suspended: Option<bool>,
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
        /// Whether a child gateway calls as this account.
        #[arg(long, value_name = "YES_OR_NO", value_parser = yes_or_no)]
        gateway: Option<bool>,
        /// What it may be used for.
        #[command(flatten)]
        allow: SetAllow,
        /// How long nodes may serve it alone.
        #[command(flatten)]
        staleness: Staleness,
        /// What was read before.
        #[command(flatten)]
        version: IfVersion,
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
        /// What was read before.
        #[command(flatten)]
        version: IfVersion,
    },
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let update = match verb {
        Verb::Create {
            name,
            parent,
            gateway,
            allow,
            staleness,
            once,
        } => {
            let request = CreateAccountRequest {
                parent,
                name,
                allowed_models: allow.allow_model,
                allowed_endpoints: allow.allow_endpoint,
                allowed_networks: allow.allow_from,
                idempotency_key: once.idempotency_key,
                max_stale_seconds: staleness.max_stale_seconds().unwrap_or_default(),
                serve_expired: staleness.serve_expired().unwrap_or_default(),
                gateway,
            };
            let made = call!(api, api.accounts().create_account(request)).account;
            return output.one(&ACCOUNT, one(made), &[]);
        }
        Verb::List {
            under,
            name,
            suspended,
        } => {
            let request = ListAccountsRequest {
                under,
                name,
                suspended,
                page_size: PAGE,
                ..ListAccountsRequest::default()
            };
            return list(request, api, output).await;
        }
        Verb::Show { account } => {
            let found = call!(
                api,
                api.accounts().get_account(GetAccountRequest { account })
            );
            return output.one(&ACCOUNT, one(found.account), &[]);
        }
        Verb::Delete { account, version } => {
            let request = DeleteAccountRequest {
                account: account.clone(),
                resource_version: version.if_version,
            };
            call!(api, api.accounts().delete_account(request));
            return output.done(&format!("Deleted account {account}."));
        }
        Verb::Set {
            account,
            name,
            gateway,
            allow,
            staleness,
            version,
        } => UpdateAccountRequest {
            account,
            name,
            suspended: None,
            gateway,
            allowed_models: allow.models(),
            allowed_endpoints: allow.endpoints(),
            allowed_networks: allow.networks(),
            resource_version: version.if_version,
            max_stale_seconds: staleness.max_stale_seconds(),
            serve_expired: staleness.serve_expired(),
        },
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
async fn list(request: ListAccountsRequest, api: &Api, output: Output) -> Result<(), Failure> {
    let mut accounts = all_pages!(api, accounts, page_token => api.accounts().list_accounts(ListAccountsRequest {
        page_token,
        ..request.clone()
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
