//! `xai apply`, `xai diff`, `xai export`: the configuration as files say it.
//!
//! Invariant: `apply` shows what it changes, and changes that alone: when somebody else changed the configuration in between, nothing.

mod applying;
mod secrets;
mod show;

use std::path::PathBuf;

use proxyxai_proto::admin::v1::{
    GetManifestRequest, ObjectChange, QueryChangesRequest, QueryChangesResponse,
};
use serde_json::json;
use tonic::Status;
use tonic_types::StatusExt as _;

pub use applying::{Apply, apply};

use super::{
    api::{Api, call},
    connection::Connection,
};
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    manifest::{read::Read, schema::schema, write},
    output::{self, Output},
};

/// Files.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// YAML file that says what the configuration should be, or a folder of them; `-` is standard input; may be given several times.
    #[arg(long, short, value_name = "FILE", required = true)]
    file: Vec<PathBuf>,
    /// Also delete what an earlier apply made and the files name no more.
    #[arg(long)]
    prune: bool,
}

/// Show what applying files would change; exit code 0 for nothing, 1 for something, 2 when it cannot be told.
#[derive(Debug, clap::Args)]
pub struct Diff {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    connection: Connection,
}

/// Print the configuration as a file that `xai apply` takes.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Print the JSON Schema of such files instead.
    #[arg(long)]
    schema: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Prints the configuration.
pub async fn export(export: Export, environment: &Environment) -> Result<(), Failure> {
    if export.schema {
        return output::print(&format!("{:#}\n", schema()));
    }
    let api = export.connection.open(environment)?;
    let answer = call!(api, api.manifests().get_manifest(GetManifestRequest {}));
    output::print(&write::yaml(&answer.manifest.unwrap_or_default()))
}

/// Prints the difference.
pub async fn diff(diff: Diff, environment: &Environment) -> Result<(), Failure> {
    // 1 says that there are differences, so everything else that fails is 2.
    let two = |failure: Failure| Failure::new(Exit::Usage, failure.to_string());
    let read = Read::files(&diff.files.file, environment).map_err(two)?;
    let api = diff.connection.open(environment).map_err(two)?;
    let found = compare(&api, &read, diff.files.prune).await.map_err(two)?;
    print(diff.connection.output(), &found.changes).map_err(two)?;
    match found.changes.len() {
        0 => Ok(()),
        count => Err(Failure::failed(format!(
            "the configuration differs from the files in {count} objects; `xai apply` brings it in line"
        ))),
    }
}

async fn compare(api: &Api, read: &Read, prune: bool) -> Result<QueryChangesResponse, Failure> {
    let request = QueryChangesRequest {
        manifest: Some(read.manifest.clone()),
        prune,
    };
    let answer = api.manifests().query_changes(request).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| refusal(api, read, status))
}

/// A refusal with the line and column of what it is about.
fn refusal(api: &Api, read: &Read, status: Status) -> Failure {
    let details = status.get_error_details();
    let violations: Vec<(String, String)> = details
        .bad_request()
        .map(|bad| {
            let violation = bad.field_violations.iter();
            violation
                .map(|one| (one.field.clone(), one.description.clone()))
                .collect()
        })
        .unwrap_or_default();
    match read.located(&violations) {
        Some(located) => Failure::new(api.failure(status).exit, located.to_string()),
        None => api.failure(status),
    }
}

fn print(output: Output, changes: &[ObjectChange]) -> Result<(), Failure> {
    match output {
        Output::Json => {
            let changes: Vec<_> = changes.iter().map(show::json).collect();
            output.fields(&json!({ "changes": changes }))
        }
        Output::Table => output::print(&show::text(changes)),
    }
}
