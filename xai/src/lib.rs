//! The `xai` command: one gateway in one process, the gRPC admin client, and the simulated providers.

pub mod admin;
pub mod cli;
pub mod data;
pub mod environment;
pub mod failure;
pub mod manifest;
pub mod output;
pub mod settings;
pub mod system;
pub mod up;

pub use cli::run;
pub use environment::Environment;
pub use failure::{Exit, Failure};
