//! Asks the control plane for keys on behalf of all cores: many requests, few questions.
//!
//! Invariants: a digest is in at most one question at a time, however many requests wait for it; a question holds at most
//! [`BATCH`] digests and goes out at most [`LINGER`] after its first; a failed question answers nobody (law 12).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proxyxai_core::{
    account::{
        key::KeyDigest,
        terms::{self, Key, Terms},
        tree::AccountTree,
    },
    snapshot::{KeyRecord, Version, key_table::KeyId},
};
use proxyxai_proto::config::v1::{
    ResolveKeysRequest, ResolveKeysResponse, ResolvedKey,
    config_service_client::ConfigServiceClient,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Answer, DEADLINE, Question, Resolved, Shared};
use crate::config::ControlChannel;

/// Digests in one question.
const BATCH: usize = 256;
/// How long a question waits for more digests.
const LINGER: Duration = Duration::from_millis(5);

/// The side of a [`KeyResolver`](super::KeyResolver) that talks to the control plane.
pub struct Asker {
    shared: Arc<Shared>,
    asked: mpsc::UnboundedReceiver<Question>,
    /// Waiting for the next question, and when that goes out.
    gathering: BTreeMap<KeyDigest, Vec<oneshot::Sender<Answer>>>,
    due: Option<Instant>,
    /// Waiting for an answer that is under way.
    asking: BTreeMap<KeyDigest, Vec<oneshot::Sender<Answer>>>,
    questions: JoinSet<(Vec<KeyDigest>, Option<ResolveKeysResponse>)>,
}

impl Asker {
    pub(super) fn new(shared: Arc<Shared>, asked: mpsc::UnboundedReceiver<Question>) -> Self {
        Self {
            shared,
            asked,
            gathering: BTreeMap::new(),
            due: None,
            asking: BTreeMap::new(),
            questions: JoinSet::new(),
        }
    }

    /// Asks until `shutdown`; whoever waits then learns that the control plane is unavailable.
    pub async fn run(mut self, channel: ControlChannel, shutdown: CancellationToken) {
        let client = ConfigServiceClient::new(channel);
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(done) = self.questions.join_next() => if let Ok((digests, response)) = done {
                    self.deliver(digests, response);
                },
                question = self.asked.recv() => match question {
                    Some(question) => self.gather(question, &client),
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.ask(&client),
            }
        }
    }

    fn gather(&mut self, question: Question, client: &ConfigServiceClient<ControlChannel>) {
        if let Some(waiting) = self.asking.get_mut(&question.digest) {
            waiting.push(question.answer);
            return;
        }
        self.gathering
            .entry(question.digest)
            .or_default()
            .push(question.answer);
        if self.gathering.len() >= BATCH {
            self.ask(client);
        } else if self.due.is_none() {
            self.due = Instant::now().checked_add(LINGER);
        }
    }

    fn ask(&mut self, client: &ConfigServiceClient<ControlChannel>) {
        self.due = None;
        let gathered = std::mem::take(&mut self.gathering);
        let digests: Vec<KeyDigest> = gathered.keys().copied().collect();
        self.asking.extend(gathered);
        let mut request = tonic::Request::new(ResolveKeysRequest {
            digests: digests.iter().map(|digest| digest.0.to_vec()).collect(),
            at_least: Some(self.shared.config.version().into()),
        });
        request.set_timeout(DEADLINE);
        let mut client = client.clone();
        self.questions.spawn(async move {
            let response = match tokio::time::timeout(DEADLINE, client.resolve_keys(request)).await {
                Ok(Ok(response)) => Some(response.into_inner()),
                Ok(Err(status)) => {
                    tracing::warn!(code = ?status.code(), message = status.message(), "the control plane could not look keys up");
                    None
                }
                Err(_) => None,
            };
            (digests, response)
        });
    }

    /// Hands the answers out. Where there is none, the waiting side is dropped, which says so.
    fn deliver(&mut self, digests: Vec<KeyDigest>, response: Option<ResolveKeysResponse>) {
        let answers = response
            .map(|response| read(&digests, response))
            .unwrap_or_default();
        for digest in digests {
            let Some(waiting) = self.asking.remove(&digest) else {
                continue;
            };
            let Some(answer) = answers.get(&digest) else {
                continue;
            };
            self.shared.remember(digest, answer);
            for one in waiting {
                // A request that gave up waiting needs no answer.
                let _gone = one.send(answer.clone());
            }
        }
    }
}

/// What a response says about the digests that were asked for; nothing about those that it gets wrong.
fn read(asked: &[KeyDigest], response: ResolveKeysResponse) -> BTreeMap<KeyDigest, Answer> {
    let Some(as_of) = response.as_of.map(Version::from) else {
        return BTreeMap::new();
    };
    let about = |key: ResolvedKey| {
        let digest = KeyDigest(key.digest.as_slice().try_into().ok()?);
        if !asked.contains(&digest) {
            return None;
        }
        let found = match &key.virtual_key {
            None => None,
            Some(_) => Some(resolved(&digest, &key)?),
        };
        Some((digest, Answer { as_of, found }))
    };
    response.keys.into_iter().filter_map(about).collect()
}

fn resolved(digest: &KeyDigest, key: &ResolvedKey) -> Option<Resolved> {
    let virtual_key = key.virtual_key.as_ref()?;
    let unfit = |what: &dyn std::fmt::Debug| {
        tracing::error!(
            key = virtual_key.id,
            ?what,
            "a key or its accounts do not fit; update this node or the control plane"
        );
    };
    let tree = AccountTree::build(&key.accounts).inspect_err(|faults| unfit(faults));
    let accounts = Arc::new(tree.ok()?);
    let terms = Terms::of(virtual_key)
        .inspect_err(|fault| unfit(fault))
        .ok()?;
    let terms = if terms::previous_digest(virtual_key) == Some(*digest) {
        terms.by_previous(virtual_key.previous_expires_unix_ms)
    } else {
        terms
    };
    let record = KeyRecord {
        id: KeyId::new(&virtual_key.id)?,
        account: accounts.get(&virtual_key.account_id)?,
        disabled: virtual_key.disabled,
        has_terms: terms::has_terms(virtual_key),
    };
    Some(Resolved {
        key: Key { record, terms },
        accounts,
    })
}
