//! `xai join-token …`

use clap::Subcommand;
use proxyxai_proto::admin::v1::{
    CreateJoinTokenRequest, JoinTokenView, ListJoinTokensRequest, RevokeJoinTokenRequest,
};
use serde_json::{Value, json};

use super::api::{Api, PAGE, all_pages, call};
use crate::{
    failure::Failure,
    output::{Kind, Output},
    settings::value::Span,
};

/// What can be done with join tokens.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a token that lets nodes in; it is printed this once and cannot be shown again.
    Create {
        /// How many nodes it may let in; 0 means any number, for autoscalers.
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        uses: u32,
        /// How long it is good for; 0s means for ever.
        #[arg(long, value_name = "TIME", default_value = "1h")]
        expires: Span,
    },
    /// List the tokens, without their secrets.
    List,
    /// Let nobody in with a token from now on; nodes that joined with it stay.
    Revoke {
        /// Its id.
        id: String,
    },
}

const JOIN_TOKEN: Kind<'static> = Kind {
    one: "join_token",
    many: "join_tokens",
    columns: &[
        ("ID", "id"),
        ("USES", "uses"),
        ("AT MOST", "uses_max"),
        ("REVOKED", "revoked"),
        ("EXPIRES", "expires_unix_ms"),
        ("CREATED", "created_unix_ms"),
    ],
};

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Create { uses, expires } => {
            let request = CreateJoinTokenRequest {
                expires_in_seconds: expires.0.as_secs(),
                uses_max: uses,
            };
            let made = call!(api, api.join_tokens().create_join_token(request));
            output.one(&JOIN_TOKEN, one(made.join_token), &[("token", &made.token)])
        }
        Verb::List => {
            let all = all_pages!(api, join_tokens, page_token => api.join_tokens().list_join_tokens(ListJoinTokensRequest {
                page_size: PAGE,
                page_token,
            }));
            output.many(&JOIN_TOKEN, all.iter().map(view).collect())
        }
        Verb::Revoke { id } => {
            let revoked = call!(
                api,
                api.join_tokens()
                    .revoke_join_token(RevokeJoinTokenRequest { id })
            );
            output.one(&JOIN_TOKEN, one(revoked.join_token), &[])
        }
    }
}

fn one(token: Option<JoinTokenView>) -> Value {
    view(&token.unwrap_or_default())
}

/// A join token as JSON.
pub(super) fn view(token: &JoinTokenView) -> Value {
    let expires = (token.expires_unix_ms != 0).then_some(token.expires_unix_ms);
    json!({
        "id": token.id, "uses": token.uses, "uses_max": token.uses_max, "revoked": token.revoked,
        "expires_unix_ms": expires, "created_unix_ms": token.created_unix_ms,
    })
}
