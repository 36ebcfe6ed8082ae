//! The `xai-control-plane` command.

use std::process::ExitCode;

/// Decision 0301: as that of `xai`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    xai::control_plane::main()
}
