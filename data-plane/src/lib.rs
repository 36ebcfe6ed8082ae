//! The node of ProxyXAI: what a request goes through, the configuration it is served from, and the report of what it used.

pub mod config;
pub mod keys;
pub mod report;
