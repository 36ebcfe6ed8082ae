//! `xai upstream-key …`

use clap::Subcommand;
use proxyxai_proto::admin::v1::{
    CreateUpstreamKeyRequest, DeleteUpstreamKeyRequest, GetUpstreamKeyRequest,
    ListUpstreamKeysRequest, ManagedBy, StringList, UpdateUpstreamKeyRequest, UpstreamKeyView,
};
use serde_json::Value;

use super::{
    api::{Api, PAGE, all_pages, call},
    options::{IfVersion, Once, yes_or_no},
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
        /// Keys of a lower level are tried first: 0 to 10.
        #[arg(long, default_value_t = 0)]
        level: u32,
        /// Its turns among the keys of its level: 1 to 100.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        weight: u32,
        /// A model that it serves, by the provider's name, `*` standing for any characters; may be given several times [default: all].
        #[arg(long, value_name = "PATTERN")]
        model: Vec<String>,
        /// What the provider gave.
        #[command(flatten)]
        secret: Secret,
        /// That it is made once.
        #[command(flatten)]
        once: Once,
    },
    /// List keys, without their secrets.
    List {
        /// Only those of this provider.
        #[arg(long, default_value = "", hide_default_value = true)]
        provider: String,
        /// Only those that are disabled, or only the others.
        #[arg(long, value_name = "YES_OR_NO", value_parser = yes_or_no)]
        disabled: Option<bool>,
    },
    /// Show one key, without its secret.
    Show {
        /// Its id.
        id: String,
    },
    /// Change a key.
    Set {
        /// Its id.
        id: String,
        /// Keys of a lower level are tried first: 0 to 10.
        #[arg(long)]
        level: Option<u32>,
        /// Its turns among the keys of its level: 1 to 100.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        weight: Option<u32>,
        /// The models that it serves from now on, by the provider's names; may be given several times.
        #[arg(long, value_name = "PATTERN")]
        model: Vec<String>,
        /// It serves all models.
        #[arg(long, conflicts_with = "model")]
        all_models: bool,
        /// What the provider gave.
        #[command(flatten)]
        secret: Secret,
        /// What was read before.
        #[command(flatten)]
        version: IfVersion,
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
        /// What was read before.
        #[command(flatten)]
        version: IfVersion,
    },
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let update = match verb {
        Verb::Create {
            provider,
            id,
            level,
            weight,
            model,
            secret,
            once,
        } => {
            let request = CreateUpstreamKeyRequest {
                id,
                provider_id: provider,
                secret: secret.required()?,
                managed_by: ManagedBy::Admin.into(),
                level,
                weight,
                models: model,
                idempotency_key: once.idempotency_key,
            };
            let made = call!(api, api.upstream_keys().create_upstream_key(request));
            return output.one(&UPSTREAM_KEY, one(made.upstream_key), &[]);
        }
        Verb::List { provider, disabled } => {
            let all = all_pages!(api, upstream_keys, page_token => api.upstream_keys().list_upstream_keys(ListUpstreamKeysRequest {
                provider_id: provider.clone(),
                disabled,
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
        Verb::Delete { id, version } => {
            let request = DeleteUpstreamKeyRequest {
                id: id.clone(),
                resource_version: version.if_version,
            };
            call!(api, api.upstream_keys().delete_upstream_key(request));
            return output.done(&format!("Deleted upstream key {id}."));
        }
        Verb::Set {
            id,
            level,
            weight,
            model,
            all_models,
            secret,
            version,
        } => UpdateUpstreamKeyRequest {
            id,
            disabled: None,
            secret: secret.read()?,
            level,
            weight,
            models: (all_models || !model.is_empty()).then_some(StringList { values: model }),
            resource_version: version.if_version,
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
        ..UpdateUpstreamKeyRequest::default()
    }
}

fn one(key: Option<UpstreamKeyView>) -> Value {
    view::upstream_key(&key.unwrap_or_default())
}
