//! A collector of the test's own: takes OTLP over gRPC and remembers the spans.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::process::until;

/// A span, and which service made it.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) service: String,
    pub(crate) span: Span,
    /// The headers of the call that brought it.
    pub(crate) headers: BTreeMap<String, String>,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Taken>>>);

/// A collector that runs until it is dropped.
pub(crate) struct Collector {
    spans: Spans,
    pub(crate) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let map = request.metadata().clone().into_headers();
        let headers: BTreeMap<String, String> = map
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let mut spans = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let of = resource.resource.unwrap();
            let service = text(&of.attributes, "service.name").unwrap();
            let of_scopes = resource.scope_spans.into_iter().flat_map(|it| it.spans);
            spans.extend(of_scopes.map(|span| Taken {
                service: service.clone(),
                span,
                headers: headers.clone(),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Spans::default();
        let service = TraceServiceServer::new(spans.clone());
        let task = tokio::spawn(async move {
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            spans,
            address,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that came so far.
    pub(crate) fn all(&self) -> Vec<Taken> {
        self.spans.0.lock().unwrap().clone()
    }

    /// The trace of a request, once it has so many spans.
    pub(crate) async fn trace_of(&self, request_id: &str, spans: usize) -> Trace {
        until("the trace of a request comes", async || {
            let all = self.all();
            let request = all.iter().find(|taken| {
                text(&taken.span.attributes, "xai.request_id").as_deref() == Some(request_id)
            })?;
            let id = request.span.trace_id.clone();
            let spans_of = all.iter().filter(|taken| taken.span.trace_id == id);
            let trace = Trace(spans_of.cloned().collect());
            (trace.0.len() >= spans).then_some(trace)
        })
        .await
    }
}

/// The spans of one trace.
#[derive(Debug)]
pub(crate) struct Trace(pub(crate) Vec<Taken>);

impl Trace {
    /// All spans with a name.
    pub(crate) fn named(&self, name: &str) -> Vec<&Span> {
        let mut spans: Vec<&Span> = self
            .0
            .iter()
            .map(|taken| &taken.span)
            .filter(|span| span.name == name)
            .collect();
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }

    /// The one span with a name.
    pub(crate) fn one(&self, name: &str) -> &Span {
        let spans = self.named(name);
        assert_eq!(spans.len(), 1, "{name} in {self:#?}");
        spans[0]
    }

    /// Every span lies within its parent, as far as that is here.
    pub(crate) fn check_shape(&self) {
        for Taken { span, .. } in &self.0 {
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
            let parent = self
                .0
                .iter()
                .find(|other| other.span.span_id == span.parent_span_id);
            let Some(Taken {
                span: parent,
                service,
                ..
            }) = parent
            else {
                continue;
            };
            // The two planes read clocks of milliseconds, each at its own moment.
            let slack = if service == "proxyxai-node" {
                2_000_000
            } else {
                0
            };
            assert!(
                parent.start_time_unix_nano <= span.start_time_unix_nano + slack
                    && span.end_time_unix_nano <= parent.end_time_unix_nano + slack,
                "{} lies not within {}: {self:#?}",
                span.name,
                parent.name
            );
        }
    }
}

/// An attribute as text, whatever it is.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|one| one.key == key)?;
    match attribute.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(flag) => Some(flag.to_string()),
        other @ (Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_)) => panic!("{key} is {other:?}"),
    }
}
