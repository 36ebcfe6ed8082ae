//! Coarse timeouts for one core: a list that one task looks through every [`TICK`].
//!
//! Invariants: a future that is ready at once costs nothing; an alarm costs one slot in a list and no timer of the runtime; an alarm
//! goes off no earlier than asked for, and at most two ticks later. Time passes only in the runtime's own clock, so it can be
//! paused and simulated.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::Notify;

/// How often alarms are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);
const TICKS_PER_SECOND: u64 = 10;

/// All alarms of a core.
#[derive(Default)]
pub(crate) struct Timers {
    tick: Cell<u64>,
    alarms: RefCell<Alarms>,
    first: Notify,
}

#[derive(Default)]
struct Alarms {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    /// The tick at which it goes off; `u64::MAX` for never.
    due: u64,
    waker: Option<Waker>,
}

/// One alarm. It takes a slot when it is first waited for, and gives it back when dropped.
pub(crate) struct Alarm {
    timers: Rc<Timers>,
    after: Option<Duration>,
    slot: Option<usize>,
}

impl Timers {
    /// Makes time pass; runs for as long as the core does.
    pub(crate) async fn run(self: Rc<Self>) {
        loop {
            if self.is_empty() {
                self.first.notified().await;
            }
            tokio::time::sleep(TICK).await;
            self.tick.set(self.tick.get().saturating_add(1));
            self.wake(|due, now| due <= now);
        }
    }

    /// Wakes every task that has an alarm, so that it looks at what changed for all.
    pub(crate) fn wake_all(&self) {
        self.wake(|_, _| true);
    }

    fn wake(&self, which: impl Fn(u64, u64) -> bool) {
        let now = self.tick.get();
        for slot in &self.alarms.borrow().slots {
            if let Some(waker) = slot.waker.as_ref().filter(|_| which(slot.due, now)) {
                waker.wake_by_ref();
            }
        }
    }

    fn is_empty(&self) -> bool {
        let alarms = self.alarms.borrow();
        alarms.slots.len() == alarms.free.len()
    }

    fn due(&self, after: Option<Duration>) -> u64 {
        after.map_or(u64::MAX, |after| {
            let ticks = after
                .as_secs()
                .saturating_mul(TICKS_PER_SECOND)
                .saturating_add(u64::from(
                    after.subsec_nanos().div_ceil(TICK.subsec_nanos()),
                ));
            self.tick.get().saturating_add(ticks).saturating_add(1)
        })
    }
}

impl Alarm {
    /// An alarm that goes off so long after it is first waited for, or after [`Alarm::set`].
    pub(crate) fn new(timers: &Rc<Timers>, after: Duration) -> Self {
        Self {
            timers: Rc::clone(timers),
            after: Some(after),
            slot: None,
        }
    }

    /// Starts again, with this much time; `None` turns it off.
    pub(crate) fn set(&mut self, after: Option<Duration>) {
        self.after = after;
        if let Some(slot) = self.slot
            && let Some(slot) = self.timers.alarms.borrow_mut().slots.get_mut(slot)
        {
            slot.due = self.timers.due(after);
        }
    }

    /// Ready once it went off.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut alarms = self.timers.alarms.borrow_mut();
        if let Some(slot) = self.slot.and_then(|slot| alarms.slots.get_mut(slot)) {
            if slot.due <= self.timers.tick.get() {
                return Poll::Ready(());
            }
            if !slot.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                slot.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let slot = Slot {
            due: self.timers.due(self.after),
            waker: Some(cx.waker().clone()),
        };
        self.slot = Some(match alarms.free.pop() {
            Some(free) => {
                if let Some(place) = alarms.slots.get_mut(free) {
                    *place = slot;
                }
                free
            }
            None => {
                alarms.slots.push(slot);
                alarms.slots.len().saturating_sub(1)
            }
        });
        if alarms.free.len().saturating_add(1) == alarms.slots.len() {
            self.timers.first.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(index) = self.slot {
            let mut alarms = self.timers.alarms.borrow_mut();
            if let Some(slot) = alarms.slots.get_mut(index) {
                slot.due = u64::MAX;
                slot.waker = None;
                alarms.free.push(index);
            }
        }
    }
}

/// The future's output, or `None` when it took longer than `after`.
pub(crate) async fn within<F: Future>(
    timers: &Rc<Timers>,
    after: Duration,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut alarm = Alarm::new(timers, after);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => alarm.poll(cx).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::{task::LocalSet, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn alarms_go_off_in_time_and_leave_nothing() {
        let timers = Rc::new(Timers::default());
        let run = async {
            assert_eq!(within(&timers, Duration::ZERO, ready(7)).await, Some(7));
            assert!(
                timers.alarms.borrow().slots.is_empty(),
                "ready at once costs nothing"
            );
            for millis in [0, 1, 250, 10_000] {
                let (start, after) = (Instant::now(), Duration::from_millis(millis));
                assert_eq!(within(&timers, after, pending::<()>()).await, None);
                let took = start.elapsed();
                assert!(
                    took >= after && took <= after + 2 * TICK,
                    "{took:?} for {after:?}"
                );
            }
            assert!(timers.is_empty());
        };
        let local = LocalSet::new();
        local.spawn_local(Rc::clone(&timers).run());
        local.run_until(run).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_starts_again_and_is_turned_off() {
        let timers = Rc::new(Timers::default());
        let local = LocalSet::new();
        local.spawn_local(Rc::clone(&timers).run());
        let run = async {
            let start = Instant::now();
            let mut alarm = Alarm::new(&timers, Duration::from_secs(1));
            let mut rounds = 0;
            poll_fn(|cx| {
                while alarm.poll(cx).is_ready() {
                    rounds += 1;
                    if rounds == 3 {
                        return Poll::Ready(());
                    }
                    alarm.set(Some(Duration::from_secs(1)));
                }
                Poll::Pending
            })
            .await;
            assert!(start.elapsed() >= Duration::from_secs(3));
            alarm.set(None);
            let off = within(
                &timers,
                Duration::from_secs(60),
                poll_fn(|cx| alarm.poll(cx)),
            );
            assert_eq!(off.await, None);
        };
        local.run_until(run).await;
    }
}
