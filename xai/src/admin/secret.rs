//! How a secret is handed to a command: from a file, from standard input, or, seen by all who list processes, as a flag.

use std::{fs, io::Read as _, path::PathBuf};

use crate::failure::Failure;

/// Longest secret that is read.
const MAX: u64 = 64 << 10;

/// Options that give a secret.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct Secret {
    /// The secret itself; other users of the machine can see it in the list of processes.
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// File that holds the secret; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl Secret {
    /// The secret, if one was given.
    pub fn read(&self) -> Result<Option<String>, Failure> {
        if let Some(secret) = &self.secret {
            return Ok(Some(secret.trim().to_owned()));
        }
        let Some(file) = &self.secret_file else {
            return Ok(None);
        };
        let mut text = String::new();
        let read = if file.as_os_str() == "-" {
            std::io::stdin().lock().take(MAX).read_to_string(&mut text)
        } else {
            fs::File::open(file).and_then(|open| open.take(MAX).read_to_string(&mut text))
        };
        read.map_err(|error| {
            Failure::usage(format!(
                "the secret cannot be read from {}: {error}",
                file.display()
            ))
        })?;
        Ok(Some(text.trim().to_owned()))
    }

    /// The secret; without one nothing can be done.
    pub fn required(&self) -> Result<String, Failure> {
        self.read()?
            .filter(|secret| !secret.is_empty())
            .ok_or_else(|| {
                Failure::usage(
                    "give the secret with --secret-file FILE, or `--secret-file -` to paste it",
                )
            })
    }
}
