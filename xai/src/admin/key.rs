//! `xai key …`

use std::{fs, io};

use clap::Subcommand;
use proxyxai_core::account::key;
use proxyxai_proto::admin::v1::{
    CreateKeyRequest, DeleteKeyRequest, GetKeyRequest, KeyView, ListKeysRequest, RotateKeyRequest,
    UpdateKeyRequest,
};
use serde_json::Value;

use super::{
    api::{Api, PAGE, all_pages, call},
    connection::Connection,
    options::{Allow, IfVersion, Once, SetAllow, yes_or_no},
    when::{End, Length},
};
use crate::{
    data::FIRST_KEY,
    environment::Environment,
    failure::{Exit, Failure},
    output::{
        Output,
        view::{self, KEY},
    },
    system,
};

/// Said in place of the secret.
const REPEATED: &str = "an earlier call with this idempotency key made the key, and its secret was shown then; `xai key rotate` gives another";

/// What can be done with virtual keys.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a key; it is printed this once and cannot be shown again.
    Create {
        /// Id or path of the account that it belongs to [default: your own].
        #[arg(long, default_value = "", hide_default_value = true)]
        account: String,
        /// What it is for.
        #[arg(long, default_value = "key")]
        name: String,
        /// Refuse it from then on: a distance from now (30d, 12h), a date, or a time such as 2027-01-31T12:00:00Z [default: never].
        #[arg(long, value_name = "WHEN")]
        expires: Option<End>,
        /// What it may be used for.
        #[command(flatten)]
        allow: Allow,
        /// That it is made once.
        #[command(flatten)]
        once: Once,
    },
    /// List the keys of an account and of those below it.
    List {
        /// Id or path of the account [default: your own].
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
        /// Only those that are disabled, or only the others.
        #[arg(long, value_name = "YES_OR_NO", value_parser = yes_or_no)]
        disabled: Option<bool>,
        /// Only those that have expired, or only the others.
        #[arg(long, value_name = "YES_OR_NO", value_parser = yes_or_no)]
        expired: Option<bool>,
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
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        /// Refuse it from then on: a distance from now (30d, 12h), a date, a time, or never.
        #[arg(long, value_name = "WHEN")]
        expires: Option<End>,
        /// What it may be used for.
        #[command(flatten)]
        allow: SetAllow,
        /// What was read before.
        #[command(flatten)]
        version: IfVersion,
    },
    /// Give a key a new secret, which is printed this once; the one before works on for a while, or ends at once.
    Rotate {
        /// Its id.
        id: String,
        /// How long the secret of now works on, as in 1h or 7d, at most 30d [default: it ends at once].
        #[arg(long, value_name = "TIME")]
        overlap: Option<Length>,
        /// What was read before.
        #[command(flatten)]
        version: IfVersion,
    },
    /// Refuse a key from now on.
    Disable {
        /// Its id.
        id: String,
    },
    /// Accept a disabled key again.
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
    /// Print the first key of this gateway, which `xai up` made, until it is deleted or rotated.
    First,
}

/// Does it.
pub async fn run(
    verb: Verb,
    connection: &Connection,
    environment: &Environment,
) -> Result<(), Failure> {
    let output = connection.output();
    if matches!(verb, Verb::First) {
        return first(connection, environment);
    }
    let api = connection.open(environment)?;
    if let Verb::Delete { id, .. } | Verb::Rotate { id, .. } = &verb {
        let id = id.clone();
        act(verb, &api, output).await?;
        return forget_first(&id, connection, environment);
    }
    act(verb, &api, output).await
}

/// The first key is kept in plain until it is deleted or rotated; when that is done from this machine, its copy goes at once.
fn forget_first(
    id: &str,
    connection: &Connection,
    environment: &Environment,
) -> Result<(), Failure> {
    let file = connection.data(environment)?.join(FIRST_KEY);
    let kept = fs::read_to_string(&file).unwrap_or_default();
    if key::parse(kept.trim()).is_ok_and(|kept| kept.id() == id) {
        fs::remove_file(&file).map_err(|error| {
            Failure::failed(format!(
                "it is done, but the copy of the key in {} cannot be deleted: {error}",
                file.display()
            ))
        })?;
    }
    Ok(())
}

async fn act(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let update = match verb {
        Verb::First => return Ok(()),
        Verb::Create {
            account,
            name,
            expires,
            allow,
            once,
        } => {
            let request = CreateKeyRequest {
                account,
                name,
                expires_unix_ms: expires.map_or(0, |end| end.unix_ms(system::unix_ms())),
                allowed_models: allow.allow_model,
                allowed_endpoints: allow.allow_endpoint,
                allowed_networks: allow.allow_from,
                idempotency_key: once.idempotency_key,
            };
            let made = call!(api, api.keys().create_key(request));
            let with = if made.repeated {
                ("note", REPEATED)
            } else {
                ("secret", made.secret.as_str())
            };
            return output.one(&KEY, one(made.key), &[with]);
        }
        Verb::Rotate {
            id,
            overlap,
            version,
        } => {
            let overlap = overlap.map_or(0, |Length(time)| time.as_millis());
            let request = RotateKeyRequest {
                id,
                overlap_ms: u64::try_from(overlap).unwrap_or(u64::MAX),
                resource_version: version.if_version,
            };
            let made = call!(api, api.keys().rotate_key(request));
            return output.one(&KEY, one(made.key), &[("secret", &made.secret)]);
        }
        Verb::List {
            under,
            name,
            disabled,
            expired,
        } => {
            let request = ListKeysRequest {
                under,
                name,
                disabled,
                expired,
                page_size: PAGE,
                ..ListKeysRequest::default()
            };
            let keys = all_pages!(api, keys, page_token => api.keys().list_keys(ListKeysRequest {
                page_token,
                ..request.clone()
            }));
            return output.many(&KEY, keys.iter().map(view::key).collect());
        }
        Verb::Show { id } => {
            let found = call!(api, api.keys().get_key(GetKeyRequest { id }));
            return output.one(&KEY, one(found.key), &[]);
        }
        Verb::Delete { id, version } => {
            let request = DeleteKeyRequest {
                id: id.clone(),
                resource_version: version.if_version,
            };
            call!(api, api.keys().delete_key(request));
            return output.done(&format!("Deleted key {id}."));
        }
        Verb::Set {
            id,
            name,
            expires,
            allow,
            version,
        } => UpdateKeyRequest {
            id,
            name,
            disabled: None,
            expires_unix_ms: expires.map(|end| end.unix_ms(system::unix_ms())),
            allowed_models: allow.models(),
            allowed_endpoints: allow.endpoints(),
            allowed_networks: allow.networks(),
            resource_version: version.if_version,
        },
        Verb::Disable { id } => disabled(id, true),
        Verb::Enable { id } => disabled(id, false),
    };
    let changed = call!(api, api.keys().update_key(update));
    output.one(&KEY, one(changed.key), &[])
}

fn disabled(id: String, disabled: bool) -> UpdateKeyRequest {
    UpdateKeyRequest {
        id,
        disabled: Some(disabled),
        ..UpdateKeyRequest::default()
    }
}

fn first(connection: &Connection, environment: &Environment) -> Result<(), Failure> {
    let file = connection.data(environment)?.join(FIRST_KEY);
    match fs::read_to_string(&file) {
        Ok(key) => connection.output().word("secret", key.trim()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::new(
            Exit::NotFound,
            format!(
                "there is no first key in {}: it was deleted, or `xai up` has not run there; make one with `xai key create`",
                file.display()
            ),
        )),
        Err(error) => Err(Failure::failed(format!(
            "{} cannot be read: {error}",
            file.display()
        ))),
    }
}

fn one(key: Option<KeyView>) -> Value {
    view::key(&key.unwrap_or_default())
}
