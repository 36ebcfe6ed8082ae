//! The whole store as a file, while it is in use.

use std::{pin::Pin, sync::Arc};

use proxyxai_core::ports::Clock;
use proxyxai_proto::admin::v1::{
    BackupRequest, BackupResponse, backup_service_server::BackupService,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{store::Store, transfer::Export};

/// Chunks that wait for a slow reader.
const BACKLOG: usize = 4;

pub(crate) struct BackupServer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl BackupService for BackupServer {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupResponse, Status>> + Send>>;

    async fn backup(
        &self,
        _: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let mut export = Export::new(Arc::clone(&self.store), self.clock.unix_ms());
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
