//! The `xai` command: reads its arguments, does what they say, and says in one sentence why when it cannot.

use std::{io::Write as _, process::ExitCode};

/// Decision 0301: a fifth of the instructions of a request were the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match xai::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _nobody_may_read_it = writeln!(std::io::stderr(), "xai: {failure}");
            ExitCode::from(failure.exit.code())
        }
    }
}
