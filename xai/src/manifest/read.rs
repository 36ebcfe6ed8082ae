//! Reads files, and remembers where each object of them stands.
//!
//! Invariant: nothing is taken of files of which one cannot be used.

use std::path::{Path, PathBuf};

use proxyxai_proto::admin::v1::{Manifest, ManifestObject, manifest_object::Kind};

use super::{
    entry::{self, WrongField},
    file::File,
    place::{Place, Places, places},
    source::{expanded, text},
};
use crate::{environment::Environment, failure::Failure, settings::load::refusal_of};

/// A manifest, and where its objects are from.
#[derive(Default)]
pub struct Read {
    /// What the files say.
    pub manifest: Manifest,
    origins: Vec<Origin>,
    settings: Option<Origin>,
}

/// Where an object stands.
struct Origin {
    file: String,
    places: Places,
}

impl Read {
    /// Reads files, all YAML files of folders, and standard input (`-`).
    ///
    /// # Errors
    /// Names the file, line and column of what cannot be used.
    pub fn files(paths: &[PathBuf], environment: &Environment) -> Result<Self, Failure> {
        let mut read = Self::default();
        for path in paths {
            for file in expanded(path)? {
                read.add(&file, environment)?;
            }
        }
        Ok(read)
    }

    fn add(&mut self, path: &Path, environment: &Environment) -> Result<(), Failure> {
        let shown = path.display().to_string();
        let text = text(path)
            .map_err(|error| Failure::usage(format!("the file {shown} cannot be read: {error}")))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        self.text(&shown, folder, &text, environment)
    }

    /// Adds the text of a file; paths in it are relative to `folder`.
    ///
    /// # Errors
    /// Names the line and column of what cannot be used.
    pub fn text(
        &mut self,
        shown: &str,
        folder: &Path,
        text: &str,
        environment: &Environment,
    ) -> Result<(), Failure> {
        let is_empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(is_empty) {
            return Ok(());
        }
        let file: File = serde_saphyr::from_str(text).map_err(|error| refusal_of(shown, &error))?;
        let mut places = places(text);
        if let Some(settings) = &file.settings {
            let places = places
                .remove("settings")
                .and_then(|all| all.into_iter().next());
            let places = places.unwrap_or_default();
            if let Some(first) = &self.settings {
                let what = format!("the settings are in {} too; say them once", first.file);
                return Err(refusal(shown, &places, "", &what));
            }
            let settings = entry::settings(settings)
                .map_err(|(field, what)| refusal(shown, &places, field, &what))?;
            self.manifest.settings = Some(settings);
            self.settings = Some(Origin {
                file: shown.to_owned(),
                places,
            });
        }
        let mut add = |list: &str, objects: Vec<Result<Kind, WrongField>>| {
            let mut places = places.remove(list).unwrap_or_default().into_iter();
            for object in objects {
                let places = places.next().unwrap_or_default();
                let kind = object.map_err(|(field, what)| refusal(shown, &places, field, &what))?;
                self.manifest
                    .objects
                    .push(ManifestObject { kind: Some(kind) });
                self.origins.push(Origin {
                    file: shown.to_owned(),
                    places,
                });
            }
            Ok::<(), Failure>(())
        };
        let context = (folder, environment);
        add(
            "accounts",
            file.accounts.into_iter().map(entry::account).collect(),
        )?;
        add("keys", file.keys.into_iter().map(entry::key).collect())?;
        add(
            "providers",
            file.providers.into_iter().map(entry::provider).collect(),
        )?;
        let keys = file.upstream_keys.into_iter();
        add(
            "upstream_keys",
            keys.map(|it| entry::upstream_key(it, context)).collect(),
        )?;
        add(
            "routes",
            file.routes.into_iter().map(entry::route).collect(),
        )?;
        let tables = file.prices.into_iter();
        add(
            "prices",
            tables.map(|it| entry::price_table(it, folder)).collect(),
        )
    }

    /// A refusal of the control plane that names objects, with the places where they stand; `None` when it names none.
    pub fn located(&self, violations: &[(String, String)]) -> Option<Failure> {
        let sentences: Vec<String> = violations
            .iter()
            .filter_map(|(field, what)| {
                if let (Some(origin), Some(field)) = (&self.settings, in_settings(field)) {
                    return Some(sentence(&origin.file, &origin.places, field, what));
                }
                let rest = field.strip_prefix("objects[")?;
                let (index, field) = rest.split_once(']')?;
                let origin = self.origins.get(index.parse::<usize>().ok()?)?;
                let field = in_files(field.trim_start_matches('.'));
                Some(sentence(&origin.file, &origin.places, field, what))
            })
            .collect();
        (!sentences.is_empty()).then(|| Failure::usage(sentences.join("\n")))
    }
}

/// The name of a setting of the API in files.
pub fn in_settings(field: &str) -> Option<&'static str> {
    match field {
        "max_stale_seconds" => Some("max_stale"),
        "audit_keep_seconds" => Some("audit_keep"),
        _ => None,
    }
}

/// The name of a field of the API in files.
fn in_files(field: &str) -> &str {
    match field {
        "expires_unix_ms" => "expires",
        "provider_id" => "provider",
        "provider_ids" | "next_levels" => "levels",
        "content" => "table",
        other => other,
    }
}

fn refusal(file: &str, places: &Places, field: &str, what: &str) -> Failure {
    Failure::usage(sentence(file, places, field, what))
}

/// `file line 3, column 5: field: what`, at the field where it is given, else at the object.
fn sentence(file: &str, places: &Places, field: &str, what: &str) -> String {
    let given = [
        field.to_owned(),
        format!("{field}_file"),
        format!("{field}_env"),
    ];
    let given = given.iter().find_map(|name| places.fields.get(name));
    let Place { line, column } = given.copied().unwrap_or(places.object);
    let name = if field.is_empty() { "" } else { ": " };
    format!("{file} line {line}, column {column}: {field}{name}{what}")
}
