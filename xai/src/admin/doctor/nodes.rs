//! Nodes and replicas of the control plane: who follows, who lags, and what none of them gets.

use proxyxai_proto::{
    admin::v1::{NodeState, NodeView},
    config::v1::{LogLevel, Schedule},
};

use super::{
    finding::{Finding, Severity, Whose},
    seen::Seen,
};

/// A node on its way to the newest configuration for longer than this, in milliseconds since it last said something, is late.
const LATE: u64 = 10_000;

/// What is to be said of them.
pub(super) fn judge(seen: &Seen, findings: &mut Vec<Finding>) {
    if let Ok(found) = &seen.nodes {
        if found.nodes.is_empty() {
            let what = "no node is registered, so nothing serves requests";
            let finding = Finding::info("nodes", "deployment", what, Whose::Node);
            findings.push(finding.but(
                Severity::Error,
                "xai join-token create; then start xai-data-plane with the token",
            ));
        }
        for replica in &found.silent_replicas {
            let what = "this replica of the control plane does not answer the others";
            let finding = Finding::info("replica", replica, what, Whose::ControlPlane);
            findings.push(finding.but(
                Severity::Error,
                "on its machine: xai health http://127.0.0.1:3445/ready",
            ));
        }
        for node in &found.nodes {
            one(node, &seen.identity.server_version, findings);
        }
    }
    for one in seen.withheld.iter().flatten() {
        let instead = match one.stand_in {
            true => "its last good version is in force instead",
            false => "nothing stands in for it",
        };
        let what = format!("withheld from all nodes: {}; {instead}", one.reason);
        let finding = Finding::info("withheld", &one.name, what, Whose::Configuration);
        findings.push(finding.but(
            Severity::Error,
            "xai audit list --since 24h; then set or delete it",
        ));
    }
}

fn one(node: &NodeView, server_version: &str, findings: &mut Vec<Finding>) {
    let mut say = |severity, what: String, next: String| {
        let finding = Finding::info("node", &node.id, what, Whose::Node);
        findings.push(finding.but(severity, next));
    };
    let age = node.age_ms.checked_div(1_000).unwrap_or_default();
    let gone = format!(
        "on its machine: xai health http://127.0.0.1:3445/ready; if it is gone for good: xai node remove {}",
        node.id
    );
    let reasons = node.refused_reasons.join("; ");
    match node.state() {
        NodeState::Current => {}
        NodeState::Behind if node.age_ms <= LATE => say(
            Severity::Info,
            "on its way to the newest configuration".to_owned(),
            String::new(),
        ),
        NodeState::Behind => say(
            Severity::Warning,
            format!("behind the newest configuration, and said nothing for {age} s"),
            gone,
        ),
        NodeState::Refused => say(
            Severity::Error,
            format!("refuses the newest configuration: {reasons}"),
            "xai withheld; xai audit list --since 24h".to_owned(),
        ),
        NodeState::Silent => say(
            Severity::Error,
            format!("silent for {age} s; it may serve from what it has"),
            gone,
        ),
        NodeState::Unknown | NodeState::Unspecified => say(
            Severity::Warning,
            "registered, but not heard of since the control plane started".to_owned(),
            gone,
        ),
    }
    if node.digest_equal == Some(false) {
        let what = "holds another content than was published";
        say(
            Severity::Error,
            what.to_owned(),
            "restart it: it takes a whole snapshot then".to_owned(),
        );
    }
    if !node.program_version.is_empty() && node.program_version != server_version {
        say(
            Severity::Warning,
            format!(
                "runs version {}, the control plane {server_version}",
                node.program_version
            ),
            format!("xai node drain {} --wait; then upgrade it", node.id),
        );
    }
    if matches!(node.schedule(), Schedule::Cordon | Schedule::Drain) {
        let what = match node.drained {
            true => "drained: it can be stopped",
            false => "takes no part: it is cordoned or being drained",
        };
        say(
            Severity::Info,
            what.to_owned(),
            format!("xai node uncordon {}, to have it serve again", node.id),
        );
    }
    if node.log_level() != LogLevel::Unspecified {
        say(
            Severity::Info,
            "its log has another level than its settings say".to_owned(),
            "xai log show".to_owned(),
        );
    }
    if let Some(starts) = node.vitals.map(|vitals| vitals.unreported_starts)
        && starts > 0
    {
        say(
            Severity::Warning,
            format!("usage of {starts} earlier starts is not booked yet, or was set aside"),
            "on its machine: the ERROR lines of its log; see docs/nodes.md, \"Usage that is set aside\"".to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_of_by_how_it_stands() {
        let check = |node: NodeView, expected: &[Severity]| {
            let mut found = Vec::new();
            one(&node, "1", &mut found);
            let found: Vec<_> = found.iter().map(|one| one.severity).collect();
            assert_eq!(found, expected, "{node:?}");
        };
        let node = |state: NodeState, age_ms| NodeView {
            state: state.into(),
            age_ms,
            program_version: "1".to_owned(),
            ..NodeView::default()
        };
        check(node(NodeState::Current, 0), &[]);
        check(node(NodeState::Behind, LATE), &[Severity::Info]);
        check(node(NodeState::Behind, LATE + 1), &[Severity::Warning]);
        check(node(NodeState::Refused, 0), &[Severity::Error]);
        check(node(NodeState::Silent, 0), &[Severity::Error]);
        check(node(NodeState::Unknown, 0), &[Severity::Warning]);
        let old = NodeView {
            program_version: "0".to_owned(),
            ..node(NodeState::Current, 0)
        };
        check(old, &[Severity::Warning]);
        let other = NodeView {
            digest_equal: Some(false),
            ..node(NodeState::Silent, 0)
        };
        check(other, &[Severity::Error, Severity::Error]);
        let drained = NodeView {
            schedule: Schedule::Drain.into(),
            ..node(NodeState::Current, 0)
        };
        check(drained, &[Severity::Info]);
    }
}
