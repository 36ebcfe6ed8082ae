//! `xai secret …`: the keys that seal secrets in the store.

use std::path::PathBuf;

use clap::Subcommand;
use proxyxai_proto::admin::v1::{DataKeyView, GetKeyringRequest, RotateKeyringRequest};
use serde_json::{Value, json};

use super::{api::call, connection::Connection};
use crate::{
    data::NEXT_KEY_ENCRYPTION_KEY, environment::Environment, failure::Failure, keys, output::Kind,
    system::SystemRandomness,
};

/// What can be done with the keys that seal secrets.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the data keys and how many secrets each seals.
    Show,
    /// Seal all secrets anew under a new data key; the old one is dropped.
    Rotate {
        /// Also take the next key-encryption key: that of the setting `next_key_encryption_key`.
        #[arg(long = "key-encryption-key")]
        with_next: bool,
    },
    /// Write a new key-encryption key to a file that does not exist yet.
    NewKey {
        /// The file [default: where the gateway looks for the next key, in the data directory].
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Leave a file that is there as it is, and be content.
        #[arg(long)]
        keep: bool,
    },
}

/// Data keys.
const DATA_KEY: Kind<'static> = Kind {
    one: "data_key",
    many: "data_keys",
    columns: &[
        ("DATA KEY", "id"),
        ("GENERATION", "generation"),
        ("SECRETS", "secrets"),
        ("CREATED", "created_unix_ms"),
        ("UNDER KEY", "key_encryption_key_id"),
    ],
};

/// Does what was asked for.
pub async fn run(
    verb: Verb,
    connection: &Connection,
    environment: &Environment,
) -> Result<(), Failure> {
    let output = connection.output();
    let view = match verb {
        Verb::NewKey { file, keep } => {
            let random = SystemRandomness::open();
            let random = random.map_err(|error| Failure::failed(error.to_string()))?;
            let file = match file {
                Some(file) => file,
                None => connection.data(environment)?.join(NEXT_KEY_ENCRYPTION_KEY),
            };
            if keep && file.exists() {
                return output.done(&format!("{} is there already.", file.display()));
            }
            let key = keys::make(&file, &random)?;
            return output.done(&format!("Key {} is in {}.", key.id(), file.display()));
        }
        Verb::Show => {
            let api = connection.open(environment)?;
            let mut client = api.secrets();
            call!(api, client.get_keyring(GetKeyringRequest {})).keyring
        }
        Verb::Rotate { with_next } => {
            let api = connection.open(environment)?;
            let request = RotateKeyringRequest {
                key_encryption_key: with_next,
            };
            let mut client = api.secrets();
            call!(api, client.rotate_keyring(request)).keyring
        }
    };
    let view = view.unwrap_or_default();
    let rows = view.data_keys.iter();
    let rows = rows.map(|key| row(key, &view.key_encryption_key_id));
    output.many(&DATA_KEY, rows.collect())
}

fn row(key: &DataKeyView, under: &str) -> Value {
    json!({
        "id": key.id,
        "generation": key.generation,
        "secrets": key.secrets,
        "created_unix_ms": key.created_unix_ms,
        "key_encryption_key_id": under,
    })
}
