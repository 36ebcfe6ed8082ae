//! `xai backup`: the whole store as a file, from a gateway that runs, or from its data directory when it does not.

use std::path::PathBuf;

use proxyxai_proto::admin::v1::BackupRequest;
use tonic::Code;

use super::connection::Connection;
use crate::{archive_file::ArchiveFile, environment::Environment, failure::Failure, store};

/// Tries, when the store keeps no history and is written to meanwhile.
const TRIES: usize = 20;

/// Copy the whole store of a running gateway into a file; secrets stay sealed in it.
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// The file; it must not exist yet.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// From the data directory of a gateway that does not run.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Writes the file.
pub async fn run(backup: Backup, environment: &Environment) -> Result<(), Failure> {
    let Backup {
        file,
        offline,
        connection,
    } = backup;
    if offline {
        let settings = connection.settings(environment)?;
        let written = store::export(&settings, &file).await?;
        return connection.output().done(&written);
    }
    let api = connection.open(environment)?;
    let mut archive = ArchiveFile::create(&file)?;
    let mut tries = 0_usize;
    loop {
        let copied = async {
            let mut chunks = api.backups().backup(BackupRequest {}).await?.into_inner();
            while let Some(more) = chunks.message().await? {
                archive.write(&more.chunk).map_err(failed)?;
            }
            Ok::<_, tonic::Status>(())
        };
        match copied.await {
            Ok(()) => break,
            Err(status) if status.code() == Code::Aborted && tries < TRIES => {
                tries = tries.saturating_add(1);
                archive.begin_anew()?;
            }
            Err(status) => return Err(api.failure(status)),
        }
    }
    let written = archive.finish()?;
    connection.output().done(&written)
}

/// A failure of this side, on its way through the error of the call.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn failed(failure: Failure) -> tonic::Status {
    tonic::Status::failed_precondition(failure.to_string())
}
