//! What an administrator wants of a process beside its configuration: whether a node takes part, and what is written to a log.
//!
//! Invariants: what is not known changes nothing; a level that was wanted for a while is over by the clock of whoever keeps the wish, and
//! whoever obeys it counts the rest by itself.

use proxyxai_proto::{
    config::v1::{self as proto, Order, Vitals},
    store::v1::LogWish,
};

/// Whether a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// It is ready, and serves.
    #[default]
    Serve,
    /// It says that it is not ready, and serves what comes all the same.
    Cordon,
    /// As cordoned; and clients' connections close after the request that they are at.
    Drain,
}

impl Schedule {
    /// Reads it; `None` when nothing is known.
    pub fn from_proto(schedule: proto::Schedule) -> Option<Self> {
        match schedule {
            proto::Schedule::Unspecified => None,
            proto::Schedule::Serve => Some(Self::Serve),
            proto::Schedule::Cordon => Some(Self::Cordon),
            proto::Schedule::Drain => Some(Self::Drain),
        }
    }

    /// As it goes over the wire.
    pub fn to_proto(self) -> proto::Schedule {
        match self {
            Self::Serve => proto::Schedule::Serve,
            Self::Cordon => proto::Schedule::Cordon,
            Self::Drain => proto::Schedule::Drain,
        }
    }

    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serving",
            Self::Cordon => "cordoned",
            Self::Drain => "draining",
        }
    }
}

/// The least serious lines that are written to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What somebody has to look at.
    Error,
    /// And what may become that.
    Warn,
    /// And what happens seldom.
    Info,
    /// And what happens often.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// All, the most serious first.
    pub const ALL: [Self; 5] = [
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// Reads it; `None` for that of the settings.
    pub fn from_proto(level: proto::LogLevel) -> Option<Self> {
        match level {
            proto::LogLevel::Unspecified => None,
            proto::LogLevel::Error => Some(Self::Error),
            proto::LogLevel::Warn => Some(Self::Warn),
            proto::LogLevel::Info => Some(Self::Info),
            proto::LogLevel::Debug => Some(Self::Debug),
            proto::LogLevel::Trace => Some(Self::Trace),
        }
    }

    /// As it goes over the wire; `None` is that of the settings.
    pub fn to_proto(level: Option<Self>) -> proto::LogLevel {
        match level {
            None => proto::LogLevel::Unspecified,
            Some(Self::Error) => proto::LogLevel::Error,
            Some(Self::Warn) => proto::LogLevel::Warn,
            Some(Self::Info) => proto::LogLevel::Info,
            Some(Self::Debug) => proto::LogLevel::Debug,
            Some(Self::Trace) => proto::LogLevel::Trace,
        }
    }

    /// In one word, as log filters and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The level that a wish asks for now, and for how many milliseconds more; 0 means without end.
pub fn level_now(wish: Option<&LogWish>, now_unix_ms: i64) -> (Option<LogLevel>, u64) {
    let Some((wish, level)) = wish.and_then(|w| Some((w, LogLevel::from_proto(w.level())?))) else {
        return (None, 0);
    };
    if wish.until_unix_ms == 0 {
        return (Some(level), 0);
    }
    match u64::try_from(wish.until_unix_ms.saturating_sub(now_unix_ms)) {
        Ok(left) if left > 0 => (Some(level), left),
        Ok(_) | Err(_) => (None, 0),
    }
}

/// What a node is told, of what is kept.
pub fn order(schedule: proto::Schedule, wish: Option<&LogWish>, now_unix_ms: i64) -> Order {
    let (level, log_level_for_ms) = level_now(wish, now_unix_ms);
    Order {
        schedule: Schedule::from_proto(schedule)
            .unwrap_or_default()
            .to_proto()
            .into(),
        log_level: LogLevel::to_proto(level).into(),
        log_level_for_ms,
    }
}

/// Whether a live node that is to be drained has nothing left, so that it can be stopped without anybody missing anything.
pub fn is_drained(wanted: proto::Schedule, vitals: Option<&Vitals>) -> bool {
    wanted == proto::Schedule::Drain
        && vitals.is_some_and(|vitals| {
            vitals.schedule() == proto::Schedule::Drain
                && vitals.open_requests == 0
                && vitals.unreported_events == 0
                && vitals.unreported_starts == 0
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_was_wanted_for_a_while_ends() {
        let wish = |until_unix_ms| LogWish {
            level: proto::LogLevel::Debug.into(),
            until_unix_ms,
        };
        let check = |wish: Option<LogWish>, expected| {
            assert_eq!(level_now(wish.as_ref(), 1_000), expected, "{wish:?}");
        };
        check(None, (None, 0));
        check(Some(LogWish::default()), (None, 0));
        check(Some(wish(0)), (Some(LogLevel::Debug), 0));
        check(Some(wish(1_001)), (Some(LogLevel::Debug), 1));
        check(Some(wish(1_000)), (None, 0));
        check(Some(wish(i64::MIN)), (None, 0));
        check(
            Some(wish(i64::MAX)),
            (Some(LogLevel::Debug), 9_223_372_036_854_774_807),
        );
    }

    #[test]
    fn a_node_is_drained_when_it_says_so_and_has_nothing_left() {
        let empty = Vitals {
            schedule: proto::Schedule::Drain.into(),
            ..Vitals::default()
        };
        let check = |wanted, vitals: Option<Vitals>, expected| {
            assert_eq!(is_drained(wanted, vitals.as_ref()), expected, "{vitals:?}");
        };
        check(proto::Schedule::Drain, Some(empty), true);
        check(proto::Schedule::Drain, None, false);
        check(proto::Schedule::Drain, Some(Vitals::default()), false);
        check(proto::Schedule::Cordon, Some(empty), false);
        for left in [
            Vitals {
                open_requests: 1,
                ..empty
            },
            Vitals {
                unreported_events: 1,
                ..empty
            },
            Vitals {
                unreported_starts: 1,
                ..empty
            },
        ] {
            check(proto::Schedule::Drain, Some(left), false);
        }
    }

    #[test]
    fn words_and_the_wire_know_the_same() {
        for schedule in [Schedule::Serve, Schedule::Cordon, Schedule::Drain] {
            assert_eq!(Schedule::from_proto(schedule.to_proto()), Some(schedule));
        }
        for level in LogLevel::ALL {
            assert_eq!(
                LogLevel::from_proto(LogLevel::to_proto(Some(level))),
                Some(level)
            );
        }
        assert_eq!(LogLevel::from_proto(LogLevel::to_proto(None)), None);
        assert_eq!(Schedule::from_proto(proto::Schedule::Unspecified), None);
    }
}
