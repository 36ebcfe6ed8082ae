//! The `xai-data-plane` command.

use std::process::ExitCode;

/// Decision 0301: as that of `xai`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    xai::data_plane::main()
}
