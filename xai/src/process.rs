//! What every program of ours does as a process: one runtime, an orderly end.

use tokio::signal;

use crate::failure::Failure;

/// Runs what a program does on the runtime of its main thread.
pub(crate) fn run<T>(life: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|error| Failure::failed(format!("the system gives no runtime: {error}")))?;
    runtime.block_on(life)
}

/// Waits to be told to stop, and says so; being told a second time ends the process at once.
pub(crate) async fn told_to_stop() {
    stop_signal().await;
    say("Draining: requests in flight may end; press Ctrl-C again to stop at once.");
    let _ends_with_the_process = tokio::spawn(async {
        stop_signal().await;
        std::process::exit(130);
    });
}

/// Ctrl-C, or what service managers send.
pub(crate) async fn stop_signal() {
    #[cfg(unix)]
    {
        use signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                biased;
                _ = signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _without_signals_nothing_stops_it = signal::ctrl_c().await;
}

/// One line for the person at the terminal.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _nobody_may_read_it = writeln!(out, "{text}").and_then(|()| out.flush());
}
