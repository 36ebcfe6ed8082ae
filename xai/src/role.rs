//! The command lines of the planes that run alone, `xai-control-plane` and `xai-data-plane`: the same settings machinery as `xai up`.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, FromArgMatches as _, Parser};

use crate::{
    environment::Environment,
    failure::Failure,
    output,
    settings::{
        self,
        load::{Loaded, Table},
    },
};

#[derive(Debug, Parser)]
#[command(version)]
struct Arguments<T: Table> {
    /// YAML file with settings [env: XAI_CONFIG].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the settings, print those in effect, and end.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    given: T,
}

/// A program that is one plane.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
}

impl Program {
    /// Reads the arguments of this process, and does what they say.
    pub(crate) fn main<T: Table>(
        &self,
        run: impl FnOnce(Loaded<T::Settings>, &Environment) -> Result<(), Failure>,
    ) -> ExitCode {
        match self.start::<T>(run) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                let _nobody_may_read_it = writeln!(std::io::stderr(), "{}: {failure}", self.name);
                ExitCode::from(failure.exit.code())
            }
        }
    }

    fn start<T: Table>(
        &self,
        run: impl FnOnce(Loaded<T::Settings>, &Environment) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let command = Arguments::<T>::command().name(self.name).about(self.about);
        let arguments = Arguments::<T>::from_arg_matches(&command.get_matches())
            .map_err(|error| Failure::usage(error.to_string()))?;
        let environment = Environment::of_process();
        let loaded = settings::load(arguments.given, arguments.config.as_deref(), &environment)?;
        let name = self.name;
        for variable in &loaded.unknown_variables {
            output::print(&format!("warning: {variable} is no setting of {name}\n"))?;
        }
        for line in &loaded.lines {
            output::print(&format!("{line}\n"))?;
        }
        if arguments.check {
            return Ok(());
        }
        run(loaded, &environment)
    }
}
