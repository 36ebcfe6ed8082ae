//! How large leases are: at the node what it asks for, at the leader what it gives.

use std::time::Duration;

use crate::money::amounts::Amounts;

/// For how long a node makes new holds on a lease, in milliseconds. The control plane never takes money back because it has passed.
pub const LIFETIME_MS: u64 = 60_000;

/// A node leases what it spends in this time, net of what it gets back, besides what is held.
pub const AHEAD: Duration = Duration::from_secs(30);

/// What the leader gives: what the node would like, unless that is more than half of what there is. Then money is nearly out, and the
/// request that waits gets exactly what it needs, so that nothing is stranded with a node that may not use it; `true` says so.
/// `room` covers `min`.
pub fn grant(min: &Amounts, want: &Amounts, room: &Amounts) -> (Amounts, bool) {
    let want = want.most(min);
    if room.share(1, 2).covers(&want) {
        (want, false)
    } else {
        (*min, true)
    }
}

/// What was spent lately: this span of [`AHEAD`] and the one before, weighed by how far this one has come.
#[derive(Debug, Clone, Copy)]
pub struct Spend {
    span: u64,
    current: Amounts,
    before: Amounts,
}

impl Spend {
    /// Nothing yet.
    pub fn none(depth: usize) -> Self {
        Self {
            span: 0,
            current: Amounts::zero(depth),
            before: Amounts::zero(depth),
        }
    }

    /// Counts what was charged. What does not fit an amount any more is left out: a size is no balance.
    pub fn add(&mut self, charged: &Amounts, now: Duration) {
        self.roll(now);
        self.current = self.current.checked_add(charged).unwrap_or(self.current);
    }

    /// What was spent in the last [`AHEAD`].
    pub fn lately(&mut self, now: Duration) -> Amounts {
        self.roll(now);
        let (length, into) = (
            millis(AHEAD),
            millis(now).checked_rem(millis(AHEAD)).unwrap_or(0),
        );
        let before = self.before.share(length.saturating_sub(into), length);
        self.current.checked_add(&before).unwrap_or(self.current)
    }

    fn roll(&mut self, now: Duration) {
        let span = millis(now).checked_div(millis(AHEAD)).unwrap_or(0);
        let depth = self.current.depth();
        match span.saturating_sub(self.span) {
            0 => return,
            1 => self.before = self.current,
            _ => self.before = Amounts::zero(depth),
        }
        self.current = Amounts::zero(depth);
        self.span = span;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::nano::NanoUsd;

    fn of(level: i64) -> Amounts {
        Amounts::even(2, NanoUsd(level), NanoUsd(level)).unwrap()
    }

    #[test]
    fn near_exhaustion_a_request_gets_what_it_needs_and_no_more() {
        let check = |min: i64, want: i64, room: i64, granted: (i64, bool)| {
            assert_eq!(
                grant(&of(min), &of(want), &of(room)),
                (of(granted.0), granted.1),
                "{min} {want} {room}"
            );
        };
        check(3, 10, 100, (10, false));
        check(3, 10, 20, (10, false));
        check(3, 10, 19, (3, true));
        check(3, 1, 100, (3, false));
        check(3, 3, 3, (3, true));
    }

    #[test]
    fn spend_fades_over_the_time_that_is_leased_ahead() {
        let at = Duration::from_secs;
        let mut spend = Spend::none(2);
        spend.add(&of(60), at(1));
        assert_eq!(spend.lately(at(29)), of(60));
        assert_eq!(spend.lately(at(45)), of(30));
        spend.add(&of(5), at(45));
        assert_eq!(spend.lately(at(45)), of(35));
        assert_eq!(spend.lately(at(60)), of(5));
        assert_eq!(spend.lately(at(120)), of(0));
    }
}
