//! Windows of money: days, ISO weeks, months, and all of time, in the one IANA time zone of a deployment.
//!
//! Invariants: windows of one period do not overlap and leave no gap; a [`Stamp`] lies in exactly one window of each period. Stamps
//! are the leader's and never go back; the clock of a node decides nothing.

use std::fmt;

use jiff::{
    Timestamp, Zoned,
    civil::{Date, Weekday},
    tz::{TimeZone, TimeZoneDatabase},
};

/// A moment of the leader, in Unix milliseconds: max(its clock, the last stamp).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub i64);

impl Stamp {
    /// Later than every other: the end of what has none.
    pub const NEVER: Self = Self(i64::MAX);

    /// The leader's time: its clock, unless a later stamp was given already.
    #[must_use]
    pub fn of_leader(clock_unix_ms: i64, last: Self) -> Self {
        last.max(Self(clock_unix_ms))
    }

    /// Milliseconds from here to a later stamp; 0 when it is past.
    pub fn ms_until(self, later: Self) -> u64 {
        u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0)
    }
}

/// Furthest that a replica's clock may be from the tick that it saw changing, in milliseconds, for it to lead.
pub const MAX_TICK_SKEW_MS: u64 = 30_000;

/// Whether a replica with this clock may lead, by the last tick that changed while it watched. A tick that nobody renews is no
/// evidence, so `None` forbids nothing.
pub fn fit_to_lead(clock_unix_ms: i64, tick_seen_changing: Option<Stamp>) -> bool {
    tick_seen_changing.is_none_or(|tick| clock_unix_ms.abs_diff(tick.0) <= MAX_TICK_SKEW_MS)
}

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// ISO week, from Monday.
    Week,
    /// Calendar month.
    Month,
    /// All of time.
    Total,
}

impl Period {
    /// All of them, shortest first.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Total];

    /// Its place in [`Period::ALL`].
    pub fn index(self) -> usize {
        match self {
            Self::Day => 0,
            Self::Week => 1,
            Self::Month => 2,
            Self::Total => 3,
        }
    }

    /// Its word in settings and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "total",
        }
    }
}

/// One window: `from` is in it, `to` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// How long it is.
    pub period: Period,
    /// Its first moment.
    pub from: Stamp,
    /// The first moment after it; [`Stamp::NEVER`] for the total.
    pub to: Stamp,
}

impl Window {
    /// All of time.
    pub const TOTAL: Self = Self {
        period: Period::Total,
        from: Stamp(i64::MIN),
        to: Stamp::NEVER,
    };

    /// Whether the moment lies in it.
    pub fn contains(&self, at: Stamp) -> bool {
        self.from <= at && at < self.to
    }

    /// Whether it is over.
    pub fn ended(&self, at: Stamp) -> bool {
        self.to <= at
    }
}

/// The window of each period at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Windows([Window; 4]);

impl Windows {
    /// Whether the moment lies in all of them.
    pub fn contain(&self, at: Stamp) -> bool {
        self.0.iter().all(|window| window.contains(at))
    }

    /// When the first of them ends.
    pub fn first_end(&self) -> Stamp {
        self.0
            .iter()
            .map(|window| window.to)
            .min()
            .unwrap_or(Stamp::NEVER)
    }

    /// The one of this period.
    pub fn get(&self, period: Period) -> Window {
        self.0.get(period.index()).copied().unwrap_or(Window::TOTAL)
    }

    /// All of them, shortest first.
    pub fn iter(&self) -> impl Iterator<Item = Window> + '_ {
        self.0.iter().copied()
    }
}

/// Cuts time into windows.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
}

/// A time zone that is not in the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time zone of the IANA table; write one like `UTC` or `Europe/Berlin`")]
pub struct UnknownZone(pub String);

/// A moment that is in no calendar: before the year -9999 or after 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} ms after 1970 is outside the calendar; check the clock of the control plane")]
pub struct OutsideCalendar(pub i64);

impl Calendar {
    /// The calendar of a zone, from the table that is compiled in: all replicas of one program cut time alike, whatever their hosts
    /// have installed.
    ///
    /// # Errors
    /// When the table has no such zone.
    pub fn of_zone(name: &str) -> Result<Self, UnknownZone> {
        let zone = TimeZoneDatabase::bundled().get(name);
        zone.map(|zone| Self { zone })
            .map_err(|_| UnknownZone(name.to_owned()))
    }

    /// The windows that the moment lies in.
    ///
    /// # Errors
    /// When it lies in no calendar.
    pub fn windows(&self, at: Stamp) -> Result<Windows, OutsideCalendar> {
        self.cut(at).ok_or(OutsideCalendar(at.0))
    }

    fn cut(&self, at: Stamp) -> Option<Windows> {
        let day = self.local(at)?.date();
        let monday = if day.weekday() == Weekday::Monday {
            day
        } else {
            day.nth_weekday(-1, Weekday::Monday).ok()?
        };
        let next_monday = day.nth_weekday(1, Weekday::Monday).ok()?;
        let next_month = day.last_of_month().tomorrow().ok()?;
        let window = |period, from, to| {
            Some(Window {
                period,
                from: self.midnight(from)?,
                to: self.midnight(to)?,
            })
        };
        Some(Windows([
            window(Period::Day, day, day.tomorrow().ok()?)?,
            window(Period::Week, monday, next_monday)?,
            window(Period::Month, day.first_of_month(), next_month)?,
            Window::TOTAL,
        ]))
    }

    /// The window's name: `2026-11-25`, `2026-W48`, `2026-11` or `total`.
    pub fn label(&self, window: Window) -> String {
        let Some(day) = self.local(window.from).map(|local| local.date()) else {
            return Period::Total.as_str().to_owned();
        };
        match window.period {
            Period::Day => day.to_string(),
            Period::Week => {
                let week = day.iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Period::Month => format!("{:04}-{:02}", day.year(), day.month()),
            Period::Total => Period::Total.as_str().to_owned(),
        }
    }

    fn local(&self, at: Stamp) -> Option<Zoned> {
        let at = Timestamp::from_millisecond(at.0).ok()?;
        Some(at.to_zoned(self.zone.clone()))
    }

    /// The first moment of a date; where clocks skip midnight, or the whole date, the first one after it.
    fn midnight(&self, date: Date) -> Option<Stamp> {
        let local = date.to_zoned(self.zone.clone()).ok()?;
        let first = local.start_of_day().ok()?;
        Some(Stamp(first.timestamp().as_millisecond()))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, any};

    use super::*;

    fn at(text: &str) -> Stamp {
        Stamp(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn windows_are_those_of_the_zone() {
        let check = |zone: &str, moment: &str, labels: [&str; 3], hours: i64| {
            let calendar = Calendar::of_zone(zone).unwrap();
            let windows = calendar.windows(at(moment)).unwrap();
            let found: Vec<String> = windows.iter().map(|w| calendar.label(w)).collect();
            let want: Vec<&str> = labels.into_iter().chain(["total"]).collect();
            assert_eq!(found, want, "{zone} {moment}");
            let day = windows.get(Period::Day);
            assert_eq!(day.to.0 - day.from.0, hours * 3_600_000, "{zone} {moment}");
        };
        check(
            "UTC",
            "2026-11-25T08:00:00Z",
            ["2026-11-25", "2026-W48", "2026-11"],
            24,
        );
        check(
            "UTC",
            "2026-11-30T00:00:00Z",
            ["2026-11-30", "2026-W49", "2026-11"],
            24,
        );
        check(
            "UTC",
            "2026-11-29T23:59:59.999Z",
            ["2026-11-29", "2026-W48", "2026-11"],
            24,
        );
        // The ISO year is not the year.
        check(
            "UTC",
            "2027-01-01T12:00:00Z",
            ["2027-01-01", "2026-W53", "2027-01"],
            24,
        );
        // Clocks go forward, back, forward at midnight, and over a whole day.
        check(
            "Europe/Berlin",
            "2026-03-29T10:00:00Z",
            ["2026-03-29", "2026-W13", "2026-03"],
            23,
        );
        check(
            "Europe/Berlin",
            "2026-10-24T22:00:00Z",
            ["2026-10-25", "2026-W43", "2026-10"],
            25,
        );
        check(
            "America/Santiago",
            "2026-09-06T12:00:00Z",
            ["2026-09-06", "2026-W36", "2026-09"],
            23,
        );
        check(
            "Pacific/Apia",
            "2011-12-30T09:59:59Z",
            ["2011-12-29", "2011-W52", "2011-12"],
            24,
        );
        check(
            "Pacific/Apia",
            "2011-12-30T10:00:00Z",
            ["2011-12-31", "2011-W52", "2011-12"],
            24,
        );
    }

    #[test]
    fn a_zone_that_is_none_is_refused() {
        assert_eq!(
            Calendar::of_zone("Mars/Olympus").unwrap_err(),
            UnknownZone("Mars/Olympus".to_owned())
        );
        let calendar = Calendar::of_zone("UTC").unwrap();
        assert_eq!(
            calendar.windows(Stamp::NEVER),
            Err(OutsideCalendar(i64::MAX))
        );
    }

    #[test]
    fn a_stale_tick_is_no_evidence() {
        assert!(fit_to_lead(1_000_000, None));
        assert!(fit_to_lead(1_000_000, Some(Stamp(970_000))));
        assert!(!fit_to_lead(1_000_000, Some(Stamp(969_999))));
        assert!(!fit_to_lead(1_000_000, Some(Stamp(1_030_001))));
    }

    proptest::proptest! {
        #[test]
        fn a_moment_lies_in_one_window_of_each_period(
            moment in (0_i64..4_000_000_000_000).prop_map(Stamp),
            zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/Santiago", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe"]),
        ) {
            let calendar = Calendar::of_zone(zone).unwrap();
            let windows = calendar.windows(moment).unwrap();
            proptest::prop_assert!(windows.contain(moment));
            for window in windows.iter().filter(|window| window.period != Period::Total) {
                let same = |at: i64| calendar.windows(Stamp(at)).unwrap().get(window.period);
                proptest::prop_assert_eq!(same(window.from.0), window);
                proptest::prop_assert_eq!(same(window.to.0.saturating_sub(1)), window);
                proptest::prop_assert_eq!(same(window.to.0).from, window.to);
                proptest::prop_assert_eq!(same(window.from.0.saturating_sub(1)).to, window.from);
            }
        }

        #[test]
        fn stamps_never_go_back(clocks in proptest::collection::vec(any::<i64>(), 1..20)) {
            let mut last = Stamp(0);
            for clock in clocks {
                let next = Stamp::of_leader(clock, last);
                proptest::prop_assert!(next >= last && next.0 >= clock);
                last = next;
            }
        }
    }
}
