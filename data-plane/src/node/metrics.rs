//! What a node says of itself to Prometheus: its cores, its configuration, its look-ups, its usage, its traces.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use proxyxai_core::{
    exposition::{Kind, Page},
    freshness::NodeState,
};

use super::Handle;
use crate::metrics;

/// Names, helps, and where the numbers are.
type Counters<'a, const N: usize> = [(&'a str, &'a str, &'a AtomicU64); N];

fn counters<const N: usize>(page: &mut Page<'_>, counters: Counters<'_, N>) {
    for (name, help, value) in counters {
        page.counter(name, help, value);
    }
}

impl Handle {
    /// Adds the node's metrics in Prometheus' text format.
    pub fn metrics(&self, out: &mut String) {
        let mut page = Page::new(out);
        metrics::render(&self.cores, &mut page);
        self.shared.orders.metrics(&mut page);
        self.config_metrics(&mut page);
        self.key_metrics(&mut page);
        self.usage_metrics(&mut page);
        self.shared.sink.metrics(&mut page);
    }

    fn config_metrics(&self, page: &mut Page<'_>) {
        let config = self.shared.config.counters();
        counters(
            page,
            [
                (
                    "xai_config_applied_total",
                    "Configurations put in force.",
                    &config.applied,
                ),
                (
                    "xai_config_refused_total",
                    "Configurations refused by the node.",
                    &config.refused,
                ),
                (
                    "xai_config_disconnects_total",
                    "Config streams that ended.",
                    &config.disconnects,
                ),
                (
                    "xai_config_stale_total",
                    "Times that the node lost its control plane.",
                    &config.went_stale,
                ),
                (
                    "xai_config_expired_total",
                    "Times that the configuration became too old to be served.",
                    &config.went_expired,
                ),
                (
                    "xai_config_copies_total",
                    "Files of the disk copy that were written.",
                    &config.copied,
                ),
                (
                    "xai_config_copy_failures_total",
                    "Files of the disk copy that could not be written.",
                    &config.copy_failures,
                ),
            ],
        );
        let version = self.version();
        page.gauge(
            "xai_node_config_generation",
            "Generation of the configuration that the node serves from.",
            version.generation,
        );
        page.gauge(
            "xai_node_config_revision",
            "Revision of the configuration that the node serves from.",
            version.revision,
        );
        if let Some(age) = self.age() {
            page.gauge(
                "xai_config_age_seconds",
                "Since the configuration was last proved to be the newest.",
                age,
            );
        }
        page.gauge(
            "xai_config_max_stale_seconds",
            "How old it may become before requests are refused.",
            self.shared.config.max_stale(),
        );
        let name = "xai_node_state";
        page.family(name, Kind::Gauge, "1 for the state that the node is in.");
        for state in NodeState::ALL {
            page.sample(name, &[("state", state.as_str())], state == self.state());
        }
    }

    fn key_metrics(&self, page: &mut Page<'_>) {
        let keys = self.shared.keys.counters();
        counters(
            page,
            [
                (
                    "xai_key_lookups_outrun_total",
                    "Answers about keys that a change had outrun; they were asked for again.",
                    &keys.outrun,
                ),
                (
                    "xai_key_lookups_remembered_total",
                    "Unknown keys answered from memory.",
                    &keys.hits,
                ),
                (
                    "xai_key_lookups_asked_total",
                    "Unknown keys that the control plane was asked for.",
                    &keys.misses,
                ),
                (
                    "xai_key_lookups_absent_total",
                    "Keys that do not exist.",
                    &keys.negative,
                ),
                (
                    "xai_key_lookups_unavailable_total",
                    "Keys that could not be checked.",
                    &keys.unavailable,
                ),
            ],
        );
        page.counter(
            "xai_key_lookups_remembered_age_seconds_total",
            "Seconds since they were learned, summed over the keys answered from memory.",
            Duration::from_millis(keys.hit_age_ms.load(Ordering::Relaxed)),
        );
        let (known_keys, known_accounts) = self.shared.keys.remembered();
        page.gauge(
            "xai_keys_preloaded",
            "Virtual keys in the table of the node.",
            self.shared.config.current().snapshot.keys.len(),
        );
        page.gauge(
            "xai_keys_remembered",
            "Virtual keys that were looked up and are remembered.",
            known_keys,
        );
        page.gauge(
            "xai_accounts_remembered",
            "Accounts that came with them.",
            known_accounts,
        );
    }

    fn usage_metrics(&self, page: &mut Page<'_>) {
        let events = self.shared.events.counters();
        events.attempts.metrics(page);
        counters(
            page,
            [
                (
                    "xai_usage_events_total",
                    "Usage events handed in.",
                    &events.queued,
                ),
                (
                    "xai_usage_events_durable_total",
                    "Usage events written to a file and synced.",
                    &events.durable,
                ),
                (
                    "xai_usage_events_acknowledged_total",
                    "Usage events durable at the control plane.",
                    &events.acknowledged,
                ),
                (
                    "xai_usage_events_lost_total",
                    "Usage events lost; anything but 0 is an alarm.",
                    &events.lost,
                ),
                (
                    "xai_usage_events_set_aside_total",
                    "Usage events of this process in event files that were set aside; anything but 0 is an alarm.",
                    &events.set_aside_events,
                ),
                (
                    "xai_usage_batches_missing_total",
                    "Batches that the files do not hold any more although the control plane misses them; anything but 0 is an alarm.",
                    &events.missing_batches,
                ),
                (
                    "xai_usage_batches_replayed_total",
                    "Batches of earlier starts that were sent again.",
                    &events.replayed_batches,
                ),
                (
                    "xai_usage_disk_failures_total",
                    "Writes of event files that failed and are tried again.",
                    &events.disk_failures,
                ),
                (
                    "xai_usage_disconnects_total",
                    "Streams of usage that ended.",
                    &events.disconnects,
                ),
            ],
        );
        page.gauge(
            "xai_usage_files_set_aside",
            "Event files that were set aside, since the start or before; anything but 0 is an alarm.",
            &events.set_aside_files,
        );
        page.gauge(
            "xai_usage_events_waiting",
            "Usage events that are not durable yet.",
            self.shared.events.waiting(),
        );
        page.gauge(
            "xai_usage_starts_unreported",
            "Earlier starts of which not all usage is known to be durable at the control plane.",
            &events.unreported_starts,
        );
        let oldest = events.oldest_unacknowledged_unix_ms.load(Ordering::Relaxed);
        let now = u64::try_from(self.shared.clock.unix_ms()).unwrap_or(0);
        let waits = if oldest == 0 {
            0
        } else {
            now.saturating_sub(oldest)
        };
        page.gauge(
            "xai_usage_oldest_unacknowledged_seconds",
            "How long the oldest usage waits that the control plane has not acknowledged; 0 when none does.",
            Duration::from_millis(waits),
        );
    }
}
