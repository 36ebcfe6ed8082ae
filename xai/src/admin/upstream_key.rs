//! `xai upstream-key …`

use clap::Subcommand;
use proxyxai_proto::admin::v1::{
    CreateUpstreamKeyRequest, DeleteUpstreamKeyRequest, GetUpstreamKeyRequest,
    ListUpstreamKeysRequest, ManagedBy, UpdateUpstreamKeyRequest, UpstreamKeyView,
};
use serde_json::Value;

use super::{
    api::{Api, PAGE, all_pages, call},
    secret::Secret,
};
use crate::{
    failure::Failure,
    output::{
        Output,
        view::{self, UPSTREAM_KEY},
    },
};

/// What can be done with upstream keys.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Add a key to the pool of a provider.
    Create {
        /// Id of the provider.
        #[arg(long)]
        provider: String,
        /// Its id: lower-case letters, digits and `-` [default: made up].
        #[arg(long, default_value = "", hide_default_value = true)]
        id: String,
        /// What the provider gave.
        #[command(flatten)]
        secret: Secret,
    },
    /// List keys, without their secrets.
    List {
        /// Only those of this provider.
        #[arg(long, default_value = "", hide_default_value = true)]
        provider: String,
    },
    /// Show one key, without its secret.
    Show {
        /// Its id.
        id: String,
    },
    /// Replace the secret of a key.
    Set {
        /// Its id.
        id: String,
        /// What the provider gave.
        #[command(flatten)]
        secret: Secret,
    },
    /// Use a key no more.
    Disable {
        /// Its id.
        id: String,
    },
    /// Use a disabled key again.
    Enable {
        /// Its id.
        id: String,
    },
    /// Delete a key.
    Delete {
        /// Its id.
        id: String,
    },
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let update = match verb {
        Verb::Create {
            provider,
            id,
            secret,
        } => {
            let request = CreateUpstreamKeyRequest {
                id,
                provider_id: provider,
                secret: secret.required()?,
                managed_by: ManagedBy::Admin.into(),
            };
            let made = call!(api, api.upstream_keys().create_upstream_key(request));
            return output.one(&UPSTREAM_KEY, one(made.upstream_key), &[]);
        }
        Verb::List { provider } => {
            let all = all_pages!(api, upstream_keys, page_token => api.upstream_keys().list_upstream_keys(ListUpstreamKeysRequest {
                provider_id: provider.clone(),
                page_size: PAGE,
                page_token,
            }));
            return output.many(&UPSTREAM_KEY, all.iter().map(view::upstream_key).collect());
        }
        Verb::Show { id } => {
            let request = GetUpstreamKeyRequest { id };
            let found = call!(api, api.upstream_keys().get_upstream_key(request));
            return output.one(&UPSTREAM_KEY, one(found.upstream_key), &[]);
        }
        Verb::Delete { id } => {
            let request = DeleteUpstreamKeyRequest { id: id.clone() };
            call!(api, api.upstream_keys().delete_upstream_key(request));
            return output.done(&format!("Deleted upstream key {id}."));
        }
        Verb::Set { id, secret } => UpdateUpstreamKeyRequest {
            id,
            disabled: None,
            secret: Some(secret.required()?),
        },
        Verb::Disable { id } => disabled(id, true),
        Verb::Enable { id } => disabled(id, false),
    };
    let changed = call!(api, api.upstream_keys().update_upstream_key(update));
    output.one(&UPSTREAM_KEY, one(changed.upstream_key), &[])
}

fn disabled(id: String, disabled: bool) -> UpdateUpstreamKeyRequest {
    UpdateUpstreamKeyRequest {
        id,
        disabled: Some(disabled),
        secret: None,
    }
}

fn one(key: Option<UpstreamKeyView>) -> Value {
    view::upstream_key(&key.unwrap_or_default())
}
