//! The side of ProxyXAI that owns state: the store, the admin API, the publisher of configuration, the books of usage.

pub mod admin;
pub mod app;
mod auth;
mod books;
mod bootstrap;
mod config_service;
mod config_store;
mod publish;
mod rollup;
mod status;
pub mod store;
mod usage_query;
mod usage_service;
