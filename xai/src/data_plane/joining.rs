//! The first start of a node: it takes its join token to a control plane and comes back with an identity, which it keeps.

use std::time::Duration;

use proxyxai_core::{
    account::key::base62,
    ports::{Clock, Random, random_bytes},
    secret::join_token::JoinToken,
    trace::{IdSource, Outbox, Span, SpanKind, TraceContext},
};
use proxyxai_data_plane::{
    control_tls,
    enroll::{self, EnrollError},
};
use tokio::time::sleep;

use super::identity::{self, Identity};
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    settings::data_plane::Settings,
    up::data::DataDir,
};

/// How often all control planes are tried before it is given up, and the wait between: they may be starting too.
const ROUNDS: u32 = 10;
const BETWEEN: Duration = Duration::from_secs(2);

/// Joins under a new name.
pub(super) async fn join(
    settings: &Settings,
    environment: &Environment,
    data: &DataDir,
    clock: &dyn Clock,
    random: &dyn Random,
    spans: &Outbox<Span>,
) -> Result<Identity, Failure> {
    let token = token(settings, environment)?;
    let ids = IdSource::new(u64::from_le_bytes(random_bytes(random)));
    let trace = settings.traces().endpoint.map(|_| TraceContext {
        trace_id: ids.trace_id(),
        span_id: ids.span_id(),
        // A node joins once in its life.
        sampled: true,
    });
    let id = format!(
        "node-{}",
        base62(&random_bytes(random), 10).to_ascii_lowercase()
    );
    let mut said = String::new();
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(BETWEEN).await;
        }
        let mut untrusted = None;
        for address in settings.control_planes.all() {
            let channel = control_tls::channel(address, token.authority, None)
                .map_err(|error| Failure::usage(error.to_string()))?;
            let began = (clock.monotonic(), clock.unix_ms());
            match enroll::join(channel, &token, &id, clock, trace).await {
                Ok(enrolled) => {
                    if let Some(trace) = trace {
                        spans.push(span(trace, address, began, clock.monotonic()));
                    }
                    identity::save(data, token.authority, &enrolled)
                        .map_err(|error| Failure::failed(error.to_string()))?;
                    return Ok(Identity {
                        enrolled,
                        authority: token.authority,
                    });
                }
                Err(EnrollError::Untrusted) => untrusted = Some(address),
                Err(EnrollError::Unreachable(why)) => {
                    tracing::info!(address, why, "a control plane does not answer");
                    said = format!("{address}: {why}");
                }
                Err(error @ (EnrollError::Refused(_) | EnrollError::Failed(_))) => {
                    return Err(Failure::failed(format!(
                        "{error}; give the node a new one, which `xai join-token create` prints"
                    )));
                }
            }
        }
        if let Some(address) = untrusted {
            return Err(Failure::failed(format!(
                "{address}: {}",
                EnrollError::Untrusted
            )));
        }
    }
    Err(Failure::new(
        Exit::Unreachable,
        format!(
            "no control plane can be reached, so this node cannot join ({said}); start one, or correct `control_planes`"
        ),
    ))
}

/// The span of a call that let a node in.
fn span(
    trace: TraceContext,
    control_plane: &str,
    (began, began_unix_ms): (Duration, i64),
    ended: Duration,
) -> Span {
    let start = u64::try_from(began_unix_ms).unwrap_or(0);
    let start = start.saturating_mul(1_000_000);
    let took = u64::try_from(ended.saturating_sub(began).as_nanos()).unwrap_or(u64::MAX);
    Span {
        trace_id: trace.trace_id,
        span_id: trace.span_id,
        parent: None,
        state: String::new(),
        name: "join".into(),
        kind: SpanKind::Client,
        start,
        end: start.saturating_add(took),
        attributes: vec![("server.address", control_plane.into())],
        events: Vec::new(),
        error: None,
    }
}

fn token(settings: &Settings, environment: &Environment) -> Result<JoinToken, Failure> {
    let text = match settings.join_token_file.file() {
        Some(file) => std::fs::read_to_string(&file).map_err(|error| {
            let file = file.display();
            Failure::usage(format!(
                "`join_token_file`: {file} cannot be read: {error}; write a token of `xai join-token create` to it"
            ))
        })?,
        None => environment
            .get("XAI_JOIN_TOKEN")
            .map(str::to_owned)
            .ok_or_else(|| {
                Failure::usage(
                    "this node has not joined a gateway; give it a token of `xai join-token create` by `join_token_file` or XAI_JOIN_TOKEN",
                )
            })?,
    };
    JoinToken::parse(&text).map_err(|error| Failure::usage(error.to_string()))
}
