//! Sends the spans of a process to a collector, by OTLP over gRPC.
//!
//! Invariants: planes hand their spans in without waiting, whatever the collector does: what is too much is dropped where it gathers, and
//! counted; what cannot be sent is tried a few times, then dropped and counted; that is said in the log once in a minute at most.

mod counters;
mod exporter;
mod otlp;

use std::{fs, sync::Arc, time::Duration};

use proxyxai_core::trace::SpanSource;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

pub(crate) use counters::Counters;

use self::exporter::Exporter;
use crate::{failure::Failure, settings::trace::Place};

/// How long the last spans may take.
const LAST: Duration = Duration::from_secs(2);
/// How long connecting to the collector may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Where spans come from, and who makes them.
pub(crate) struct Source {
    /// `service.name` of its spans.
    pub(crate) service: &'static str,
    /// `service.instance.id`.
    pub(crate) instance: String,
    pub(crate) spans: Arc<dyn SpanSource>,
}

/// Traces that are being sent.
pub(crate) struct Traces {
    pub(crate) counters: Arc<Counters>,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Begins to send, if there is anywhere to send to.
pub(crate) fn start(place: &Place<'_>, sources: Vec<Source>) -> Result<Option<Traces>, Failure> {
    let Some(endpoint) = place.endpoint else {
        return Ok(None);
    };
    let channel = channel(endpoint)
        .map_err(|error| Failure::usage(format!("`trace_endpoint`: {endpoint}: {error}")))?;
    let (counters, stop) = (Arc::<Counters>::default(), CancellationToken::new());
    let exporter = Exporter {
        channel,
        headers: headers(place)?,
        schema_url: place.conventions.schema_url(),
        sources,
        counters: Arc::clone(&counters),
    };
    Ok(Some(Traces {
        counters,
        task: tokio::spawn(exporter.run(stop.clone())),
        stop,
    }))
}

impl Traces {
    /// Sends what is left, for a while.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        let _ended_either_way = tokio::time::timeout(LAST, self.task).await;
    }
}

fn channel(endpoint: &str) -> Result<Channel, tonic::transport::Error> {
    let mut to = Endpoint::from_shared(endpoint.to_owned())?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true);
    if endpoint.starts_with("https://") {
        to = to.tls_config(ClientTlsConfig::new().with_native_roots())?;
    }
    Ok(to.connect_lazy())
}

/// Headers from their file: in a setting they would be shown wherever settings are.
fn headers(place: &Place<'_>) -> Result<MetadataMap, Failure> {
    let mut headers = MetadataMap::new();
    let Some(file) = &place.headers_file else {
        return Ok(headers);
    };
    let refuse = |what: String| {
        Failure::usage(format!(
            "`trace_headers_file`: {}: {what}; write one `name: value` on each line",
            file.display()
        ))
    };
    let text = fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
    for (number, line) in (1_u32..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let header = line.split_once(':').and_then(|(name, value)| {
            let name: MetadataKey<Ascii> = name.trim().to_ascii_lowercase().parse().ok()?;
            let value: MetadataValue<Ascii> = value.trim().parse().ok()?;
            Some((name, value))
        });
        let (name, mut value) =
            header.ok_or_else(|| refuse(format!("line {number} is no header")))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}
