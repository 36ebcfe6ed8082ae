//! What every program of ours does as a process: one runtime, one log, an orderly end.

use tokio::signal;

use crate::{
    failure::Failure,
    settings::value::{LogFilter, LogFormat},
};

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

/// Starts the log of this process.
pub(crate) fn start_log(log: &LogFilter, format: LogFormat) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(log.directives())
        .map_err(|error| Failure::usage(format!("the setting `log` is not understood: {error}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // A second gateway in one process, as tests run them, logs through the first one's.
    let _first_one_wins = started;
    Ok(())
}

/// One line for the person at the terminal.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _nobody_may_read_it = writeln!(out, "{text}").and_then(|()| out.flush());
}
