//! The deployment as a whole: who answers, what could not be looked at, the clock, settings, sealing keys.

use super::{
    finding::{Finding, Severity, Whose},
    seen::Seen,
};
use crate::settings::value::Span;

/// Clocks further apart than this, in milliseconds, make ends of keys and certificates come early or late. The date of an answer is whole
/// seconds, and the answer takes its time.
const CLOCKS_APART: i64 = 5_000;
/// A node that is cut off so long still serves keys that were revoked, in seconds.
const LONG_STALE: u64 = 7 * 86_400;
/// A control plane that is away so long stops all nodes, in seconds.
const SHORT_STALE: u64 = 3_600;
/// Trails that are kept for less cannot answer for a month, in seconds.
const SHORT_AUDIT: u64 = 30 * 86_400;

/// What is to be said of it.
pub(super) fn judge(seen: &Seen, findings: &mut Vec<Finding>) {
    let identity = &seen.identity;
    findings.push(Finding::info(
        "reachable",
        "control plane",
        format!(
            "version {} answers for deployment {}",
            identity.server_version, identity.deployment_id
        ),
        Whose::ControlPlane,
    ));
    for (part, why) in seen.hidden() {
        findings.push(hidden(part, &why.to_string()));
    }
    let own = env!("CARGO_PKG_VERSION");
    if identity.server_version != own {
        let what = format!(
            "this command is of version {own}, the control plane of {}",
            identity.server_version
        );
        let finding = Finding::info("version", "xai", what, Whose::Connection);
        findings.push(finding.but(
            Severity::Warning,
            format!("use xai of version {}", identity.server_version),
        ));
    }
    findings.extend(clocks("control plane", seen.clock.as_ref()));
    settings(seen, findings);
    sealing(seen, findings);
}

/// A clock that is not this machine's, and when it was read by this machine's, all in Unix milliseconds.
pub(super) struct Clock {
    /// Whole seconds.
    pub(super) theirs: i64,
    /// Before it was asked, and after.
    pub(super) ours: (i64, i64),
}

/// What is to be said of a clock.
pub(super) fn clocks(object: &str, clock: Option<&Clock>) -> Option<Finding> {
    let Clock { theirs, ours } = clock?;
    let (behind, ahead) = (theirs.saturating_sub(ours.0), theirs.saturating_sub(ours.1));
    let apart = match () {
        () if behind < -CLOCKS_APART => behind,
        () if ahead > CLOCKS_APART => ahead,
        () => return None,
    };
    let seconds = apart.checked_div(1_000).unwrap_or_default();
    let what = format!("its clock is {seconds} s from this machine's (positive: ahead)");
    let finding = Finding::info("clock", object, what, Whose::Machine);
    Some(finding.but(
        Severity::Warning,
        "timedatectl status, on both machines; let a time service set both clocks",
    ))
}

/// A part that could not be looked at.
fn hidden(part: &'static str, why: &str) -> Finding {
    let what = format!("not looked at: {why}");
    Finding::info("hidden", part, what, Whose::Connection).but(
        Severity::Warning,
        "xai whoami; then doctor with a credential of role root (--credential-file)",
    )
}

fn settings(seen: &Seen, findings: &mut Vec<Finding>) {
    let Ok(view) = &seen.settings else { return };
    let in_force = view.in_force.unwrap_or_default();
    let span = |seconds| Span::seconds(seconds);
    let stale = in_force.max_stale_seconds;
    let found = |object: &str, what| Finding::info("settings", object, what, Whose::Configuration);
    let what = match stale {
        LONG_STALE.. => {
            "a node that is cut off from the control plane serves so long, revoked keys included"
        }
        ..SHORT_STALE => "a control plane that is away for so long stops every node",
        SHORT_STALE..LONG_STALE => "nodes serve so long without a control plane",
    };
    let finding = found("max_stale", format!("{}: {what}", span(stale)));
    findings.push(match stale {
        SHORT_STALE..LONG_STALE => finding,
        ..SHORT_STALE | LONG_STALE.. => {
            finding.but(Severity::Warning, "xai settings set --max-stale 72h")
        }
    });
    let keep = in_force.audit_keep_seconds;
    let finding = found(
        "audit_keep",
        format!("records of the audit trail are kept for {}", span(keep)),
    );
    findings.push(match keep {
        ..SHORT_AUDIT => finding.but(Severity::Warning, "xai settings set --audit-keep 365d"),
        SHORT_AUDIT.. => finding,
    });
}

fn sealing(seen: &Seen, findings: &mut Vec<Finding>) {
    let Ok(view) = &seen.keyring else { return };
    if view.data_keys.len() > 1 {
        let what = format!(
            "{} data keys seal secrets: a rotation did not come to its end",
            view.data_keys.len()
        );
        let finding = Finding::info("sealing", "keyring", what, Whose::Configuration);
        findings.push(finding.but(Severity::Warning, "xai secret rotate"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_be_a_little_apart_and_an_answer_may_take_its_time() {
        let check = |theirs: i64, apart: bool| {
            let ours = (100_000, 120_000);
            let found = clocks("x", Some(&Clock { theirs, ours }));
            assert_eq!(found.is_some(), apart, "{theirs}: {found:?}");
        };
        check(95_000, false);
        check(94_999, true);
        check(110_000, false);
        check(125_000, false);
        check(125_001, true);
        assert_eq!(clocks("x", None), None);
    }
}
