//! Ports of operations: whether a process is ready, and what its metrics and settings say of it.

use serde_json::Value;

use super::{
    deployment::{Clock, clocks},
    finding::{Finding, Severity, Whose},
    page::{label, samples, value},
    seen::unix_ms,
};
use crate::{
    failure::Failure,
    health::{self, Answer},
    system,
};

/// A port of operations, and what it answers.
pub(super) struct Port {
    /// `host:port`.
    pub(super) address: String,
    pub(super) ready: Result<Answer, Failure>,
    clock: Option<Clock>,
    /// Absent when it is not shown to this machine.
    pub(super) metrics: Option<String>,
    pub(super) config: Option<Value>,
}

/// A sample that is an alarm from some value on: its name, that value, how bad it is, what it means, and what to do.
type Alarm = (&'static str, f64, Severity, &'static str, &'static str);

const ALARMS: [Alarm; 7] = [
    (
        "xai_usage_events_lost_total",
        1.0,
        Severity::Error,
        "usage events were lost: money that was spent is not booked",
        "its log; docs/runbook.md, XaiUsageLost",
    ),
    (
        "xai_usage_files_set_aside",
        1.0,
        Severity::Error,
        "event files were set aside: the control plane does not take what is in them",
        "docs/nodes.md, \"Usage that is set aside\"",
    ),
    (
        "xai_usage_batches_missing_total",
        1.0,
        Severity::Error,
        "batches of usage that the control plane misses are gone from the files",
        "docs/nodes.md, \"Usage that is set aside\"",
    ),
    (
        "xai_usage_disk_failures_total",
        1.0,
        Severity::Warning,
        "writes of event files failed since its start",
        "df on its machine; docs/runbook.md, XaiUsageDiskFailing",
    ),
    (
        "xai_usage_oldest_unacknowledged_seconds",
        300.0,
        Severity::Warning,
        "usage waits for more than five minutes to be booked",
        "xai nodes; docs/runbook.md, XaiUsageUnreported",
    ),
    (
        "xai_config_copy_failures_total",
        1.0,
        Severity::Warning,
        "the copy of the configuration on its disk could not be written since its start",
        "df on its machine; docs/runbook.md, XaiConfigCopyFailing",
    ),
    (
        "xai_shed_total",
        1.0,
        Severity::Info,
        "requests or connections were refused since its start because a core was full",
        "add nodes, or raise max_in_flight and max_connections",
    ),
];

/// Certificates nearer to their end than this, in seconds, were not renewed in time: metric, label that must be there, how long.
const ENDS: [(&str, &str, f64); 3] = [
    (
        "xai_certificate_remaining_seconds",
        "server",
        5.0 * 86_400.0,
    ),
    (
        "xai_certificate_remaining_seconds",
        "authority",
        180.0 * 86_400.0,
    ),
    ("xai_node_certificate_remaining_seconds", "", 6.0 * 3_600.0),
];

impl Port {
    /// Asks for all that it shows to this machine. No credential is sent: the way there is not encrypted.
    pub(super) fn look(address: String) -> Self {
        let page = |path: &str| health::fetch(&format!("http://{address}{path}"));
        let shown = |path: &str| page(path).ok().filter(|answer| answer.status == 200);
        let before = system::unix_ms();
        let ready = page("/ready");
        let ours = (before, system::unix_ms());
        let date = ready.as_ref().ok();
        let date = date.and_then(|answer| unix_ms(answer.date.as_deref()?));
        let metrics = shown("/metrics").map(|answer| answer.body);
        let config = shown("/config").and_then(|answer| serde_json::from_str(&answer.body).ok());
        Self {
            clock: date.map(|theirs| Clock { theirs, ours }),
            ready,
            metrics,
            config,
            address,
        }
    }

    /// Whether it is on this machine.
    pub(super) fn is_here(&self) -> bool {
        let host = self.address.rsplit_once(':').map(|(host, _)| host);
        let host = host.map(|host| host.trim_matches(['[', ']']));
        host.is_some_and(|host| {
            host == "localhost"
                || host
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|host| host.is_loopback() || host.is_unspecified())
        })
    }

    /// The text of a setting that it runs with.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.get("settings")?.get(name)?.as_str()
    }

    /// What is to be said of it.
    pub(super) fn judge(&self, findings: &mut Vec<Finding>) {
        let mut say = |check, what: String, severity, next: &str| {
            let finding = Finding::info(check, &self.address, what, Whose::Node);
            findings.push(finding.but(severity, next));
        };
        match &self.ready {
            Err(failure) => say(
                "ops",
                failure.to_string(),
                Severity::Error,
                "start the process, or name the right port with --ops",
            ),
            Ok(answer) if answer.status != 200 => say(
                "ready",
                answer.body.trim().to_owned(),
                Severity::Error,
                "its log; xai nodes",
            ),
            Ok(answer) => say("ready", answer.body.trim().to_owned(), Severity::Info, ""),
        }
        match &self.metrics {
            Some(page) => figures(page, &mut say),
            None if self.ready.is_ok() => say(
                "ops",
                "metrics and settings are shown only to its own machine".to_owned(),
                Severity::Info,
                "run xai doctor there",
            ),
            None => {}
        }
        if self.setting("etcd_allow_old_version") == Some("true") {
            let what = "`etcd_allow_old_version` is set: etcd may be one with known faults";
            say(
                "etcd",
                what.to_owned(),
                Severity::Warning,
                "upgrade etcd to 3.5.33, 3.6.14, 3.7.1 or above, and take the setting away",
            );
        }
        findings.extend(clocks(&self.address, self.clock.as_ref()));
    }
}

/// What the metrics of a process say.
fn figures(page: &str, say: &mut impl FnMut(&'static str, String, Severity, &str)) {
    for (name, from, severity, what, next) in ALARMS {
        if let Some(found) = value(page, name).filter(|found| *found >= from) {
            say(
                "metrics",
                format!("{what} ({name} {found})"),
                severity,
                next,
            );
        }
    }
    if value(page, "xai_store_followed") == Some(0.0) {
        let what = "it does not hear of changes of its store";
        let next = "etcdctl endpoint health; docs/runbook.md, XaiStoreNotFollowed";
        say("store", what.to_owned(), Severity::Error, next);
    }
    let (age, most) = (
        value(page, "xai_config_age_seconds"),
        value(page, "xai_config_max_stale_seconds"),
    );
    if let (Some(age), Some(most)) = (age, most)
        && age > 60.0
    {
        let what = format!(
            "its configuration was last proved {age:.0} s ago; at {most:.0} s it refuses all requests"
        );
        say(
            "stale",
            what,
            Severity::Warning,
            "xai nodes; docs/runbook.md, XaiNodeStale",
        );
    }
    let (open, limit) = (
        value(page, "process_open_fds"),
        value(page, "process_max_fds"),
    );
    if let (Some(open), Some(limit)) = (open, limit)
        && open > limit * 0.8
    {
        let what = format!("{open:.0} of {limit:.0} files and sockets are open");
        let next = "raise the limit on open files (LimitNOFILE, ulimit -n)";
        say("files", what, Severity::Warning, next);
    }
    for sample in samples(page) {
        let certificate = label(&sample, "certificate").unwrap_or_default();
        let near = ENDS
            .iter()
            .find(|(name, which, _)| *name == sample.name && *which == certificate);
        if near.is_some_and(|(_, _, near)| sample.value < *near) {
            let which = if certificate.is_empty() {
                "node"
            } else {
                certificate
            };
            let days = sample.value / 86_400.0;
            let what = format!("the {which} certificate ends in {days:.1} days");
            let severity = match sample.value > 0.0 {
                true => Severity::Warning,
                false => Severity::Error,
            };
            let next = "its log says why it was not renewed; docs/runbook.md, XaiCertificateEnding";
            say("certificate", what, severity, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_judged_by_their_limits() {
        let check = |page: &str, expected: Option<(&str, Severity)>| {
            let mut found = Vec::new();
            figures(page, &mut |check, _, severity, _: &str| {
                found.push((check, severity));
            });
            assert_eq!(found.first().copied(), expected, "{page}");
            assert!(found.len() <= 1, "{page}: {found:?}");
        };
        check("xai_usage_events_lost_total 0\nxai_store_followed 1", None);
        check(
            "xai_usage_events_lost_total 2",
            Some(("metrics", Severity::Error)),
        );
        check("xai_shed_total 1", Some(("metrics", Severity::Info)));
        check("xai_store_followed 0", Some(("store", Severity::Error)));
        check(
            "xai_config_age_seconds 61\nxai_config_max_stale_seconds 100",
            Some(("stale", Severity::Warning)),
        );
        check(
            "xai_config_age_seconds 2\nxai_config_max_stale_seconds 100",
            None,
        );
        check(
            "process_open_fds 90\nprocess_max_fds 100",
            Some(("files", Severity::Warning)),
        );
        let server = "xai_certificate_remaining_seconds{certificate=\"server\"}";
        check(&format!("{server} 432001"), None);
        check(
            &format!("{server} 10"),
            Some(("certificate", Severity::Warning)),
        );
        check(
            "xai_node_certificate_remaining_seconds 0",
            Some(("certificate", Severity::Error)),
        );
    }

    #[test]
    fn a_port_of_this_machine_is_known() {
        let check = |address: &str, here: bool| {
            let port = Port {
                address: address.to_owned(),
                ready: Err(Failure::failed("")),
                clock: None,
                metrics: None,
                config: None,
            };
            assert_eq!(port.is_here(), here, "{address}");
        };
        check("127.0.0.1:3445", true);
        check("[::1]:3445", true);
        check("localhost:1", true);
        // How a process in a container says that it listens.
        check("0.0.0.0:3445", true);
        check("10.0.0.1:3445", false);
        check("127.0.0.1.example:1", false);
    }
}
