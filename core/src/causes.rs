//! An error and what caused it, as one line of a log or an answer.

use std::error::Error;

/// The error, its cause, the cause of that, and so on.
pub fn in_one_line(error: &dyn Error) -> String {
    with_causes(error.to_string(), error.source())
}

/// What is said of an error, and its causes, those left out that were said already.
pub fn with_causes(said: String, cause: Option<&(dyn Error + 'static)>) -> String {
    let mut text = said;
    for cause in std::iter::successors(cause, |cause| (**cause).source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Failed {
        said: &'static str,
        source: Option<Box<Failed>>,
    }

    #[test]
    fn causes_follow_one_another_and_nothing_is_said_twice() {
        let check = |said: &[&'static str], want: &str| {
            let chain = |source, said: &&'static str| Some(Box::new(Failed { said, source }));
            let error = said.iter().rev().fold(None, chain).unwrap();
            assert_eq!(in_one_line(&*error), want);
        };
        check(&["a"], "a");
        check(
            &["no route", "connect", "refused"],
            "no route: connect: refused",
        );
        check(
            &["connect: refused", "connect", "refused", "by x"],
            "connect: refused: by x",
        );
    }
}
