//! Why a command did not do what it was asked for: one sentence for a person, one exit code for a program.

use std::fmt;

/// What the exit code tells a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was refused, or failed.
    Failed,
    /// The command line, the settings or the environment cannot be used.
    Usage,
    /// The control plane cannot be reached, or did not accept the credential.
    Unreachable,
    /// What was named does not exist.
    NotFound,
}

impl Exit {
    /// The number; `docs/cli.md` lists them.
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NotFound => 4,
        }
    }
}

/// A failure of a command.
#[derive(Debug)]
pub struct Failure {
    /// For programs.
    pub exit: Exit,
    sentence: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self {
            exit,
            sentence: sentence.into(),
        }
    }

    /// It was refused, or failed.
    pub fn failed(sentence: impl Into<String>) -> Self {
        Self::new(Exit::Failed, sentence)
    }

    /// What was given cannot be used.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::new(Exit::Usage, sentence)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Failure {}
