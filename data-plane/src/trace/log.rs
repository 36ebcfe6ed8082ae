//! The request log: one line for each request, written by one task, a bundle at a time.
//!
//! Invariant: a core never waits for it. When writing is too slow, lines are dropped and counted; when it fails, that is said now and then.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{line, sink::Sink};

/// Between two looks at what has gathered.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines that are written at once.
const BUNDLE: usize = 1_024;
/// Between two complaints.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Where lines go.
type Out = Box<dyn Write + Send>;

/// Writes the request log.
pub(crate) struct RequestLog {
    pub(crate) sink: Arc<Sink>,
    pub(crate) out: Out,
}

/// What became of lines so far.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    pub(crate) written: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl RequestLog {
    /// Writes until `done`, and then what is left.
    pub(crate) async fn run(self, done: CancellationToken) {
        let Self { sink, mut out } = self;
        let counters = &sink.log;
        let mut complained: Option<Instant> = None;
        loop {
            let last = done.is_cancelled();
            let requests = sink.lines(BUNDLE);
            if requests.is_empty() {
                if last {
                    return;
                }
                tokio::select! {
                    biased;
                    () = done.cancelled() => {}
                    () = sleep(PAUSE) => {}
                }
                continue;
            }
            let count = u64::try_from(requests.len()).unwrap_or(u64::MAX);
            let traced = sink.traces();
            let wrote = tokio::task::spawn_blocking(move || {
                let mut text = Vec::new();
                for steps in &requests {
                    line::write(&mut text, steps, traced);
                }
                let wrote = out.write_all(&text).and_then(|()| out.flush());
                (out, wrote)
            });
            let wrote = match wrote.await {
                Ok((back, wrote)) => {
                    out = back;
                    wrote
                }
                Err(_) => return,
            };
            match wrote {
                Ok(()) => counters.written.fetch_add(count, Ordering::Relaxed),
                Err(error) => {
                    complain(&mut complained, &error);
                    counters.failed.fetch_add(count, Ordering::Relaxed)
                }
            };
        }
    }
}

fn complain(last: &mut Option<Instant>, error: &io::Error) {
    if last.is_none_or(|last| last.elapsed() >= COMPLAINT) {
        *last = Some(Instant::now());
        tracing::warn!(
            %error,
            "the request log cannot be written, so its lines are lost; free its disk or correct `request_log`"
        );
    }
}
