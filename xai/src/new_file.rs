//! Files that are made once and never replaced, as those with secrets.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
};

/// Writes a file that is not there yet, whole or not at all, for its owner alone.
///
/// # Errors
/// `AlreadyExists` when it is there; else what the disk says.
pub(crate) fn write_new(file: &Path, text: &str) -> io::Result<()> {
    let draft = PathBuf::from(format!("{}.new-{}", file.display(), process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(&draft)?;
    writeln!(out, "{text}")?;
    out.sync_all()?;
    // A link, other than a rename, never replaces what is there.
    let linked = fs::hard_link(&draft, file);
    fs::remove_file(&draft)?;
    linked?;
    sync_folder(file)
}

/// Makes durable which files are in the folder of this one.
///
/// # Errors
/// What the disk says.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
