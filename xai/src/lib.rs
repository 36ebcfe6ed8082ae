//! The `xai` command: one gateway in one process, the gRPC admin client, and the simulated providers.

pub mod admin;
mod archive_file;
pub mod cli;
mod client_tls;
mod control;
pub mod control_plane;
pub mod data;
pub mod data_plane;
pub mod environment;
pub mod failure;
mod first_key;
mod given_authority;
mod health;
mod join_token_file;
mod keys;
pub mod logs;
pub mod manifest;
mod new_file;
mod node;
mod ops;
pub mod output;
mod process;
mod request_log;
mod role;
pub mod settings;
mod store;
pub mod system;
mod traces;
pub mod up;

pub use cli::run;
pub use environment::Environment;
pub use failure::{Exit, Failure};
