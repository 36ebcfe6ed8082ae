//! An error and what caused it, as one line of a log or an answer.

use std::error::Error;

/// The error, its cause, the cause of that, and so on.
pub(crate) fn in_one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
