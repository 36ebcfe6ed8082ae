//! `xai apply`

use std::path::PathBuf;

use proxyxai_proto::admin::v1::{ApplyManifestRequest, ChangeAction, ObjectChange};

use super::{super::node, Files, compare, print, refusal, secrets};
use crate::{
    admin::connection::Connection,
    environment::Environment,
    failure::Failure,
    manifest::read::Read,
    output::{self, Output},
    settings::value::Span,
};

/// Bring the configuration in line with files, all of it or nothing.
#[derive(Debug, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Decide and show everything, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// File to write the secrets of new virtual keys to, readable by its owner alone; `-` is standard output. There must be none yet.
    #[arg(long, value_name = "FILE")]
    secrets_out: Option<PathBuf>,
    /// Then wait until every live node enforces the newest configuration, so long at most; fails, and names them, when some do not.
    #[arg(
        long,
        value_name = "SPAN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "30s"
    )]
    wait: Option<Span>,
    #[command(flatten)]
    connection: Connection,
}

/// Brings the configuration in line.
pub async fn apply(apply: Apply, environment: &Environment) -> Result<(), Failure> {
    let read = Read::files(&apply.files.file, environment)?;
    if apply.files.prune && read.manifest.objects.is_empty() {
        return Err(Failure::usage(
            "the files name nothing, so --prune would delete all that was ever applied; if that is meant, leave one object in them",
        ));
    }
    let api = apply.connection.open(environment)?;
    let output = apply.connection.output();
    let found = compare(&api, &read, apply.files.prune).await?;
    let to_standard_output = apply
        .secrets_out
        .as_ref()
        .is_some_and(|it| it.as_os_str() == "-");
    if !to_standard_output {
        print(output, &found.changes)?;
    }
    if !found.changes.is_empty() {
        let new_keys = found.changes.iter().filter(|change| is_new_key(change));
        let file = match new_keys.count() {
            count if count > 0 && !apply.dry_run => {
                Some(secrets::File::open(apply.secrets_out.as_deref(), count)?)
            }
            _ => None,
        };
        let request = ApplyManifestRequest {
            manifest: Some(read.manifest.clone()),
            prune: apply.files.prune,
            dry_run: apply.dry_run,
            expected: found.version,
        };
        let applied = api.manifests().apply_manifest(request).await;
        let answer = match applied {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                if let Some(file) = file {
                    file.discard();
                }
                return Err(refusal(&api, &read, status));
            }
        };
        if let Some(file) = file {
            file.write(&answer.created_keys)?;
        }
    }
    if !to_standard_output && output == Output::Table && !found.changes.is_empty() {
        output::print(if apply.dry_run {
            "Nothing was changed: this was a dry run.\n"
        } else {
            "Done.\n"
        })?;
    }
    match apply.wait {
        Some(within) if !apply.dry_run => node::wait(&api, within.0).await,
        Some(_) | None => Ok(()),
    }
}

fn is_new_key(change: &ObjectChange) -> bool {
    change.action() == ChangeAction::Create && change.kind == "virtual_key"
}
