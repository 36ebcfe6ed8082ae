//! Takes spans from where they gather and sends them, a bundle at a time, one bundle under way.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use proxyxai_core::trace::Span;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, metadata::MetadataMap, transport::Channel};

use super::{Counters, Source, otlp};

/// Spans in one bundle, about.
const BUNDLE: usize = 512;
/// Between two looks at what has gathered.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the collector may take for a bundle.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a bundle is tried.
const TRIES: u32 = 5;
/// After the first try; twice as long after each further one.
const WAIT: Duration = Duration::from_millis(500);
/// Between two complaints.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Sends spans to one collector.
pub(super) struct Exporter {
    pub(super) channel: Channel,
    pub(super) headers: MetadataMap,
    pub(super) schema_url: &'static str,
    pub(super) sources: Vec<Source>,
    pub(super) counters: Arc<Counters>,
}

impl Exporter {
    /// Sends until told to stop, and then what is left.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut complained = None;
        loop {
            let last = stop.is_cancelled();
            let mut nothing = true;
            for source in &self.sources {
                let spans = source.spans.take(BUNDLE);
                if !spans.is_empty() {
                    nothing = false;
                    self.send(source, spans, &stop, &mut complained).await;
                }
            }
            if nothing && last {
                return;
            }
            if nothing {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = sleep(PAUSE) => {}
                }
            }
        }
    }

    async fn send(
        &self,
        source: &Source,
        spans: Vec<Span>,
        stop: &CancellationToken,
        complained: &mut Option<Instant>,
    ) {
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let request = otlp::request(source, self.schema_url, spans);
        let mut wait = WAIT;
        for _ in 1..TRIES {
            match self.export(request.clone()).await {
                Ok(rejected) => return self.took(count, rejected),
                Err(status) if !may_be_tried_again(status.code()) => {
                    complain(complained, &status);
                    return self.counters.refused(count);
                }
                Err(status) => complain(complained, &status),
            }
            let waiting = stop.run_until_cancelled(sleep(wait));
            if waiting.await.is_none() {
                break;
            }
            wait = wait.saturating_mul(2);
        }
        match self.export(request).await {
            Ok(rejected) => self.took(count, rejected),
            Err(status) => {
                complain(complained, &status);
                self.counters.unreachable(count);
            }
        }
    }

    fn took(&self, count: u64, rejected: u64) {
        self.counters.sent(count.saturating_sub(rejected));
        self.counters.refused(rejected.min(count));
    }

    /// Sends a bundle once: how many of its spans are not taken.
    async fn export(&self, message: ExportTraceServiceRequest) -> Result<u64, Status> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        let mut client = TraceServiceClient::new(self.channel.clone());
        let answer = timeout(ANSWER, client.export(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer came")))?;
        let partial = answer.into_inner().partial_success;
        let rejected = partial.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

/// Codes that OTLP lets be tried again.
fn may_be_tried_again(code: Code) -> bool {
    match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::ResourceExhausted
        // What a broken connection comes to.
        | Code::Unknown
        | Code::DataLoss => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => false,
    }
}

fn complain(last: &mut Option<Instant>, status: &Status) {
    if last.is_none_or(|last| last.elapsed() >= COMPLAINT) {
        *last = Some(Instant::now());
        tracing::warn!(
            code = ?status.code(),
            message = status.message(),
            "the collector takes no traces; requests go on without them; bring it back, or correct `trace_endpoint`"
        );
    }
}
