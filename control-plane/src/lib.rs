//! The side of ProxyXAI that owns state: the store, the admin API, the publisher of configuration, the books of usage.

pub mod store;
