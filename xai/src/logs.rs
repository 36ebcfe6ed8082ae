//! The log of a process, and the handles by which its level is changed while it runs: one for each plane, over that plane's own lines.
//!
//! Invariant: a level changes what one plane writes and nothing else, so two planes in one process do not undo each other's.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    sync::{Arc, Mutex, PoisonError},
};

use proxyxai_core::{order::LogLevel, ports::LogControl};
use tracing_subscriber::EnvFilter;

use crate::{
    failure::Failure,
    settings::value::{LogFilter, LogFormat},
};

/// A part of the program with a level of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The control plane.
    ControlPlane,
    /// The node.
    Node,
}

impl Part {
    /// What its lines are of.
    fn target(self) -> &'static str {
        match self {
            Self::ControlPlane => "proxyxai_control_plane",
            Self::Node => "proxyxai_data_plane",
        }
    }
}

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// The log of this process.
#[derive(Clone)]
pub struct Logs(Arc<Inner>);

struct Inner {
    /// What the settings say.
    base: String,
    levels: Mutex<[(Part, Option<LogLevel>); 2]>,
    reload: Reload,
}

impl Logs {
    /// Begins to write lines to standard error.
    ///
    /// # Errors
    /// The setting `log` is not understood.
    pub fn start(log: &LogFilter, format: LogFormat) -> Result<Self, Failure> {
        let base = log.directives().to_owned();
        let filter = EnvFilter::try_new(&base).map_err(|error| {
            Failure::usage(format!("the setting `log` is not understood: {error}"))
        })?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr);
        // A second gateway in one process, as tests run them, logs through the first one's.
        let reload: Reload = match format {
            LogFormat::Text => {
                let builder = builder.with_filter_reloading();
                let handle = builder.reload_handle();
                let _first_one_wins = builder.try_init();
                Box::new(move |filter| handle.reload(filter))
            }
            LogFormat::Json => {
                let builder = builder.json().with_filter_reloading();
                let handle = builder.reload_handle();
                let _first_one_wins = builder.try_init();
                Box::new(move |filter| handle.reload(filter))
            }
        };
        Ok(Self(Arc::new(Inner {
            base,
            levels: Mutex::new([(Part::ControlPlane, None), (Part::Node, None)]),
            reload,
        })))
    }

    /// What changes the level of a part.
    pub fn control(&self, part: Part) -> Arc<dyn LogControl> {
        Arc::new(Control {
            logs: self.clone(),
            part,
        })
    }
}

/// Changes the level of one part.
struct Control {
    logs: Logs,
    part: Part,
}

impl LogControl for Control {
    fn set(&self, level: Option<LogLevel>) {
        let inner = &self.logs.0;
        let mut levels = inner.levels.lock().unwrap_or_else(PoisonError::into_inner);
        for (part, held) in levels.iter_mut() {
            if *part == self.part {
                *held = level;
            }
        }
        let text = directives(&inner.base, &*levels);
        let changed = EnvFilter::try_new(text).map_err(|error| error.to_string());
        let changed = changed.and_then(|filter| (inner.reload)(filter).map_err(|e| e.to_string()));
        if let Err(error) = changed {
            tracing::warn!(error, "the level of the log could not be changed");
        }
    }
}

/// The directives of the settings, and after them those of parts, which go before them.
fn directives(base: &str, levels: &[(Part, Option<LogLevel>)]) -> String {
    let mut text = base.to_owned();
    for (part, level) in levels {
        if let Some(level) = level {
            let _to_a_string = write!(text, ",{}={}", part.target(), level.as_str());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_goes_before_the_settings_for_its_part_alone() {
        let both = |control, node| [(Part::ControlPlane, control), (Part::Node, node)];
        let check = |base: &str, levels: [(Part, Option<LogLevel>); 2], expected: &str| {
            let text = directives(base, &levels);
            assert_eq!(text, expected);
            let filter = EnvFilter::try_new(&text).unwrap().to_string();
            for (part, level) in levels {
                let wanted = format!("{}={}", part.target(), level.map_or("", |l| l.as_str()));
                let found = filter.split(',').any(|one| one == wanted);
                assert_eq!(found, level.is_some(), "{filter}");
            }
        };
        let (debug, error) = (Some(LogLevel::Debug), Some(LogLevel::Error));
        check("info", both(None, None), "info");
        check("info", both(None, debug), "info,proxyxai_data_plane=debug");
        check(
            "warn,proxyxai_data_plane=trace",
            both(error, debug),
            "warn,proxyxai_data_plane=trace,proxyxai_control_plane=error,proxyxai_data_plane=debug",
        );
    }
}
