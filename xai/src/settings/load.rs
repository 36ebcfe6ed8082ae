//! Brings the layers together: flags, environment, file, defaults. Every refusal says where the value stands.

use std::{fmt, fs, path::Path};

use clap::{Args, Command};
use serde::de::DeserializeOwned;

use super::{Line, OTHER_VARIABLES, Settings, variable};
use crate::{environment::Environment, failure::Failure};

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The YAML file.
    File,
    /// Nobody gave one.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// The settings of a program, as one source gives them.
pub trait Table: Args + DeserializeOwned + Default {
    /// As the process runs with them.
    type Settings;

    /// Takes each value from the first layer that has one; gives a line for each.
    ///
    /// # Errors
    /// Names settings that do not go together.
    fn settle(
        layers: &[(Source, Self)],
        environment: &Environment,
    ) -> Result<(Self::Settings, Vec<Line>), Failure>;
}

/// Settings, a line for each, and warnings about what was given and is not used.
#[derive(Debug)]
pub struct Loaded<S = Settings> {
    /// To run with.
    pub settings: S,
    /// To be shown.
    pub lines: Vec<Line>,
    /// Variables that look like settings and are none.
    pub unknown_variables: Vec<String>,
}

/// Reads all layers.
///
/// # Errors
/// Names the variable, or the line and column of the file, that cannot be used.
pub fn load<T: Table>(
    flags: T,
    config: Option<&Path>,
    environment: &Environment,
) -> Result<Loaded<T::Settings>, Failure> {
    let (given, unknown_variables) = from_environment(environment)?;
    let config = config
        .map(Path::to_owned)
        .or_else(|| environment.get("XAI_CONFIG").map(Into::into));
    let file = match &config {
        Some(path) => from_file(path)?,
        None => T::default(),
    };
    let layers = [
        (Source::Flag, flags),
        (Source::Environment, given),
        (Source::File, file),
    ];
    let (settings, lines) = T::settle(&layers, environment)?;
    Ok(Loaded {
        settings,
        lines,
        unknown_variables,
    })
}

/// Reads a variable for each setting, by the same rules as its flag.
fn from_environment<T: Table>(environment: &Environment) -> Result<(T, Vec<String>), Failure> {
    let command = T::augment_args(Command::new("settings").no_binary_name(true));
    let mut arguments = Vec::new();
    let mut known: Vec<String> = OTHER_VARIABLES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    for argument in command.get_arguments() {
        let (name, flag) = (argument.get_id().as_str(), argument.get_long());
        let variable = variable(name);
        if let (Some(value), Some(flag)) = (environment.get(&variable), flag) {
            let text = format!("--{flag}={value}");
            command
                .clone()
                .try_get_matches_from([&text])
                .map_err(|error| refusal(&variable, value, &error))?;
            arguments.push(text);
        }
        known.push(variable);
    }
    let unknown = environment
        .beginning_with("XAI_")
        .filter(|name| !known.iter().any(|known| known == name))
        .map(str::to_owned)
        .collect();
    let given = command
        .try_get_matches_from(arguments)
        .and_then(|matches| T::from_arg_matches(&matches))
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok((given, unknown))
}

fn refusal(variable: &str, value: &str, error: &clap::Error) -> Failure {
    let reason =
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Failure::usage(format!("{variable}: `{value}`: {reason}"))
}

fn from_file<T: Table>(path: &Path) -> Result<T, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("the settings file {shown} cannot be read: {error}"))
    })?;
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(T::default());
    }
    serde_saphyr::from_str(&text).map_err(|error| refusal_of(shown, &error))
}

/// Why a YAML file cannot be used, with line and column.
pub(crate) fn refusal_of(shown: impl fmt::Display, error: &serde_saphyr::Error) -> Failure {
    let error = error.without_snippet();
    let place = error
        .location()
        .map(|at| format!(" line {}, column {}", at.line(), at.column()))
        .unwrap_or_default();
    let text = error.to_string();
    let reason = text.lines().next().unwrap_or_default();
    let reason = reason
        .strip_suffix(&format!(" at{place}"))
        .unwrap_or(reason);
    Failure::usage(format!("{shown}{place}: {reason}"))
}
