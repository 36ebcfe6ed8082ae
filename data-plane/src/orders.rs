//! What the control plane wants of this node beside its configuration, and what the node says of itself in return.
//!
//! Invariants: what is not said changes nothing, so a node that lost its control plane goes on as it was told; a level of the log that was
//! wanted for a while ends by the node's own clock, also when nothing is heard any more.

mod log;

use std::{sync::Arc, time::Duration};

use proxyxai_core::{
    exposition::{Kind, Page},
    order::{LogLevel, Schedule},
};
use proxyxai_proto::config::v1::{Order, Vitals};
use tokio::{sync::watch, time::Instant};

use log::Wish;

/// What the node has in hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests whose answers are not over.
    pub(crate) open_requests: u64,
    /// Usage events of this start that are not durable at the control plane.
    pub(crate) unreported_events: u64,
    /// Earlier starts of which that is not known of all events.
    pub(crate) unreported_starts: u64,
}

/// What is wanted of the node. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Orders(Arc<Inner>);

struct Inner {
    schedule: watch::Sender<Schedule>,
    log: watch::Sender<Wish>,
    load: Box<dyn Fn() -> Load + Send + Sync>,
}

impl Orders {
    /// Nothing was wanted so far. `load` says what the node has in hand.
    pub(crate) fn new(load: impl Fn() -> Load + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            schedule: watch::Sender::new(Schedule::Serve),
            log: watch::Sender::new(Wish::default()),
            load: Box::new(load),
        }))
    }

    /// Does from now on what the control plane says.
    pub(crate) fn obey(&self, order: &Order) {
        if let Some(schedule) = Schedule::from_proto(order.schedule()) {
            self.set_schedule(schedule, "the control plane wants it");
        }
        let for_ms = Some(order.log_level_for_ms).filter(|ms| *ms != 0);
        let wish = Wish {
            level: LogLevel::from_proto(order.log_level()),
            until: for_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))),
        };
        self.0.log.send_if_modified(|held| {
            let differs = *held != wish;
            *held = wish;
            differs
        });
    }

    /// Goes on as an earlier process was told.
    pub(crate) fn restore(&self, schedule: Schedule) {
        self.set_schedule(schedule, "it was so before the start");
    }

    fn set_schedule(&self, schedule: Schedule, why: &str) {
        let changed = self.0.schedule.send_if_modified(|held| {
            let differs = *held != schedule;
            *held = schedule;
            differs
        });
        if changed {
            tracing::info!(schedule = schedule.as_str(), why, "node schedule");
        }
    }

    /// Whether the node takes part.
    pub(crate) fn schedule(&self) -> Schedule {
        *self.0.schedule.borrow()
    }

    /// The same, as it changes.
    pub(crate) fn schedules(&self) -> watch::Receiver<Schedule> {
        self.0.schedule.subscribe()
    }

    /// What the node says of itself.
    pub(crate) fn vitals(&self) -> Vitals {
        let load = self.load();
        let level = self.0.log.borrow().level_at(Instant::now());
        Vitals {
            schedule: self.schedule().to_proto().into(),
            open_requests: load.open_requests,
            unreported_events: load.unreported_events,
            unreported_starts: load.unreported_starts,
            log_level: LogLevel::to_proto(level).into(),
        }
    }

    /// What the node has in hand.
    pub(crate) fn load(&self) -> Load {
        (self.0.load)()
    }

    /// Adds what is wanted to the node's metrics.
    pub(crate) fn metrics(&self, page: &mut Page<'_>) {
        let name = "xai_node_schedule";
        page.family(name, Kind::Gauge, "1 for what is wanted of the node.");
        for schedule in [Schedule::Serve, Schedule::Cordon, Schedule::Drain] {
            let labels = [("schedule", schedule.as_str())];
            page.sample(name, &labels, schedule == self.schedule());
        }
    }
}

#[cfg(test)]
mod tests {
    use proxyxai_proto::config::v1 as proto;

    use super::*;

    #[test]
    fn what_is_not_known_changes_nothing() {
        let orders = Orders::new(Load::default);
        let schedule = |schedule: i32| Order {
            schedule,
            ..Order::default()
        };
        orders.obey(&schedule(proto::Schedule::Drain.into()));
        for unknown in [0, 99] {
            orders.obey(&schedule(unknown));
            assert_eq!(orders.schedule(), Schedule::Drain);
        }
        orders.obey(&schedule(proto::Schedule::Serve.into()));
        assert_eq!(orders.schedule(), Schedule::Serve);
    }
}
