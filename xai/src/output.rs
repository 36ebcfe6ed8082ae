//! What commands print: tables for people, JSON for programs. Both come from the same values, so that neither knows more.

pub mod cell;
pub mod people;
pub mod view;

use std::io::{self, Write as _};

use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// For whom it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Tables and sentences.
    #[default]
    Table,
    /// JSON with stable field names.
    Json,
}

/// A kind of object, as it is printed.
#[derive(Debug)]
pub struct Kind<'a> {
    /// Field of a JSON answer that holds one.
    pub one: &'static str,
    /// Field of a JSON answer that holds several.
    pub many: &'static str,
    /// Columns of a table: title, and where in the object the value stands.
    pub columns: &'a [(&'static str, &'static str)],
}

impl Output {
    /// Prints several objects.
    ///
    /// # Errors
    /// When nobody can read it.
    pub fn many(self, kind: &Kind<'_>, items: Vec<Value>) -> Result<(), Failure> {
        match self {
            Self::Json => print_json(&json!({ kind.many: items })),
            Self::Table if items.is_empty() => {
                print(&format!("There are no {}.\n", kind.many.replace('_', " ")))
            }
            Self::Table => {
                let mut table = new_table();
                table.set_header(kind.columns.iter().map(|(title, _)| *title));
                for item in &items {
                    table.add_row(
                        kind.columns
                            .iter()
                            .map(|(_, place)| cell::text(item, place)),
                    );
                }
                print_table(&table)
            }
        }
    }

    /// Prints one object, and what comes with it.
    ///
    /// # Errors
    /// When nobody can read it.
    pub fn one(self, kind: &Kind<'_>, item: Value, with: &[(&str, &str)]) -> Result<(), Failure> {
        match self {
            Self::Json => {
                let mut answer = Map::new();
                answer.insert(kind.one.to_owned(), item);
                for (name, value) in with {
                    answer.insert((*name).to_owned(), json!(value));
                }
                print_json(&Value::Object(answer))
            }
            Self::Table => {
                let mut table = new_table();
                for (title, place) in kind.columns {
                    table.add_row([(*title).to_owned(), cell::text(&item, place)]);
                }
                for (name, value) in with {
                    table.add_row([name.to_uppercase(), (*value).to_owned()]);
                }
                print_table(&table)
            }
        }
    }

    /// Says that it was done.
    ///
    /// # Errors
    /// When nobody can read it.
    pub fn done(self, sentence: &str) -> Result<(), Failure> {
        match self {
            Self::Json => print_json(&json!({})),
            Self::Table => print(&format!("{sentence}\n")),
        }
    }

    /// Prints an object as programs read it.
    ///
    /// # Errors
    /// When nobody can read it.
    pub fn fields(self, object: &Value) -> Result<(), Failure> {
        print_json(object)
    }

    /// Prints one word, or an object that holds it.
    ///
    /// # Errors
    /// When nobody can read it.
    pub fn word(self, name: &str, word: &str) -> Result<(), Failure> {
        match self {
            Self::Json => print_json(&json!({ name: word })),
            Self::Table => print(&format!("{word}\n")),
        }
    }
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn print_table(table: &Table) -> Result<(), Failure> {
    let lines: Vec<String> = table
        .lines()
        .map(|line| {
            line.strip_prefix(' ')
                .unwrap_or(&line)
                .trim_end()
                .to_owned()
        })
        .collect();
    print(&format!("{}\n", lines.join("\n")))
}

fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Writes to standard output.
///
/// # Errors
/// When nobody can read it.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!(
            "the answer cannot be written to standard output: {error}"
        ))),
        Ok(()) | Err(_) => Ok(()),
    }
}
