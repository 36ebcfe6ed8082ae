//! Where files are: named one by one, in a folder, on standard input.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// Largest file.
const MAX_BYTES: u64 = 64 << 20;

/// The files behind a path: itself, or the YAML files of the folder in the order of their names.
pub(super) fn expanded(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failure = |error: std::io::Error| {
        Failure::usage(format!(
            "the folder {} cannot be read: {error}",
            path.display()
        ))
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failure)? {
        let file = entry.map_err(failure)?.path();
        if file
            .extension()
            .is_some_and(|it| it == "yaml" || it == "yml")
            && file.is_file()
        {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        let shown = path.display();
        return Err(Failure::usage(format!(
            "there are no YAML files in {shown}"
        )));
    }
    Ok(files)
}

/// What a file says; `-` is standard input.
pub(super) fn text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(MAX_BYTES)
            .read_to_string(&mut text)?;
    } else {
        fs::File::open(path)?
            .take(MAX_BYTES)
            .read_to_string(&mut text)?;
    }
    Ok(text)
}
