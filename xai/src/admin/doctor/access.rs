//! Who gets in: virtual keys and credentials near their end, join tokens that are open.

use proxyxai_proto::admin::v1::JoinTokenView;

use super::{
    finding::{Finding, Severity, Whose},
    seen::{MOST_KEYS, Seen},
};

/// What ends within this, in milliseconds, is near its end.
const NEAR: i64 = 7 * 86_400_000;

/// What is to be said of it.
pub(super) fn judge(seen: &Seen, now: i64, findings: &mut Vec<Finding>) {
    let keys = seen.keys.as_deref().unwrap_or_default();
    if keys.len() >= MOST_KEYS {
        let what = format!("the first {} were looked at", keys.len());
        findings.push(Finding::info(
            "key",
            "virtual keys",
            what,
            Whose::Configuration,
        ));
    }
    for key in keys {
        let about = format!("virtual key `{}` of {}", key.name, key.account_path);
        let next = format!("xai key set {} --expires 90d", key.id);
        findings.extend(end("key", &key.id, &about, key.expires_unix_ms, now, &next));
        if key.previous_expires_unix_ms > now {
            let what = format!("{about}: its secret of before the rotation still works");
            findings.push(Finding::info("key", &key.id, what, Whose::Configuration));
        }
    }
    let credentials = seen.credentials.iter().flatten();
    for one in credentials.filter(|one| !one.disabled) {
        let about = format!("credential `{}` of {}", one.name, one.account_path);
        let next = format!("xai credential set {} --expires 90d", one.id);
        let ends = one.expires_unix_ms;
        findings.extend(end("credential", &one.id, &about, ends, now, &next));
    }
    let tokens = seen.join_tokens.iter().flatten();
    for token in tokens.filter(|token| is_open(token, now)) {
        let what = match (token.uses_max, token.expires_unix_ms) {
            (0, 0) => "lets in any number of nodes, without end",
            (0, _) => "lets in any number of nodes until its end",
            (_, 0) => "lets in more nodes, without end",
            _ => "lets in more nodes until its end",
        };
        let finding = Finding::info("join_token", &token.id, what, Whose::Configuration);
        let next = format!(
            "when all nodes have joined: xai join-token revoke {}",
            token.id
        );
        findings.push(finding.but(Severity::Info, next));
    }
}

fn is_open(token: &JoinTokenView, now: i64) -> bool {
    let lives = token.expires_unix_ms == 0 || token.expires_unix_ms > now;
    let left = token.uses_max == 0 || token.uses < token.uses_max;
    lives && left && !token.revoked
}

/// What is to be said of an end, 0 for never.
fn end(
    check: &'static str,
    id: &str,
    about: &str,
    ends: i64,
    now: i64,
    next: &str,
) -> Option<Finding> {
    let left = ends.saturating_sub(now);
    if ends == 0 || left > NEAR {
        return None;
    }
    if left <= 0 {
        let what = format!("{about} has ended and is refused");
        return Some(Finding::info(check, id, what, Whose::Configuration));
    }
    let hours = left.checked_div(3_600_000).unwrap_or_default();
    let what = format!("{about} ends in {hours} hours");
    let finding = Finding::info(check, id, what, Whose::Configuration);
    Some(finding.but(Severity::Warning, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_of_a_week_before() {
        let check = |ends: i64, severity: Option<Severity>| {
            let found = end("key", "k", "key", ends, NEAR, "");
            assert_eq!(found.map(|one| one.severity), severity, "{ends}");
        };
        check(0, None);
        check(1, Some(Severity::Info));
        check(NEAR, Some(Severity::Info));
        check(NEAR + 1, Some(Severity::Warning));
        check(NEAR + NEAR, Some(Severity::Warning));
        check(NEAR + NEAR + 1, None);
    }

    #[test]
    fn a_token_is_open_while_it_lets_somebody_in() {
        let check = |expires_unix_ms, uses_max, uses, revoked, open: bool| {
            let token = JoinTokenView {
                expires_unix_ms,
                uses_max,
                uses,
                revoked,
                ..JoinTokenView::default()
            };
            assert_eq!(is_open(&token, 10), open, "{token:?}");
        };
        check(0, 0, 5, false, true);
        check(11, 1, 0, false, true);
        check(10, 1, 0, false, false);
        check(0, 1, 1, false, false);
        check(0, 0, 0, true, false);
    }
}
