//! Simulated nodes: each has joined, has a connection of its own over TLS, speaks the stream of configuration as a node does, waits as a
//! node does when it is cut off, and forgets the content that it is sent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proxyxai_core::{
    ports::{Random, random_bytes},
    secret::{fingerprint::Fingerprint, join_token::JoinToken},
};
use proxyxai_data_plane::{
    config::backoff::Backoff,
    control_tls::{self, ClientIdentity},
    enroll,
};
use proxyxai_proto::config::v1::{
    Ack, Hello, ResourceName, StreamRequest, StreamResponse, Version,
    config_service_client::ConfigServiceClient, resource::Kind, stream_request,
    stream_response::Message,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};
use xai::system::{SystemClock, SystemRandomness};

use super::super::process::PATIENCE;

/// What a node saw, and when.
pub(super) struct Seen {
    pub(super) node: usize,
    pub(super) at: Instant,
    pub(super) what: What,
}

pub(super) enum What {
    /// It is at the head: the first bookmark of a stream.
    Home,
    /// From here on the node enforces a change of the key with this id.
    Told(String),
    /// A whole configuration was received: bytes, and how long it took from the greeting on.
    Whole(usize, Duration),
}

/// Many nodes of one control plane.
pub(super) struct Fleet {
    seen: mpsc::UnboundedReceiver<Seen>,
    cut: watch::Sender<u64>,
    /// Ends them when it is dropped.
    _nodes: JoinSet<()>,
    count: usize,
}

/// What lets nodes in, and where.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) address: SocketAddr,
    pub(super) token: JoinToken,
    /// Most keys that nodes preload: with more they are sent the keyed view.
    pub(super) preload_max: u64,
}

impl Fleet {
    /// So many nodes join, one after the other, and begin their streams.
    pub(super) async fn join(name: &str, count: usize, entrance: &Entrance) -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let cut = watch::Sender::new(0);
        let random: Arc<dyn Random> = Arc::new(SystemRandomness::open().unwrap());
        let clock = SystemClock::start();
        let pin = entrance.token.authority;
        let address = entrance.address.to_string();
        let door = control_tls::channel(&address, pin, None).unwrap();
        let mut ready = Vec::with_capacity(count);
        for number in 0..count {
            let id = format!("{name}-{number}");
            let enrolled = enroll::join(door.clone(), &entrance.token, &id, &clock, None).await;
            let identity = Arc::new(ClientIdentity::default());
            enrolled.unwrap().show(&identity).unwrap();
            ready.push(Sim {
                number,
                id,
                address: address.clone(),
                pin,
                identity,
                preload_max: entrance.preload_max,
                held: Held::default(),
                backoff: Backoff::new(Arc::clone(&random)),
                boot_id: format!("{:032x}", u128::from_le_bytes(random_bytes(&*random))),
                seen: sender.clone(),
            });
        }
        let mut nodes = JoinSet::new();
        for sim in ready {
            nodes.spawn(sim.live(cut.subscribe()));
        }
        Self {
            seen,
            cut,
            _nodes: nodes,
            count,
        }
    }

    /// Breaks every connection at once.
    pub(super) fn cut(&self) {
        self.cut.send_modify(|round| *round += 1);
    }

    /// Takes what was seen so far out of the way.
    pub(super) fn forget(&mut self) {
        while self.seen.try_recv().is_ok() {}
    }

    /// When each node saw this for the first time from now on, in the order of time.
    pub(super) async fn all(&mut self, saw: impl Fn(&What) -> bool) -> Vec<Seen> {
        let mut found: Vec<Option<Seen>> = Vec::new();
        found.resize_with(self.count, || None);
        let mut missing = self.count;
        while missing > 0 {
            let next = timeout(PATIENCE * 3, self.seen.recv()).await;
            let seen = next
                .unwrap_or_else(|_| panic!("{missing} nodes of {} did not see it", self.count))
                .unwrap();
            let place = &mut found[seen.node];
            if saw(&seen.what) && place.is_none() {
                *place = Some(seen);
                missing -= 1;
            }
        }
        let mut all: Vec<Seen> = found.into_iter().flatten().collect();
        all.sort_by_key(|seen| seen.at);
        all
    }
}

/// What a node would serve from.
#[derive(Default)]
struct Held {
    version: Option<Version>,
    digest: Vec<u8>,
    through: Option<Version>,
}

struct Sim {
    number: usize,
    id: String,
    boot_id: String,
    address: String,
    pin: Fingerprint,
    identity: Arc<ClientIdentity>,
    preload_max: u64,
    held: Held,
    backoff: Backoff,
    seen: mpsc::UnboundedSender<Seen>,
}

impl Sim {
    async fn live(mut self, mut cut: watch::Receiver<u64>) {
        loop {
            let identity = Some(Arc::clone(&self.identity));
            // One connection for all streams, until it is cut.
            let channel = control_tls::channel(&self.address, self.pin, identity).unwrap();
            tokio::select! {
                biased;
                changed = cut.changed() => if changed.is_err() { return },
                () = self.stay_connected(channel) => {}
            }
            self.backoff.reset();
        }
    }

    async fn stay_connected(&mut self, channel: Channel) {
        loop {
            let wait = match self.stream(channel.clone()).await {
                Ok(after) => after,
                Err(refused) => {
                    let asked = self.backoff.asked(&refused);
                    asked.unwrap_or_else(|| self.backoff.next_wait())
                }
            };
            sleep(wait).await;
        }
    }

    /// One stream to its end: how long to stay away when it was sent away.
    async fn stream(&mut self, channel: Channel) -> Result<Duration, Status> {
        let (answers, requests) = mpsc::channel(64);
        let send = |message| {
            let message = Some(message);
            let full = |_| Status::cancelled("the control plane reads nothing");
            answers.try_send(StreamRequest { message }).map_err(full)
        };
        send(stream_request::Message::Hello(self.hello()))?;
        let mut client = ConfigServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let opened = client.stream(ReceiverStream::new(requests)).await?;
        let mut messages = opened.into_inner();
        let (mut begun, mut bytes, mut home) = (Instant::now(), 0, false);
        while let Some(StreamResponse { message }) = messages.message().await? {
            match message {
                Some(Message::ServerHello(_)) => {
                    self.backoff.reset();
                    begun = Instant::now();
                    continue;
                }
                Some(Message::SnapshotBegin(_)) | None => continue,
                Some(Message::SnapshotChunk(chunk)) => {
                    bytes += prost::Message::encoded_len(&chunk);
                    continue;
                }
                Some(Message::SnapshotEnd(end)) => {
                    (self.held.version, self.held.digest) = (end.version, end.digest);
                    self.saw(What::Whole(bytes, begun.elapsed()));
                }
                Some(Message::Delta(delta)) => {
                    for resource in delta.upserts {
                        if let Some(Kind::VirtualKey(key)) = resource.kind {
                            self.saw(What::Told(key.id));
                        }
                    }
                    (self.held.version, self.held.digest) = (delta.to, delta.digest);
                }
                Some(Message::Invalidate(invalidate)) => {
                    for entry in invalidate.entries {
                        let ResourceName { id, .. } = entry.name.unwrap_or_default();
                        self.saw(What::Told(id));
                    }
                    self.held.through = invalidate.to;
                }
                Some(Message::Bookmark(bookmark)) => {
                    self.held.through = bookmark.invalidated_through;
                    if !std::mem::replace(&mut home, true) {
                        self.saw(What::Home);
                    }
                }
                // The version that they came with is acknowledged.
                Some(Message::NodeSettings(_)) => continue,
                Some(Message::Drain(drain)) => {
                    let after = Duration::from_millis(drain.reconnect_after_ms.into());
                    return Ok(after.max(Duration::from_millis(100)));
                }
            }
            send(stream_request::Message::Ack(Ack {
                applied: self.held.version,
                digest: self.held.digest.clone(),
                invalidated_through: self.held.through,
                vitals: None,
            }))?;
        }
        Err(Status::unavailable("the stream ended"))
    }

    fn hello(&self) -> Hello {
        Hello {
            node_id: self.id.clone(),
            boot_id: self.boot_id.clone(),
            held: self.held.version,
            held_digest: self.held.digest.clone(),
            invalidated_through: self.held.through,
            schema_min: 1,
            schema_max: 1,
            preload_max: self.preload_max,
            program_version: "simulated".to_owned(),
        }
    }

    fn saw(&self, what: What) {
        let _the_bench_may_be_over = self.seen.send(Seen {
            node: self.number,
            at: Instant::now(),
            what,
        });
    }
}
