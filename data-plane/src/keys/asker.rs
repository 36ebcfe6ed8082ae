//! Asks the control plane for keys on behalf of all cores: many requests, few questions.
//!
//! Invariants: a digest is in at most one question at a time, however many requests wait for it; a question holds at most
//! [`BATCH`] digests and goes out at most [`LINGER`] after its first; a failed question answers nobody (law 12). An answer from
//! before a change that was noted meanwhile is asked for again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use proxyxai_core::{
    account::key::KeyDigest,
    snapshot::{KeyId, Version},
    trace::TraceContext,
};
use proxyxai_proto::config::v1::{
    ResolveKeysRequest, ResolveKeysResponse, config_service_client::ConfigServiceClient,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Answer, DEADLINE, Question, Shared, memory::Learned};
use crate::{config::ControlPlanes, trace::send_along};

/// Digests in one question.
const BATCH: usize = 256;
/// How long a question waits for more digests.
const LINGER: Duration = Duration::from_millis(5);

/// The side of a [`KeyResolver`](super::KeyResolver) that talks to the control plane.
pub struct Asker {
    shared: Arc<Shared>,
    asked: mpsc::UnboundedReceiver<Question>,
    /// Waiting for the next question, and when that goes out.
    gathering: BTreeMap<KeyDigest, Waiting>,
    due: Option<Instant>,
    /// Waiting for an answer that is under way.
    asking: BTreeMap<KeyDigest, Waiting>,
    /// What the questions under way ask for, by their numbers.
    open: BTreeSet<(Version, u64)>,
    number: u64,
    questions: JoinSet<Asked>,
}

/// Requests that wait for one key.
struct Waiting {
    id: KeyId,
    /// The trace of the first of them that is kept: a question is in one trace.
    trace: Option<TraceContext>,
    answers: Vec<oneshot::Sender<Answer>>,
}

/// A question that came back.
struct Asked {
    open: (Version, u64),
    digests: Vec<KeyDigest>,
    response: Option<ResolveKeysResponse>,
}

impl Asker {
    pub(super) fn new(shared: Arc<Shared>, asked: mpsc::UnboundedReceiver<Question>) -> Self {
        Self {
            shared,
            asked,
            gathering: BTreeMap::new(),
            due: None,
            asking: BTreeMap::new(),
            open: BTreeSet::new(),
            number: 0,
            questions: JoinSet::new(),
        }
    }

    /// Asks until `shutdown`; whoever waits then learns that the control plane is unavailable.
    pub async fn run(mut self, planes: ControlPlanes, shutdown: CancellationToken) {
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(done) = self.questions.join_next() => if let Ok(asked) = done {
                    self.deliver(asked);
                },
                question = self.asked.recv() => match question {
                    Some(question) => self.gather(question, &planes),
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.ask(&planes),
            }
        }
    }

    fn gather(&mut self, question: Question, planes: &ControlPlanes) {
        if let Some(waiting) = self.asking.get_mut(&question.digest) {
            waiting.answers.push(question.answer);
            return;
        }
        let Question {
            id,
            digest,
            trace,
            answer,
        } = question;
        self.wait(id, digest, trace, vec![answer]);
        if self.gathering.len() >= BATCH {
            self.ask(planes);
        }
    }

    fn wait(
        &mut self,
        id: KeyId,
        digest: KeyDigest,
        trace: Option<TraceContext>,
        answers: Vec<oneshot::Sender<Answer>>,
    ) {
        let waiting = self.gathering.entry(digest).or_insert(Waiting {
            id,
            trace: None,
            answers: Vec::new(),
        });
        waiting.trace = more_telling(waiting.trace, trace);
        waiting.answers.extend(answers);
        if self.due.is_none() {
            self.due = Instant::now().checked_add(LINGER);
        }
    }

    fn ask(&mut self, planes: &ControlPlanes) {
        self.due = None;
        let gathered = std::mem::take(&mut self.gathering);
        let digests: Vec<KeyDigest> = gathered.keys().copied().collect();
        let traces = gathered.values().map(|waiting| waiting.trace);
        let trace = traces.fold(None, more_telling);
        self.asking.extend(gathered);
        let at_least = self.shared.memory.at_least();
        self.number = self.number.wrapping_add(1);
        let open = (at_least, self.number);
        self.open.insert(open);
        let request = ResolveKeysRequest {
            digests: digests.iter().map(|digest| digest.0.to_vec()).collect(),
            at_least: Some(at_least.into()),
        };
        let planes = planes.clone();
        self.questions.spawn(async move {
            let asking = tokio::time::timeout(DEADLINE, ask_any(&planes, &request, trace));
            Asked {
                open,
                digests,
                response: asking.await.unwrap_or(None),
            }
        });
    }

    /// Hands the answers out. Where there is none, the waiting side is dropped, which says so.
    fn deliver(&mut self, asked: Asked) {
        let response = asked.response.unwrap_or_default();
        let as_of = response.as_of.map(Version::from);
        for key in response.keys {
            let digest = key.digest.as_slice().try_into().map(KeyDigest);
            let (Ok(digest), Some(as_of)) = (digest, as_of) else {
                continue;
            };
            let Some(waiting) = asked
                .digests
                .contains(&digest)
                .then(|| self.asking.remove(&digest))
                .flatten()
            else {
                continue;
            };
            let found = key.virtual_key.map(|found| (found, key.accounts));
            let now = self.shared.config.elapsed();
            let memory = &self.shared.memory;
            match memory.learn(waiting.id, digest, as_of, found, now) {
                Learned::Admitted(answer) => {
                    for one in waiting.answers {
                        // A request that gave up waiting needs no answer.
                        let _gone = one.send(answer.clone());
                    }
                }
                Learned::Outrun => {
                    let outrun = &self.shared.counters.outrun;
                    outrun.fetch_add(1, Ordering::Relaxed);
                    let mut answers = waiting.answers;
                    answers.retain(|one| !one.is_closed());
                    if !answers.is_empty() {
                        self.wait(waiting.id, digest, waiting.trace, answers);
                    }
                }
                Learned::Unfit => {}
            }
        }
        for digest in asked.digests {
            self.asking.remove(&digest);
        }
        self.open.remove(&asked.open);
        let oldest = self.open.first().map(|(at_least, _)| *at_least);
        self.shared.memory.forget(oldest);
    }
}

/// Of two traces, the one that is kept; the first of equals.
fn more_telling(one: Option<TraceContext>, other: Option<TraceContext>) -> Option<TraceContext> {
    match (one, other) {
        (Some(one), Some(other)) if other.sampled && !one.sampled => Some(other),
        (None, other) => other,
        (Some(one), _) => Some(one),
    }
}

/// Asks the control plane in use, and the others while it cannot answer.
async fn ask_any(
    planes: &ControlPlanes,
    request: &ResolveKeysRequest,
    trace: Option<TraceContext>,
) -> Option<ResolveKeysResponse> {
    for after in 0..planes.count() {
        let mut request = tonic::Request::new(request.clone());
        request.set_timeout(DEADLINE);
        send_along(trace, request.metadata_mut());
        let mut client = ConfigServiceClient::new(planes.channel(after)?);
        match client.resolve_keys(request).await {
            Ok(response) => return Some(response.into_inner()),
            Err(status) => {
                tracing::warn!(code = ?status.code(), message = status.message(), "a control plane could not look keys up");
            }
        }
    }
    None
}
