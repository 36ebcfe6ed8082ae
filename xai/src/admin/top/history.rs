//! The looks of the last minutes, and what was booked between them.

use std::collections::{BTreeMap, VecDeque};

use super::frame::Look;

/// How far back rates look, in milliseconds.
const WINDOW: i64 = 60_000;

/// What an account has used, up to one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) attempts: u64,
    pub(super) cost_nano_usd: i64,
}

/// Looks, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<(i64, BTreeMap<String, Sum>)>);

impl History {
    /// Remembers a look.
    pub(super) fn add(&mut self, look: &Look) {
        let sums = look.accounts.iter().map(|row| {
            let sum = Sum {
                attempts: row.attempts,
                cost_nano_usd: row.cost_nano_usd,
            };
            (row.account_id.clone(), sum)
        });
        self.0.push_back((look.at_unix_ms, sums.collect()));
        let old = look.at_unix_ms.saturating_sub(WINDOW);
        // One look from before the window stays, so that the whole window is covered.
        while self.0.get(1).is_some_and(|(at, _)| *at <= old) {
            self.0.pop_front();
        }
    }

    /// What was booked for an account between the oldest look and the newest, and how many milliseconds lie between; `None` when there
    /// was one look alone.
    pub(super) fn since(&self, account_id: &str) -> Option<(Sum, i64)> {
        let ((first, before), (last, after)) = (self.0.front()?, self.0.back()?);
        let ms = last.checked_sub(*first).filter(|ms| *ms > 0)?;
        let sum = |of: &BTreeMap<String, Sum>| of.get(account_id).copied().unwrap_or_default();
        let (before, after) = (sum(before), sum(after));
        let booked = Sum {
            attempts: after.attempts.saturating_sub(before.attempts),
            cost_nano_usd: after.cost_nano_usd.saturating_sub(before.cost_nano_usd),
        };
        Some((booked, ms))
    }
}

#[cfg(test)]
mod tests {
    use proxyxai_proto::admin::v1::UsageRow;

    use super::*;

    #[test]
    fn what_was_booked_in_the_window_is_told() {
        let look = |at_unix_ms, attempts, cost_nano_usd| Look {
            at_unix_ms,
            accounts: vec![UsageRow {
                account_id: "a".to_owned(),
                attempts,
                cost_nano_usd,
                ..UsageRow::default()
            }],
            ..Look::default()
        };
        let mut history = History::default();
        assert_eq!(history.since("a"), None);
        history.add(&look(0, 10, 100));
        assert_eq!(history.since("a"), None);
        history.add(&look(30_000, 20, 300));
        let check = |history: &History, attempts, cost_nano_usd, ms| {
            let sum = Sum {
                attempts,
                cost_nano_usd,
            };
            assert_eq!(history.since("a"), Some((sum, ms)));
        };
        check(&history, 10, 200, 30_000);
        history.add(&look(89_999, 25, 400));
        check(&history, 15, 300, 89_999);
        history.add(&look(90_000, 26, 400));
        check(&history, 6, 100, 60_000);
        assert_eq!(history.since("b"), Some((Sum::default(), 60_000)));
    }
}
