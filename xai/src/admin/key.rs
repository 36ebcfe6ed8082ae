//! `xai key …`

use std::{fs, io};

use clap::Subcommand;
use proxyxai_core::account::key;
use proxyxai_proto::admin::v1::{
    CreateKeyRequest, DeleteKeyRequest, GetKeyRequest, KeyView, ListKeysRequest, UpdateKeyRequest,
};
use serde_json::Value;

use super::{
    api::{Api, PAGE, all_pages, call},
    connection::Connection,
};
use crate::{
    data::FIRST_KEY,
    environment::Environment,
    failure::{Exit, Failure},
    output::{
        Output,
        view::{self, KEY},
    },
};

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
        name: String,
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
    },
    /// Print the first key of this gateway, which `xai up` made, until it is deleted.
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
    if let Verb::Delete { id } = &verb {
        let id = id.clone();
        act(verb, &api, output).await?;
        return forget_first(&id, connection, environment);
    }
    act(verb, &api, output).await
}

/// The first key is kept in plain until it is deleted; when that is done from this machine, at once.
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
                "the key is deleted, but its copy in {} cannot be: {error}",
                file.display()
            ))
        })?;
    }
    Ok(())
}

async fn act(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let update = match verb {
        Verb::First => return Ok(()),
        Verb::Create { account, name } => {
            let made = call!(
                api,
                api.keys().create_key(CreateKeyRequest { account, name })
            );
            return output.one(&KEY, one(made.key), &[("secret", &made.secret)]);
        }
        Verb::List { under } => {
            let keys = all_pages!(api, keys, page_token => api.keys().list_keys(ListKeysRequest {
                under: under.clone(),
                page_size: PAGE,
                page_token,
            }));
            return output.many(&KEY, keys.iter().map(view::key).collect());
        }
        Verb::Show { id } => {
            let found = call!(api, api.keys().get_key(GetKeyRequest { id }));
            return output.one(&KEY, one(found.key), &[]);
        }
        Verb::Delete { id } => {
            call!(
                api,
                api.keys().delete_key(DeleteKeyRequest { id: id.clone() })
            );
            return output.done(&format!("Deleted key {id}."));
        }
        Verb::Set { id, name } => UpdateKeyRequest {
            id,
            name: Some(name),
            disabled: None,
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
        name: None,
        disabled: Some(disabled),
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
