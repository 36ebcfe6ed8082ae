//! Which member of the cluster is asked, what an error means, and when to ask another one.
//!
//! The client's own balancer keeps sending to a dead member, so each member has a client of its own here; all calls go to one member
//! until it fails. What was certainly not done is asked of the next member; a write that may have been done is not.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, Error};
use proxyxai_core::secret::ExposeSecret as _;
use tokio::{sync::OnceCell, time::Instant};

use super::{
    EtcdSettings, StoreError,
    failure::{Sent, advice, chain, judge},
};

/// Between rounds through all members.
const PAUSE: Duration = Duration::from_millis(100);
/// Silence of a member with open streams before it is asked whether it lives, and time for its answer. etcd takes no shorter interval.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// The members.
pub(super) struct Links {
    members: Vec<Member>,
    current: AtomicUsize,
    options: ConnectOptions,
    timeout: Duration,
}

struct Member {
    endpoint: String,
    client: OnceCell<Client>,
}

impl Links {
    pub(super) fn new(settings: &EtcdSettings) -> Result<Self, StoreError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(settings.connect_timeout)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_keep_alive_while_idle(false)
            // A member without a leader says so at once, and ends its watches.
            .with_require_leader(true);
        if let Some((name, password)) = &settings.user {
            options = options
                .with_user(name, password.expose_secret())
                .with_auto_token_refresh(true);
        }
        if settings.endpoints.iter().any(|e| e.starts_with("https://")) {
            options = options.with_tls(settings.tls.options());
        }
        let members = settings.endpoints.iter().map(|endpoint| Member {
            endpoint: endpoint.clone(),
            client: OnceCell::new(),
        });
        let links = Self {
            members: members.collect(),
            current: AtomicUsize::new(0),
            options,
            timeout: settings.request_timeout,
        };
        if links.members.is_empty() {
            return Err(links.failed("no endpoint is given"));
        }
        Ok(links)
    }

    /// Asks for something that may be asked again.
    pub(super) async fn read<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, Sent>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call(true, self.timeout, ask).await
    }

    /// Asks for something that may be asked again, of members that answer within this time.
    pub(super) async fn read_within<T, F>(
        &self,
        within: Duration,
        ask: impl Fn(Client) -> F,
    ) -> Result<T, Sent>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call(true, within, ask).await
    }

    /// Asks for something that must not be done twice.
    pub(super) async fn write<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, Sent>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call(false, self.timeout, ask).await
    }

    /// Asks every member at least once, and goes on within the time for one answer.
    async fn call<T, F>(
        &self,
        repeatable: bool,
        within: Duration,
        ask: impl Fn(Client) -> F,
    ) -> Result<T, Sent>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let begun = Instant::now();
        let mut tries = 0_usize;
        loop {
            let at = self.current.load(Ordering::Relaxed);
            let asked = Box::pin(async { ask(self.client(at).await?).await });
            let sent = match tokio::time::timeout(within, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => judge(&error),
                Err(_) => Sent::Perhaps(format!("no answer within {within:?}")),
            };
            let again = match &sent {
                Sent::Not(_) => true,
                Sent::Perhaps(_) => repeatable,
                Sent::Refused(_) => return Err(sent),
            };
            self.leave(at);
            tries = tries.saturating_add(1);
            let all_asked = tries >= self.members.len();
            if !again || (all_asked && begun.elapsed() >= within) {
                return Err(sent);
            }
            if all_asked {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// The version of each member, or why it does not say it.
    pub(super) async fn versions(&self) -> Vec<(&str, Result<String, String>)> {
        let mut versions = Vec::with_capacity(self.members.len());
        for (at, member) in self.members.iter().enumerate() {
            let asked = Box::pin(async { self.client(at).await?.status().await });
            let said = match tokio::time::timeout(self.timeout, asked).await {
                Ok(Ok(status)) => Ok(status.version().to_owned()),
                Ok(Err(error)) => Err(chain(&error)),
                Err(_) => Err(format!("no answer within {:?}", self.timeout)),
            };
            versions.push((member.endpoint.as_str(), said));
        }
        versions
    }

    async fn client(&self, at: usize) -> Result<Client, Error> {
        let missing = || Error::InvalidArgs("no endpoint is given".to_owned());
        let member = self.members.get(at).ok_or_else(missing)?;
        // Boxed: its future is large, and every call would hold one.
        let connect = || {
            Box::pin(Client::connect(
                [&member.endpoint],
                Some(self.options.clone()),
            ))
        };
        Ok(member.client.get_or_try_init(connect).await?.clone())
    }

    /// Goes on with the next member, unless somebody else already did.
    fn leave(&self, at: usize) {
        let next = at.saturating_add(1).checked_rem(self.members.len());
        let _others_may_be_faster = self.current.compare_exchange(
            at,
            next.unwrap_or_default(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    fn place(&self) -> String {
        let endpoints: Vec<&str> = self.members.iter().map(|m| m.endpoint.as_str()).collect();
        endpoints.join(",")
    }

    /// The error of a call that changes nothing.
    pub(super) fn of_read(&self, sent: Sent) -> StoreError {
        match sent {
            Sent::Not(what) | Sent::Perhaps(what) => self.failed(&what),
            Sent::Refused(failure) => self.failed(&failure.text()),
        }
    }

    /// The error of a call that changes something.
    pub(super) fn of_write(&self, sent: Sent) -> StoreError {
        match sent {
            Sent::Perhaps(what) => StoreError::Ambiguous {
                place: self.place(),
                what,
            },
            other @ (Sent::Not(_) | Sent::Refused(_)) => self.of_read(other),
        }
    }

    pub(super) fn failed(&self, what: &str) -> StoreError {
        StoreError::Failed {
            place: self.place(),
            what: what.to_owned(),
            next: advice(what),
        }
    }
}
