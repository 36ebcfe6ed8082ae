//! What a control plane does beside serving, until it is stopped.

use proxyxai_core::{ports::LogControl, settings};

use super::ControlPlane;
use crate::{authority::SERVER_RENEWAL, keyring::rotate, tls::TlsError};

impl ControlPlane {
    /// Keeps the store in order and the certificate fresh, now and then, until stopped: folds old rows of usage, prunes the audit trail,
    /// ends what a rotation of keys left.
    pub async fn keep_house(&self) {
        let mut renewed = self.books.clock.monotonic();
        loop {
            let age = self.books.clock.monotonic().saturating_sub(renewed);
            if age > SERVER_RENEWAL {
                match self.renew_certificate() {
                    Ok(()) => renewed = self.books.clock.monotonic(),
                    Err(error) => {
                        tracing::error!(%error, "the certificate of this control plane was not renewed; it is tried again")
                    }
                }
            }
            if let Err(error) = self.trail.prune(self.audit_from()).await {
                tracing::warn!(%error, "the audit trail was not pruned; it is tried again");
            }
            if let Err(error) = rotate::tidy(&self.keyring, &*self.random).await {
                tracing::warn!(%error, "secrets under older keys were not sealed anew; it is tried again");
            }
            if let Err(error) = self.books.fold().await {
                tracing::warn!(%error, "old rows of usage were not folded; it is tried again");
            }
            if let Err(error) = self.books.prune_marks().await {
                tracing::warn!(%error, "marks of removed nodes were not dropped; it is tried again");
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(self.settings.fold_interval) => {}
            }
        }
    }

    /// Unix milliseconds of the oldest records of the audit trail that are kept.
    fn audit_from(&self) -> i64 {
        let set = self.config.state().settings.settings.unwrap_or_default();
        let own = self.settings.audit_keep.as_secs();
        let seconds = settings::in_force(&set, own).audit_keep_seconds;
        let keep = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        self.books.clock.unix_ms().saturating_sub(keep)
    }

    fn renew_certificate(&self) -> Result<(), TlsError> {
        let now = self.books.clock.unix_ms();
        let certificate = self.door.authority.server(&self.settings.names, now)?;
        self.tls.replace(certificate)
    }

    /// Keeps the tick, by which all who follow the store know that it lives, until stopped.
    pub async fn keep_tick(&self) {
        crate::tick::keep(&*self.store, &self.config.clock, &self.stopping).await;
    }

    /// Keeps a log at the level that administrators want of control planes, until stopped.
    pub async fn keep_log(&self, log: &dyn LogControl) {
        let keep = self.orders.keep_log(log);
        self.stopping.run_until_cancelled(keep).await;
    }
}
