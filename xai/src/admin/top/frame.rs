//! One look as lines of text.

use jiff::Timestamp;
use proxyxai_core::money::nano::NanoUsd;
use proxyxai_proto::admin::v1::{NodeView, ProviderView, UpstreamKeyView, UsageRow};

use super::{super::node, history::History};
use crate::failure::Failure;

/// What was seen at one time.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) at_unix_ms: i64,
    /// Usage is counted from then on.
    pub(super) since_unix_ms: i64,
    pub(super) nodes: Vec<NodeView>,
    pub(super) accounts: Vec<UsageRow>,
    pub(super) providers: Vec<ProviderView>,
    pub(super) disabled_keys: Vec<UpstreamKeyView>,
}

/// Its lines, in 80 columns where names are not long; with a history, also what was booked of late.
pub(super) fn lines(
    look: &Look,
    history: Option<&History>,
    trouble: Option<&Failure>,
) -> Vec<String> {
    let end = history.map_or("", |_| "  q ends");
    let mut lines = vec![format!("{}{end}", time(look.at_unix_ms))];
    if let Some(failure) = trouble {
        lines.push(format!("cannot look: {failure}"));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:<24} {:<8} {:>9} {:>10} {:>9}  PROGRAM",
        "NODE", "STATE", "IN FLIGHT", "UNREPORTED", "VERSION"
    ));
    lines.extend(look.nodes.iter().map(node_line));
    lines.push(String::new());
    lines.push(format!(
        "{:<30} {:>9} {:>7} {:>14} {:>14}",
        format!("ACCOUNT {}-", time(look.since_unix_ms)),
        "ATTEMPTS",
        "PER S",
        "COST USD",
        "USD PER MINUTE"
    ));
    let mut accounts: Vec<_> = look.accounts.iter().collect();
    let of_late = |row: &UsageRow| history.and_then(|all| all.since(&row.account_id));
    accounts.sort_by_key(|row| {
        let sum = of_late(row).map(|(sum, _)| (sum.cost_nano_usd, sum.attempts));
        std::cmp::Reverse((sum, row.cost_nano_usd, row.attempts))
    });
    lines.extend(
        accounts
            .into_iter()
            .map(|row| account_line(row, of_late(row))),
    );
    lines.push(String::new());
    lines.push(format!(
        "{:<28} {:<18} {:>12}  DISABLED KEYS",
        "PROVIDER", "KIND", "ENABLED KEYS"
    ));
    lines.extend(look.providers.iter().map(|one| provider_line(one, look)));
    lines
}

fn node_line(node: &NodeView) -> String {
    let vitals = node.vitals.filter(|_| node.connected);
    let number = |of: Option<u64>| of.map_or_else(|| "-".to_owned(), |of| of.to_string());
    let applied = node.applied.as_ref();
    let applied = applied.map(|version| format!("{}.{}", version.generation, version.revision));
    format!(
        "{:<24} {:<8} {:>9} {:>10} {:>9}  {}",
        node.id,
        node::word(node.state()),
        number(vitals.map(|vitals| vitals.open_requests)),
        number(vitals.map(|vitals| vitals.unreported_events)),
        applied.unwrap_or_default(),
        node.program_version
    )
}

fn account_line(row: &UsageRow, of_late: Option<(super::history::Sum, i64)>) -> String {
    let (per_second, per_minute) = match of_late {
        None => (String::new(), String::new()),
        Some((sum, ms)) => {
            let tenths = sum.attempts.saturating_mul(10_000);
            let tenths = tenths.checked_div(ms.unsigned_abs()).unwrap_or_default();
            let nano = sum.cost_nano_usd.saturating_mul(60_000);
            let nano = nano.checked_div(ms).unwrap_or_default();
            (
                format!("{}.{}", tenths / 10, tenths % 10),
                NanoUsd(nano).to_string(),
            )
        }
    };
    format!(
        "{:<30} {:>9} {per_second:>7} {:>14} {per_minute:>14}",
        row.account_path,
        row.attempts,
        NanoUsd(row.cost_nano_usd).to_string()
    )
}

fn provider_line(view: &ProviderView, look: &Look) -> String {
    let provider = view.provider.clone().unwrap_or_default();
    let disabled = look.disabled_keys.iter();
    let disabled = disabled.filter(|key| key.provider_id == provider.id);
    let disabled: Vec<&str> = disabled.map(|key| key.id.as_str()).collect();
    let kind = match provider.disabled {
        true => "disabled",
        false => crate::output::view::kind_word(provider.kind()),
    };
    format!(
        "{:<28} {kind:<18} {:>12}  {}",
        provider.id,
        format!("{}/{}", view.enabled_keys, view.keys),
        disabled.join(", ")
    )
}

fn time(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1_000);
    Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_that_spends_most_of_late_stands_first() {
        let row = |id: &str, attempts, cost_nano_usd| UsageRow {
            account_id: id.to_owned(),
            account_path: format!("root/{id}"),
            attempts,
            cost_nano_usd,
            ..UsageRow::default()
        };
        let look = |at_unix_ms, accounts| Look {
            at_unix_ms,
            accounts,
            ..Look::default()
        };
        let before = look(0, vec![row("rich", 9, 5_000_000_000), row("busy", 0, 0)]);
        let after = look(
            30_000,
            vec![
                row("rich", 9, 5_000_000_000),
                row("busy", 60, 1_000_000_000),
            ],
        );
        let mut history = History::default();
        history.add(&before);
        history.add(&after);
        let at = |lines: &[String], word: &str| {
            let at = lines.iter().position(|line| line.contains(word));
            at.unwrap_or_else(|| panic!("{word} in {lines:#?}"))
        };
        let live = lines(&after, Some(&history), None);
        assert!(at(&live, "root/busy") < at(&live, "root/rich"));
        let busy = &live[at(&live, "root/busy")];
        // 60 attempts in 30 s, and one dollar: two dollars a minute.
        let words: Vec<&str> = busy.split_whitespace().collect();
        assert_eq!(words[1..3], ["60", "2.0"], "{busy}");
        assert!(words[4].starts_with('2'), "{busy}");
        let once = lines(&after, None, None);
        assert!(at(&once, "root/rich") < at(&once, "root/busy"));
    }
}
