//! The `xai` command: one gateway in one process, the gRPC admin client, and the simulated providers.

pub mod admin;
mod archive_file;
pub mod cli;
pub mod data;
pub mod environment;
pub mod failure;
mod keys;
pub mod logs;
pub mod manifest;
pub mod output;
pub mod settings;
mod store;
pub mod system;
pub mod up;

pub use cli::run;
pub use environment::Environment;
pub use failure::{Exit, Failure};
