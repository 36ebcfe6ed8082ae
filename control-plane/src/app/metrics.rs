//! What the control plane says of itself to Prometheus. Every metric of this side has its name here, but those of the store.

use std::time::Duration;

use proxyxai_core::exposition::{Kind, Page};

use super::ControlPlane;
use crate::{calls::code_name, nodes::Node};

/// How a node stands, as this replica knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It serves from the newest configuration.
    Current,
    /// It has a stream, and not the newest configuration yet.
    Behind,
    /// It refused the newest configuration.
    Refused,
    /// It has no stream here, and was heard a moment ago.
    Away,
    /// It was not heard for too long.
    Lost,
}

impl Standing {
    const ALL: [Self; 5] = [
        Self::Current,
        Self::Behind,
        Self::Refused,
        Self::Away,
        Self::Lost,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Refused => "refused",
            Self::Away => "away",
            Self::Lost => "lost",
        }
    }
}

impl ControlPlane {
    /// Adds this side's metrics in Prometheus' text format.
    pub fn metrics(&self, out: &mut String) {
        let mut page = Page::new(out);
        self.config_metrics(&mut page);
        self.node_metrics(&mut page);
        self.calls_metrics(&mut page);
        self.measured.metrics(&mut page);
        page.counter(
            "xai_audit_records_total",
            "Records that this process wrote to the audit trail.",
            &self.trail.written,
        );
        self.certificate_metrics(&mut page);
    }

    fn config_metrics(&self, page: &mut Page<'_>) {
        let state = self.config.state();
        page.gauge(
            "xai_config_revision",
            "Revision of the configuration.",
            state.snapshot.version.revision,
        );
        page.gauge(
            "xai_config_objects",
            "Objects of the configuration.",
            state.records.len(),
        );
        page.gauge(
            "xai_config_withheld",
            "Rows of the store that are not in force as they stand there.",
            state.withheld.len(),
        );
        page.gauge(
            "xai_store_followed",
            "1 while this control plane hears of changes of its store.",
            self.config.is_following(),
        );
    }

    fn node_metrics(&self, page: &mut Page<'_>) {
        let newest = self.config.state().snapshot.version;
        let nodes = self.nodes.all();
        let standing = |node: &Node, age: Duration| match &node.refused {
            _ if !self.nodes.is_live(age) => Standing::Lost,
            Some(refused) if refused.version >= newest => Standing::Refused,
            _ if node.stream.is_none() => Standing::Away,
            _ if node.applied == newest => Standing::Current,
            _ => Standing::Behind,
        };
        let all: Vec<Standing> = nodes
            .values()
            .map(|(node, age)| standing(node, *age))
            .collect();
        let connected = nodes.values().filter(|(node, _)| node.stream.is_some());
        page.gauge(
            "xai_nodes_connected",
            "Nodes with an open stream.",
            connected.count(),
        );
        let current = nodes.values().filter(|(node, _)| node.applied == newest);
        page.gauge(
            "xai_nodes_current",
            "Nodes that serve from the newest configuration.",
            current.count(),
        );
        let name = "xai_nodes";
        page.family(
            name,
            Kind::Gauge,
            "Nodes that this control plane has, or had last, by how they stand.",
        );
        for state in Standing::ALL {
            let count = all.iter().filter(|one| **one == state).count();
            page.sample(name, &[("state", state.as_str())], count);
        }
        let name = "xai_config_propagation_seconds";
        page.family(
            name,
            Kind::Histogram,
            "From publishing a configuration to its acknowledgement by a node that has a stream.",
        );
        self.nodes.propagation.show(page, name, &[]);
    }

    fn calls_metrics(&self, page: &mut Page<'_>) {
        let counts = self.calls.counts();
        let name = "xai_rpc_calls_total";
        page.family(
            name,
            Kind::Counter,
            "Calls of the gRPC API that were answered, by name and code.",
        );
        for ((rpc, code), count) in &counts {
            let labels = [("rpc", *rpc), ("code", code_name(*code))];
            page.sample(name, &labels, count.calls);
        }
        let name = "xai_rpc_seconds_total";
        page.family(
            name,
            Kind::Counter,
            "Time until they were answered; of streams, until they began.",
        );
        for ((rpc, code), count) in &counts {
            let labels = [("rpc", *rpc), ("code", code_name(*code))];
            page.sample(name, &labels, count.took);
        }
        page.counter(
            "xai_trace_calls_dropped_total",
            "Calls whose spans were dropped, as too many waited for the collector.",
            self.calls.dropped(),
        );
    }

    fn certificate_metrics(&self, page: &mut Page<'_>) {
        let now = self.books.clock.unix_ms();
        let name = "xai_certificate_remaining_seconds";
        page.family(
            name,
            Kind::Gauge,
            "How long a certificate is still accepted; 0 when it is not.",
        );
        for (certificate, end) in [
            ("server", self.tls.not_after_unix_ms()),
            ("authority", self.door.authority.not_after_unix_ms()),
        ] {
            let left = end.map(|end| end.saturating_sub(now));
            let left = u64::try_from(left.unwrap_or(0)).unwrap_or(0);
            let labels = [("certificate", certificate)];
            page.sample(name, &labels, Duration::from_millis(left));
        }
    }
}
