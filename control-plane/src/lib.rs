//! The side of ProxyXAI that owns state: the store, the admin API, the publisher of configuration, the books of usage.

pub mod admin;
mod admission;
pub mod app;
mod audit;
mod auth;
pub mod authority;
mod books;
mod bootstrap;
mod config_service;
mod config_store;
mod join;
pub mod keyring;
mod node_service;
mod nodes;
mod publish;
mod rollup;
mod roster;
mod status;
pub mod store;
mod stream;
pub mod tick;
pub mod tls;
pub mod transfer;
mod usage_query;
mod usage_service;
