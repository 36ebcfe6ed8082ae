//! The manual of the command line: what stands in `docs/cli.md` below its mark is what the program says of itself.

use std::{env, fmt::Write as _, fs};

use clap::{Arg, Args as _, Command};
use xai::settings::Given;

use crate::structure::root;

/// From here on the manual is written by the program.
const MARK: &str = "<!-- What follows is written by `make manual`. -->\n";
/// Set to write the manual instead of checking it.
const WRITE: &str = "XAI_WRITE_MANUAL";

#[test]
fn the_manual_says_what_the_program_says() {
    let file = root().join("docs/cli.md");
    let found = fs::read_to_string(&file).unwrap();
    let (by_hand, _) = found.split_once(MARK).unwrap();
    let mut expected = format!("{by_hand}{MARK}");
    let mut program = xai::cli::command();
    program.build();
    for command in program.get_subcommands().filter(|c| c.get_name() != "help") {
        describe(command, &mut expected);
    }
    if env::var_os(WRITE).is_some() {
        fs::write(&file, &expected).unwrap();
        return;
    }
    assert!(
        found == expected,
        "docs/cli.md is not what the program says; run `make manual`"
    );
}

fn describe(command: &Command, out: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let level = "#".repeat(name.split(' ').count());
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    writeln!(out, "\n{level} `{name}`\n\n{about}.").unwrap();
    let verbs = command.get_subcommands().filter(|c| c.get_name() != "help");
    if command.has_subcommands() {
        verbs.for_each(|verb| describe(verb, out));
        return;
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    writeln!(out, "\n```\n{usage}\n```").unwrap();
    let own: Vec<&Arg> = command.get_arguments().filter(|a| is_own(a)).collect();
    let (settings, own): (Vec<&Arg>, _) = own.into_iter().partition(|a| is_setting(a));
    if !settings.is_empty() {
        writeln!(out, "\nTakes every [setting](settings.md) as a flag, and:").unwrap();
    }
    if own.is_empty() {
        return;
    }
    writeln!(out, "\n| argument | what it is |\n| --- | --- |").unwrap();
    for argument in own {
        writeln!(out, "| `{}` | {} |", spelling(argument), meaning(argument)).unwrap();
    }
}

/// Whether it is of this command, and not of all (the connection, help).
fn is_own(argument: &Arg) -> bool {
    !argument.is_hide_set()
        && argument.get_help_heading() != Some("Connection")
        && !["help", "version"].contains(&argument.get_id().as_str())
}

/// Whether `docs/settings.md` describes it.
fn is_setting(argument: &Arg) -> bool {
    let settings = Given::augment_args(Command::new("settings"));
    settings
        .get_arguments()
        .any(|s| s.get_id() == argument.get_id())
}

fn spelling(argument: &Arg) -> String {
    let value = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values())
        .map(|names| {
            names
                .iter()
                .map(|name| format!("<{name}>"))
                .collect::<String>()
        });
    match (argument.get_long(), value) {
        (Some(long), Some(value)) => format!("--{long} {value}"),
        (Some(long), None) => format!("--{long}"),
        (None, value) => value.unwrap_or_default(),
    }
}

fn meaning(argument: &Arg) -> String {
    let mut text = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|_| argument.get_action().takes_values())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() {
        write!(text, ": {}", values.join(", ")).unwrap();
    }
    let default: Vec<_> = argument
        .get_default_values()
        .iter()
        .filter(|_| argument.get_action().takes_values())
        .filter_map(|value| value.to_str())
        .filter(|value| !value.is_empty())
        .collect();
    if !default.is_empty() {
        write!(text, " (default `{}`)", default.join(",")).unwrap();
    }
    text.replace('|', "\\|")
}
