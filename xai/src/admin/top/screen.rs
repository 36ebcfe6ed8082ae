//! The terminal while `xai top` has it: a screen of its own, keys one by one.
//!
//! Invariant: however it ends, short of being killed, the terminal is as it was.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, mpsc},
};

use crate::failure::Failure;

/// Another screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Back.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Size of a terminal that does not say its own.
const USUAL: (usize, usize) = (24, 80);

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// It is time to look again.
    Time,
    /// Somebody wants it to end.
    End,
}

/// The terminal.
pub(super) struct Screen {
    before: Termios,
    ends: Mutex<Ends>,
    over: Arc<AtomicBool>,
}

/// What may end it.
struct Ends {
    keys: mpsc::Receiver<u8>,
    interrupt: Signal,
    terminate: Signal,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) fn open() -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::failed(format!(
                "the terminal cannot be used: {error}; say --once to print instead"
            ))
        };
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let before = tcgetattr(io::stdin()).map_err(|error| failed(error.into()))?;
        let mut now = before.clone();
        now.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        // A read ends after a tenth of a second without a key, so that whoever reads sees that all is over.
        now.special_codes[SpecialCodeIndex::VMIN] = 0;
        now.special_codes[SpecialCodeIndex::VTIME] = 1;
        let (sender, keys) = mpsc::channel(16);
        let over = Arc::new(AtomicBool::new(false));
        let screen = Self {
            before,
            ends: Mutex::new(Ends {
                keys,
                interrupt,
                terminate,
            }),
            over: Arc::clone(&over),
        };
        tcsetattr(io::stdin(), OptionalActions::Now, &now).map_err(|error| failed(error.into()))?;
        thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || read_keys(&sender, &over))
            .map_err(failed)?;
        write(ENTER)?;
        Ok(screen)
    }

    /// Shows as many lines as there is room for.
    pub(super) fn show(&self, lines: &[String]) -> Result<(), Failure> {
        let size = tcgetwinsize(io::stdout()).ok();
        let size = size.map(|size| (usize::from(size.ws_row), usize::from(size.ws_col)));
        let (rows, columns) = size.filter(|(rows, _)| *rows > 0).unwrap_or(USUAL);
        write(&painted(lines, rows, columns))
    }

    /// Waits for the next look, or the end.
    pub(super) async fn wait(&self, time: Duration) -> Event {
        let mut ends = self.ends.lock().await;
        let Ends {
            keys,
            interrupt,
            terminate,
        } = &mut *ends;
        let asked = async {
            while let Some(key) = keys.recv().await {
                if matches!(key, b'q' | b'Q') {
                    return;
                }
            }
            // Nobody can press a key any more; signals still end it.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            _ = interrupt.recv() => Event::End,
            _ = terminate.recv() => Event::End,
            () = asked => Event::End,
            () = tokio::time::sleep(time) => Event::Time,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _nothing_more_can_be_done = write(LEAVE);
        let _it_may_be_gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn read_keys(sender: &mpsc::Sender<u8>, over: &AtomicBool) {
    let mut key = [0];
    while !over.load(Ordering::Relaxed) {
        match rustix::io::read(io::stdin(), &mut key) {
            Ok(0) => {}
            Ok(_) if sender.blocking_send(key[0]).is_ok() => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// The bytes that paint these lines over what is there. What is not printable in them becomes a `?`: names come from others.
fn painted(lines: &[String], rows: usize, columns: usize) -> String {
    let shown = lines.iter().take(rows).map(|line| {
        let plain = |c: char| if c.is_control() { '?' } else { c };
        line.chars().map(plain).take(columns).collect::<String>()
    });
    let shown: Vec<String> = shown.collect();
    format!("\x1b[H{}\x1b[K\x1b[J", shown.join("\x1b[K\r\n"))
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::failed(format!("the terminal is gone: {error}")))
}

#[cfg(test)]
mod tests {
    use super::painted;

    #[test]
    fn lines_fit_and_steer_nothing() {
        let lines = ["abc\x1b[2J", "d", "e"].map(str::to_owned);
        assert_eq!(painted(&lines, 2, 5), "\x1b[Habc?[\x1b[K\r\nd\x1b[K\x1b[J");
    }
}
