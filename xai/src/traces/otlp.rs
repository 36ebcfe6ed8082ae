//! Spans in the words of OTLP.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span as OtlpSpan, Status,
        span::{Event, SpanKind as OtlpKind},
        status::StatusCode,
    },
};
use proxyxai_core::trace::{Span, SpanKind, Value};

use super::Source;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Flag of a span whose trace is kept.
const SAMPLED: u32 = 1;

/// One bundle of spans of a source.
pub(super) fn request(
    source: &Source,
    schema_url: &str,
    spans: Vec<Span>,
) -> ExportTraceServiceRequest {
    let attributes = [
        ("service.name", source.service.into()),
        ("service.version", VERSION.into()),
        ("service.instance.id", source.instance.as_str().into()),
    ];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: attributes.into_iter().map(attribute).collect(),
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "proxyxai".to_owned(),
                    version: VERSION.to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.into_iter().map(span).collect(),
                schema_url: schema_url.to_owned(),
            }],
            schema_url: schema_url.to_owned(),
        }],
    }
}

fn span(span: Span) -> OtlpSpan {
    let id = |id: u64| id.to_be_bytes().to_vec();
    let kind = match span.kind {
        SpanKind::Server => OtlpKind::Server,
        SpanKind::Client => OtlpKind::Client,
        SpanKind::Internal => OtlpKind::Internal,
    };
    let events = span.events.into_iter().map(|(at, name)| Event {
        time_unix_nano: at,
        name: name.to_owned(),
        ..Event::default()
    });
    OtlpSpan {
        trace_id: span.trace_id.0.to_be_bytes().to_vec(),
        span_id: id(span.span_id.0),
        parent_span_id: span.parent.map_or_else(Vec::new, |parent| id(parent.0)),
        trace_state: span.state,
        flags: SAMPLED,
        name: span.name.into_owned(),
        kind: kind.into(),
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes: span.attributes.into_iter().map(attribute).collect(),
        events: events.collect(),
        status: span.error.map(|message| Status {
            message,
            code: StatusCode::Error.into(),
        }),
        ..OtlpSpan::default()
    }
}

fn attribute((key, value): (&str, Value)) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Number(number) => any_value::Value::IntValue(number),
        Value::Flag(flag) => any_value::Value::BoolValue(flag),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
