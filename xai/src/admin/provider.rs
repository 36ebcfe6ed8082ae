//! `xai provider …`

use clap::Subcommand;
use proxyxai_core::route::{base_url::BaseUrl, provider::ProviderKind};
use proxyxai_proto::admin::v1::{
    CreateProviderRequest, DeleteProviderRequest, GetProviderRequest, ListProvidersRequest,
    ManagedBy, ProviderView, UpdateProviderRequest,
};
use serde_json::Value;

use super::{
    api::{Api, PAGE, all_pages, call},
    options::{IfVersion, Once, yes_or_no},
};
use crate::{
    failure::Failure,
    output::{
        Output,
        view::{self, PROVIDER},
    },
};

/// What can be done with providers.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Add a provider.
    Create {
        /// Its id: lower-case letters, digits and `-`.
        id: String,
        /// Its base address; a bare host means https.
        #[arg(long, value_name = "URL")]
        base: String,
        /// The API that it speaks: openai, anthropic, `openai_compatible` or gateway [default: guessed from its address].
        #[arg(long, value_parser = kind)]
        kind: Option<ProviderKind>,
        /// It may have a loopback or private address.
        #[arg(long)]
        allow_private: bool,
        /// That it is made once.
        #[command(flatten)]
        once: Once,
    },
    /// List providers.
    List {
        /// Only those that are disabled, or only the others.
        #[arg(long, value_name = "YES_OR_NO", value_parser = yes_or_no)]
        disabled: Option<bool>,
    },
    /// Show one provider.
    Show {
        /// Its id.
        id: String,
    },
    /// Change a provider.
    Set {
        /// Its id.
        id: String,
        /// A new base address.
        #[arg(long, value_name = "URL")]
        base: Option<String>,
        /// The API that it speaks.
        #[arg(long, value_parser = kind)]
        kind: Option<ProviderKind>,
        /// Whether it may have a loopback or private address.
        #[arg(long, value_name = "YES_OR_NO", value_parser = yes_or_no)]
        allow_private: Option<bool>,
        /// What was read before.
        #[command(flatten)]
        version: IfVersion,
    },
    /// Send it no requests from now on.
    Disable {
        /// Its id.
        id: String,
    },
    /// Send it requests again.
    Enable {
        /// Its id.
        id: String,
    },
    /// Delete a provider that no upstream key and no route names.
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
            id,
            base,
            kind,
            allow_private,
            once,
        } => {
            let parsed = BaseUrl::parse(&base)
                .map_err(|error| Failure::usage(format!("`{base}`: {error}")))?;
            let kind = kind.unwrap_or_else(|| ProviderKind::guess(&parsed, ""));
            let request = CreateProviderRequest {
                id,
                kind: kind.to_proto().into(),
                base_url: base,
                allow_private,
                managed_by: ManagedBy::Admin.into(),
                idempotency_key: once.idempotency_key,
            };
            let made = call!(api, api.providers().create_provider(request));
            return output.one(&PROVIDER, one(made.provider), &[]);
        }
        Verb::List { disabled } => {
            let all = all_pages!(api, providers, page_token => api.providers().list_providers(ListProvidersRequest {
                disabled,
                page_size: PAGE,
                page_token,
            }));
            return output.many(&PROVIDER, all.iter().map(view::provider).collect());
        }
        Verb::Show { id } => {
            let found = call!(api, api.providers().get_provider(GetProviderRequest { id }));
            return output.one(&PROVIDER, one(found.provider), &[]);
        }
        Verb::Delete { id, version } => {
            let request = DeleteProviderRequest {
                id: id.clone(),
                resource_version: version.if_version,
            };
            call!(api, api.providers().delete_provider(request));
            return output.done(&format!("Deleted provider {id}."));
        }
        Verb::Set {
            id,
            base,
            kind,
            allow_private,
            version,
        } => UpdateProviderRequest {
            id,
            kind: kind.map(|kind| kind.to_proto().into()),
            base_url: base,
            allow_private,
            disabled: None,
            resource_version: version.if_version,
        },
        Verb::Disable { id } => disabled(id, true),
        Verb::Enable { id } => disabled(id, false),
    };
    let changed = call!(api, api.providers().update_provider(update));
    output.one(&PROVIDER, one(changed.provider), &[])
}

fn disabled(id: String, disabled: bool) -> UpdateProviderRequest {
    UpdateProviderRequest {
        id,
        disabled: Some(disabled),
        ..UpdateProviderRequest::default()
    }
}

fn kind(word: &str) -> Result<ProviderKind, String> {
    ProviderKind::from_word(word).ok_or_else(|| {
        let words = ProviderKind::ALL.map(ProviderKind::as_str);
        format!("a kind is one of {}", words.join(", "))
    })
}

fn one(provider: Option<ProviderView>) -> Value {
    view::provider(&provider.unwrap_or_default())
}
