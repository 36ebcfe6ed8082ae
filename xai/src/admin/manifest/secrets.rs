//! Where the secrets of new virtual keys go: they are told this once, so there is a place for them before any key is made.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use proxyxai_proto::admin::v1::CreatedKey;
use serde_json::{Value, json};

use crate::{failure::Failure, output};

/// A file that was made for them, or standard output.
pub(super) struct File(Option<(fs::File, PathBuf)>);

impl File {
    /// Makes the file; one that is there is never written over.
    pub(super) fn open(path: Option<&Path>, keys: usize) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Err(Failure::usage(format!(
                "{keys} virtual keys would be made, and their secrets are told this once; say where they shall go with --secrets-out FILE, or `--secrets-out -` for standard output"
            )));
        };
        if path.as_os_str() == "-" {
            return Ok(Self(None));
        }
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = opened.map_err(|error| {
            Failure::usage(format!(
                "{} cannot be made for the secrets of new keys: {error}; nothing was changed",
                path.display()
            ))
        })?;
        Ok(Self(Some((file, path.to_owned()))))
    }

    /// No key was made.
    pub(super) fn discard(self) {
        if let Some((_, path)) = self.0 {
            let _stays_empty = fs::remove_file(path);
        }
    }

    /// Writes the secrets; when the file does not take them they go to standard output, or they would be lost.
    pub(super) fn write(self, keys: &[CreatedKey]) -> Result<(), Failure> {
        let text = format!(
            "{:#}\n",
            json!({ "keys": keys.iter().map(shown).collect::<Vec<_>>() })
        );
        let Some((mut file, path)) = self.0 else {
            return output::print(&text);
        };
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        written.or_else(|error| {
            output::print(&text)?;
            Err(Failure::failed(format!(
                "the change is made, but {} did not take the secrets of the new keys ({error}); they went to standard output",
                path.display()
            )))
        })
    }
}

fn shown(key: &CreatedKey) -> Value {
    json!({ "account": key.account, "name": key.name, "id": key.id, "secret": key.secret })
}
