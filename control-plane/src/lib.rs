//! The side of ProxyXAI that owns state: the store, the admin API, the publisher of configuration, the books of usage.

pub mod admin;
pub mod app;
mod auth;
mod books;
mod bootstrap;
mod config_service;
mod config_store;
pub mod keyring;
mod publish;
mod rollup;
mod status;
pub mod store;
pub mod tick;
pub mod transfer;
mod usage_query;
mod usage_service;
