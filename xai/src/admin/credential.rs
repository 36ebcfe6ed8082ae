//! `xai credential …`

use std::str::FromStr;

use clap::Subcommand;
use proxyxai_proto::admin::v1::{
    self as proto, CreateCredentialRequest, CredentialView, DeleteCredentialRequest,
    GetCredentialRequest, ListCredentialsRequest, RotateCredentialRequest, UpdateCredentialRequest,
};
use serde_json::Value;

use super::{
    api::{Api, PAGE, all_pages, call},
    when::When,
};
use crate::{
    failure::Failure,
    output::{
        Output,
        people::{self, CREDENTIAL},
    },
    system,
};

/// What can be done with credentials.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a credential; its secret is printed this once and cannot be shown again.
    Create {
        /// Whose it is, or what it is for.
        name: String,
        /// What its holder may do.
        #[arg(long)]
        role: Role,
        /// Id or path of the account whose subtree it acts in [default: your own].
        #[arg(long, default_value = "", hide_default_value = true)]
        account: String,
        /// When it ends: a span from now such as 90d, a date, or a time [default: when yours does].
        #[arg(long, value_name = "WHEN")]
        expires: Option<Expiry>,
    },
    /// List the credentials of an account and of those below it.
    List {
        /// Id or path of the account [default: your own].
        #[arg(
            long,
            value_name = "ACCOUNT",
            default_value = "",
            hide_default_value = true
        )]
        under: String,
    },
    /// Show one credential, without its secret.
    Show {
        /// Its id.
        id: String,
    },
    /// Change a credential.
    Set {
        /// Its id.
        id: String,
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        /// When it ends: a span from now such as 90d, a date, a time, or `never`, which is when yours does.
        #[arg(long, value_name = "WHEN")]
        expires: Option<Expiry>,
    },
    /// Refuse a credential from now on.
    Disable {
        /// Its id.
        id: String,
    },
    /// Accept a disabled credential again.
    Enable {
        /// Its id.
        id: String,
    },
    /// Give a credential a new secret, printed this once; the one before is refused from then on.
    Rotate {
        /// Its id.
        id: String,
    },
    /// Delete a credential.
    Delete {
        /// Its id.
        id: String,
    },
}

/// Roles that a credential can be given.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Role {
    /// Everything in the whole deployment.
    Root,
    /// Changes what is below the account, and the keys and credentials in it.
    Admin,
    /// Sees what an admin sees, changes nothing.
    Viewer,
}

impl Role {
    fn to_proto(self) -> proto::Role {
        match self {
            Self::Root => proto::Role::Root,
            Self::Admin => proto::Role::Admin,
            Self::Viewer => proto::Role::Viewer,
        }
    }
}

/// When a credential ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// With that of who gives it.
    Never,
    /// At a time, or after a span.
    At(When),
}

impl FromStr for Expiry {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "never" => Ok(Self::Never),
            _ => text.parse().map(Self::At).map_err(
                |_| "say when: a span from now (90d), a date (2027-01-31) or a time (2027-01-31T10:00:00Z)",
            ),
        }
    }
}

impl Expiry {
    fn unix_ms(self) -> i64 {
        match self {
            Self::Never => 0,
            Self::At(when) => when.to_come(system::unix_ms()),
        }
    }
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let update = match verb {
        Verb::Create {
            name,
            role,
            account,
            expires,
        } => {
            let request = CreateCredentialRequest {
                role: role.to_proto().into(),
                account,
                name,
                expires_unix_ms: expires.map_or(0, Expiry::unix_ms),
            };
            let made = call!(api, api.credentials().create_credential(request));
            return output.one(
                &CREDENTIAL,
                one(made.credential),
                &[("secret", &made.secret)],
            );
        }
        Verb::List { under } => {
            let all = all_pages!(api, credentials, page_token => api.credentials().list_credentials(ListCredentialsRequest {
                under: under.clone(),
                page_size: PAGE,
                page_token,
            }));
            return output.many(&CREDENTIAL, all.iter().map(people::credential).collect());
        }
        Verb::Show { id } => {
            let request = GetCredentialRequest { id };
            let found = call!(api, api.credentials().get_credential(request));
            return output.one(&CREDENTIAL, one(found.credential), &[]);
        }
        Verb::Rotate { id } => {
            let request = RotateCredentialRequest { id };
            let made = call!(api, api.credentials().rotate_credential(request));
            return output.one(
                &CREDENTIAL,
                one(made.credential),
                &[("secret", &made.secret)],
            );
        }
        Verb::Delete { id } => {
            let request = DeleteCredentialRequest { id: id.clone() };
            call!(api, api.credentials().delete_credential(request));
            return output.done(&format!("Deleted credential {id}."));
        }
        Verb::Set { id, name, expires } => UpdateCredentialRequest {
            id,
            name,
            disabled: None,
            expires_unix_ms: expires.map(Expiry::unix_ms),
        },
        Verb::Disable { id } => disabled(id, true),
        Verb::Enable { id } => disabled(id, false),
    };
    let changed = call!(api, api.credentials().update_credential(update));
    output.one(&CREDENTIAL, one(changed.credential), &[])
}

fn disabled(id: String, disabled: bool) -> UpdateCredentialRequest {
    UpdateCredentialRequest {
        id,
        disabled: Some(disabled),
        ..UpdateCredentialRequest::default()
    }
}

fn one(credential: Option<CredentialView>) -> Value {
    people::credential(&credential.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::Expiry;

    #[test]
    fn an_end_is_said_as_a_span_a_date_or_a_time() {
        let check = |text: &str, unix_ms: Option<i64>| {
            let read = text.parse::<Expiry>().ok();
            let at = read.map(|expiry| match expiry {
                Expiry::Never => 0,
                Expiry::At(when) => when.to_come(1_000),
            });
            assert_eq!(at, unix_ms, "{text}");
        };
        check("never", Some(0));
        check("90d", Some(1_000 + 90 * 86_400_000));
        check("1h", Some(3_601_000));
        check("2026-11-24", Some(1_795_478_400_000));
        check("soon", None);
    }
}
