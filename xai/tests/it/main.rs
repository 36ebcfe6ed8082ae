//! Whole-system tests: real processes, whole gateways, and the shape of the tree.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on should stop where it stands"
)]

mod answers;
mod apart;
mod bare;
mod bill;
mod cascade;
mod chaos;
mod collector;
mod commands;
mod dashboards;
mod doctor;
mod environment;
mod etcd;
mod events;
mod fleet;
mod full_disk;
mod given;
mod jaeger;
mod joining;
mod lifecycle;
mod machines;
mod manifests;
mod manual;
mod metrics;
mod operating;
mod people;
mod process;
mod refusals;
mod restore;
mod set_aside;
mod settings;
#[cfg(feature = "etcd")]
mod staged;
mod structure;
mod top;
mod traces;
mod turmoil;
