//! How many denied changes are recorded: enough to be seen, not so many that a stolen credential could fill the store.

use std::time::Duration;

const IN_AN_HOUR: u32 = 100;
const HOUR: Duration = Duration::from_secs(3600);

/// Denied changes of the present hour.
#[derive(Debug, Default)]
pub(super) struct Denials {
    since: Duration,
    count: u32,
}

impl Denials {
    /// Whether one more is recorded.
    pub(super) fn admit(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= HOUR {
            *self = Self {
                since: now,
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);
        self.count <= IN_AN_HOUR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_an_hour_are_recorded() {
        let mut denials = Denials::default();
        let recorded = |denials: &mut Denials, minute: u64| {
            (0..250)
                .filter(|_| denials.admit(Duration::from_secs(minute * 60)))
                .count()
        };
        assert_eq!(recorded(&mut denials, 1), 100);
        assert_eq!(recorded(&mut denials, 59), 0);
        assert_eq!(recorded(&mut denials, 61), 100);
    }
}
