//! Takes usage from nodes: a batch is acknowledged when one transaction has written its watermark and its rows.

use std::{pin::Pin, sync::Arc, time::Duration};

use proxyxai_core::access::Caller;
use proxyxai_proto::usage::v1::{
    Register, Registered, ReportRequest, ReportResponse, UsageAck, UsageGap, report_request,
    report_response::Message, usage_service_server::UsageService,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    auth,
    books::{Applied, Books},
    config_service::{admitted, cut_off},
    join::{Door, NODE_CREDENTIAL},
    orders::Orders,
    reported::Batch,
    roster::Roster,
    status::Fault,
};

pub(crate) struct UsageServer {
    pub(crate) books: Arc<Books>,
    pub(crate) door: Arc<Door>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) stopping: CancellationToken,
}

type Responses = Pin<Box<dyn Stream<Item = Result<ReportResponse, Status>> + Send>>;

#[tonic::async_trait]
impl UsageService for UsageServer {
    type ReportStream = Responses;

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let caller = auth::caller(&request)?;
        let removed = admitted(&self.door, &self.orders, &caller).await?;
        let mut requests = request.into_inner();
        let register = match requests
            .next()
            .await
            .transpose()?
            .and_then(|first| first.message)
        {
            Some(report_request::Message::Register(register)) => register,
            _ => return Err(Status::invalid_argument("a report begins with Register")),
        };
        self.may_report(&caller, &register.node_id).await?;
        // Whoever reports: of a node that was removed nothing is taken, so that its marks need not be kept.
        let of_it = self.orders.until_removed(&register.node_id);
        if self.door.is_removed(&register.node_id).await? {
            return Err(cut_off(&register.node_id));
        }
        let (sender, receiver) = mpsc::channel(16);
        let (books, stopping) = (Arc::clone(&self.books), self.stopping.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                () = async { tokio::select! { () = removed.cancelled() => {}, () = of_it.cancelled() => {} } } => {
                    let _node_may_have_left = sender.try_send(Err(cut_off(&register.node_id)));
                }
                () = serve(&books, &register, requests, &sender) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl UsageServer {
    /// A node that shows a certificate is asked for its own usage. That of other nodes that joined, removed ones too, or that have a stream,
    /// is theirs alone: who reported in their name could book what they never did, and have what they did taken for a repetition. An
    /// id that never joined and has no stream may be that of earlier starts of the same data directory.
    async fn may_report(&self, caller: &Caller, of: &str) -> Result<(), Status> {
        let named = match caller.credential.strip_prefix(NODE_CREDENTIAL) {
            Some(named) if named != of => named,
            Some(_) | None => return Ok(()),
        };
        if !self.door.has_joined(of).await? && !self.has_stream(of).await? {
            return Ok(());
        }
        tracing::warn!(
            node = named,
            of,
            "a node may not report the usage of another one"
        );
        Err(Status::permission_denied(format!(
            "the certificate is of the node `{named}`, and the usage that of `{of}`, which joined by itself or serves now; its event files are taken from it alone"
        )))
    }

    /// Whether a node has a stream to any replica.
    async fn has_stream(&self, node: &str) -> Result<bool, Status> {
        let census = self.roster.census(None, Duration::ZERO).await?;
        let found = census.nodes.iter().find(|known| known.id == node);
        Ok(found.is_some_and(|node| node.connected))
    }
}

async fn serve(
    books: &Books,
    register: &Register,
    mut requests: Streaming<ReportRequest>,
    answers: &mpsc::Sender<Result<ReportResponse, Status>>,
) {
    let registered = books
        .applied_through(&register.node_id, register.epoch)
        .await;
    let mut answer =
        registered.map(|applied_through| Message::Registered(Registered { applied_through }));
    loop {
        let failed = answer.is_err();
        let response = answer
            .map(|message| ReportResponse {
                message: Some(message),
            })
            .map_err(Status::from);
        if answers.send(response).await.is_err() || failed {
            return;
        }
        let Some(Ok(request)) = requests.next().await else {
            return;
        };
        let Some(report_request::Message::Batch(batch)) = request.message else {
            return;
        };
        let Ok(batch) = Batch::read(&batch) else {
            answer = Err(Fault::Invalid("what was sent is no batch".to_owned()));
            continue;
        };
        answer = if batch.node_id == register.node_id && batch.epoch == register.epoch {
            books.apply(&batch).await.map(|applied| match applied {
                Applied::Through(applied_through) => Message::Ack(UsageAck {
                    epoch: batch.epoch,
                    applied_through,
                }),
                Applied::Expected(expected) => Message::Gap(UsageGap {
                    epoch: batch.epoch,
                    expected,
                }),
            })
        } else {
            Err(Fault::Invalid(
                "the batch is of another node or epoch than the report".to_owned(),
            ))
        };
    }
}
