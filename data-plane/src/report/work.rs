//! Where work on files is done: on threads of its own, or at once in simulations, whose runtimes must not wait for real threads.

use std::io;

/// Where work on files is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileWork {
    /// On the runtime's threads for work that blocks.
    Threads,
    /// On the task's own thread. For disks in memory.
    Inline,
}

impl FileWork {
    /// Does the work, and waits for it.
    pub(crate) async fn run<T, E>(
        self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<io::Error> + Send + 'static,
    {
        match self {
            Self::Inline => work(),
            Self::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(done) => done,
                Err(_) => Err(io::Error::other("the thread for work on files broke off").into()),
            },
        }
    }
}
