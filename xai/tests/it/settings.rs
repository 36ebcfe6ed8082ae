//! Settings: the documentation names each of them, the examples load, and refusals say where the mistake is.

use std::fs;

use clap::Command;
use xai::{
    Environment, Failure,
    settings::{self, Given, Source, Table, control_plane, data_plane, load::Loaded, variable},
};

use crate::structure::root;

#[test]
fn the_documentation_names_every_setting_as_the_code_does() {
    let text = fs::read_to_string(root().join("docs/settings.md")).unwrap();
    let (whole, rest) = text.split_once("### Control plane").unwrap();
    let (control_plane, data_plane) = rest.split_once("### Data plane").unwrap();
    documents::<Given>(whole, "all-settings.yaml");
    documents::<control_plane::Given>(control_plane, "control-plane.yaml");
    documents::<data_plane::Given>(data_plane, "data-plane.yaml");
}

/// A part of the documentation names all settings of a table, with the defaults that an example has.
fn documents<T: Table>(text: &str, example: &str) {
    let documented: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `") && line.matches('|').count() == 6)
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let table = T::augment_args(Command::new("settings"));
    let in_code: Vec<Vec<String>> = table
        .get_arguments()
        .map(|argument| {
            let name = argument.get_id().as_str();
            let flag = argument.get_long().unwrap_or_default();
            vec![
                format!("`{name}`"),
                format!("`--{flag}`"),
                format!("`{}`", variable(name)),
                argument.get_help().unwrap().to_string(),
            ]
        })
        .collect();
    let without_defaults: Vec<Vec<&str>> = documented
        .iter()
        .map(|row| vec![row[0], row[1], row[2], row[4]])
        .collect();
    assert_eq!(without_defaults, in_code);
    let loaded = load_as::<T>(example, &[]).unwrap();
    for (row, line) in documented.iter().zip(&loaded.lines) {
        if !["data", "cores"].contains(&line.name) {
            assert_eq!(row[3], format!("`{}`", line.value), "{}", line.name);
        }
        assert_eq!(line.source, Source::File, "{} is in the example", line.name);
    }
    let defaults = settings::load(T::default(), None, &environment(&[])).unwrap();
    for (given, default) in loaded.lines.iter().zip(&defaults.lines) {
        if !["data", "cores"].contains(&given.name) {
            assert_eq!(given.value, default.value, "{}", given.name);
        }
    }
}

#[test]
fn the_examples_load() {
    let mut examples = 0;
    for file in fs::read_dir(root().join("deploy/examples")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        match name.as_str() {
            "control-plane.yaml" => drop(load_as::<control_plane::Given>(&name, &[]).unwrap()),
            "data-plane.yaml" => drop(load_as::<data_plane::Given>(&name, &[]).unwrap()),
            _ if !name.ends_with(".yaml") => continue,
            _ => drop(load(&name, &[]).unwrap()),
        }
        examples += 1;
    }
    assert!(examples >= 5);
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = written("listen: 127.0.0.1:1\ngrpc: 127.0.0.1:2\nops: 127.0.0.1:3\n");
    let environment = Environment::from([
        ("XAI_LISTEN", "127.0.0.1:11"),
        ("XAI_GRPC", "127.0.0.1:12"),
        ("XAI_OPS", ""),
        ("XAI_LISTNE", "x"),
    ]);
    let flags = Given {
        listen: Some("127.0.0.1:21".parse().unwrap()),
        ..Given::default()
    };
    let loaded = settings::load(flags, Some(file.path()), &environment).unwrap();
    let found: Vec<(&str, &str, Source)> = loaded
        .lines
        .iter()
        .map(|line| (line.name, line.value.as_str(), line.source))
        .collect();
    assert_eq!(
        found[1..4],
        [
            ("listen", "127.0.0.1:21", Source::Flag),
            ("grpc", "127.0.0.1:12", Source::Environment),
            ("ops", "127.0.0.1:3", Source::File)
        ]
    );
    assert!(found.contains(&("drain", "30s", Source::Default)));
    assert_eq!(loaded.unknown_variables, ["XAI_LISTNE"]);
}

#[test]
fn refusals_say_where_the_mistake_is() {
    let check = |yaml: &str, variables: &[(&str, &str)], said: &str| {
        let file = written(yaml);
        let environment = environment(variables);
        let refusal = settings::load(Given::default(), Some(file.path()), &environment)
            .map(|_| ())
            .unwrap_err();
        let refusal = refusal.to_string();
        assert!(refusal.contains(said), "{refusal}\nlacks: {said}");
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    };
    check(
        "# a comment\nlisten: 127.0.0.1:0\ncors: 2\n",
        &[],
        "line 3, column 1: unknown field `cors`",
    );
    check(
        "listen: 127.0.0.1:0\ncores: two\n",
        &[],
        "line 2, column 8: `two`",
    );
    check(
        "drain: 5 days\n",
        &[],
        "line 1, column 8: `5 days`: a time is",
    );
    check("cores: 1\ncores: 2\n", &[], "line 2, column 1");
    check("cores: [1\n", &[], "line ");
    check(
        "",
        &[("XAI_LISTEN", "everywhere")],
        "XAI_LISTEN: `everywhere`",
    );
    check("", &[("XAI_CORES", "0")], "at least 1");
    check(
        "grpc: 127.0.0.1:3443\n",
        &[],
        "`listen` and `grpc` are both 127.0.0.1:3443",
    );
}

fn load(example: &str, variables: &[(&str, &str)]) -> Result<Loaded, Failure> {
    load_as::<Given>(example, variables)
}

fn load_as<T: Table>(
    example: &str,
    variables: &[(&str, &str)],
) -> Result<Loaded<T::Settings>, Failure> {
    let path = root().join("deploy/examples").join(example);
    settings::load(T::default(), Some(&path), &environment(variables))
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().copied().collect()
}

fn written(yaml: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), yaml).unwrap();
    file
}
