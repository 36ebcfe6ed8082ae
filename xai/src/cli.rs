//! The command line: what can be asked for, and who does it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    admin::{self, Noun},
    environment::Environment,
    failure::Failure,
    health, output,
    settings::{self, Given, Settings},
    store, up,
};

/// One address and one virtual key for every AI provider, with a subaccount tree that knows what each request cost.
#[derive(Debug, Parser)]
#[command(name = "xai", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway: control plane and node in one process.
    Up(UpArgs),
    /// Run the simulated providers alone.
    Sim {
        /// Port; 0 takes any that is free.
        #[arg(long, default_value_t = 9001)]
        port: u16,
        /// Address to listen on, such as 0.0.0.0 in a container.
        #[arg(long, default_value_t = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))]
        address: std::net::IpAddr,
        /// File to write the address to, for programs.
        #[arg(long, value_name = "FILE")]
        addresses_file: Option<PathBuf>,
    },
    /// Check the settings and print those in effect.
    Check(CheckArgs),
    /// Move the store of a gateway that does not run.
    #[command(subcommand)]
    Store(store::Verb),
    /// Ask a process whether it is ready, as health checks do; exit code 0 when it is.
    Health {
        /// Address, path included.
        #[arg(value_name = "URL", default_value = "http://127.0.0.1:3445/ready")]
        url: String,
    },
    #[command(flatten)]
    Noun(Noun),
    /// Print a completion script for a shell.
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Debug, clap::Args)]
struct UpArgs {
    /// With two simulated providers, so that no real key is needed.
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    settings: CheckArgs,
}

/// Settings of a gateway on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// YAML file with settings [env: XAI_CONFIG].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
}

/// Does what the arguments of this process ask for.
///
/// # Errors
/// Says in one sentence why it could not be done.
pub fn run() -> Result<(), Failure> {
    let environment = Environment::of_process();
    match Cli::parse().command {
        Command::Up(arguments) => up(arguments, &environment),
        Command::Sim {
            port,
            address,
            addresses_file,
        } => up::sim((address, port).into(), addresses_file),
        Command::Check(arguments) => check(arguments, &environment),
        Command::Store(verb) => store::run(verb, &environment),
        Command::Health { url } => output::print(&format!("{}\n", health::ask(&url)?)),
        Command::Noun(noun) => admin::run(noun, &environment),
        Command::Completion { shell } => completion(shell),
    }
}

/// The whole command line, as documentation and completion see it.
pub fn command() -> clap::Command {
    Cli::command()
}

impl CheckArgs {
    /// The settings in effect.
    pub(crate) fn load(self, environment: &Environment) -> Result<Settings, Failure> {
        Ok(settings::load(self.given, self.config.as_deref(), environment)?.settings)
    }
}

fn up(arguments: UpArgs, environment: &Environment) -> Result<(), Failure> {
    let UpArgs { demo, settings } = arguments;
    let loaded = settings::load(settings.given, settings.config.as_deref(), environment)?;
    for name in &loaded.unknown_variables {
        output::print(&format!("warning: {name} is no setting of xai\n"))?;
    }
    up::run(loaded.settings, loaded.lines, demo, environment)
}

fn check(arguments: CheckArgs, environment: &Environment) -> Result<(), Failure> {
    let loaded = settings::load(arguments.given, arguments.config.as_deref(), environment)?;
    let mut text = String::new();
    for name in &loaded.unknown_variables {
        text.push_str(&format!("warning: {name} is no setting of xai\n"));
    }
    for line in &loaded.lines {
        text.push_str(&line.to_string());
        text.push('\n');
    }
    output::print(&text)
}

fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "xai", &mut script);
    io::stdout()
        .write_all(&script)
        .map_err(|error| Failure::failed(format!("the script cannot be written: {error}")))
}
