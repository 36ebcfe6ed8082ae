//! The whole store as a file, while it is in use.

use std::{pin::Pin, sync::Arc};

use proxyxai_proto::admin::v1::{
    BackupRequest, BackupResponse, backup_service_server::BackupService,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{
    audit::{Deed, Trail},
    auth,
    config_store::ConfigStore,
    store::{Store, Txn},
    transfer::Export,
};

/// Chunks that wait for a slow reader.
const BACKLOG: usize = 4;

pub(crate) struct BackupServer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) trail: Arc<Trail>,
}

#[tonic::async_trait]
impl BackupService for BackupServer {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupResponse, Status>> + Send>>;

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        // Before the first byte leaves: so the record is in the file, too.
        let state = self.config.state();
        let deed = Deed {
            caller: &auth::caller(&request)?,
            action: "Backup",
            accounts: &state.snapshot.accounts,
        };
        self.trail.commit(&deed, Vec::new(), Txn::default()).await?;
        let now = self.config.clock.unix_ms();
        let mut export = Export::new(Arc::clone(&self.store), now);
        let (sender, receiver) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            loop {
                let next = export.next_bytes().await.map_err(Status::from).transpose();
                let Some(next) = next else { return };
                let failed = next.is_err();
                let next = next.map(|chunk| BackupResponse { chunk });
                if sender.send(next).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
