//! Streams: bytes pass as they are and at once, usage is hidden again, the end settles first, a hang-up settles once.

use std::time::Duration;

use proptest::prelude::*;
use proxyxai_data_plane::context::Settings;
use proxyxai_proto::{config::v1::ProviderKind, usage::v1::Outcome};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep},
};

use crate::harness::{
    CHAT, CHAT_STREAM, Core, Setup, Step, Upstream, core, openai, openai_with, post_as, provider,
    run, stream, stream_open, unchunk,
};

const ONE: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\u{e9}llo\"}}],\"usage\":null}\n\n";
const SHOWN_ONE: &str =
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\u{e9}llo\"}}]}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":7,\"total_tokens\":19}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn asked() -> String {
    CHAT_STREAM.replace(
        "\"stream\":true",
        "\"stream\":true,\"stream_options\":{\"include_usage\":true}",
    )
}

#[test]
fn a_stream_passes_and_hides_the_usage_that_nobody_asked_for() {
    run(|| async {
        let (core, upstream) = openai(&["a"], vec![stream(&[ONE, ONE, USAGE, DONE])]).await;
        let answer = core.post("/v1/chat/completions", CHAT_STREAM).await;
        assert_eq!(answer.text(), format!("{SHOWN_ONE}{SHOWN_ONE}{DONE}"));
        assert_eq!(answer.header("x-accel-buffering").as_deref(), Some("no"));
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-cache"));
        let sent: serde_json::Value = serde_json::from_slice(&upstream.seen()[0].body).unwrap();
        assert_eq!(sent["stream_options"]["include_usage"], true);
        let event = &core.events(1).await[0];
        assert_eq!(
            (event.outcome(), event.stream, event.client_gone),
            (Outcome::Reported, true, false)
        );
        assert_eq!(
            (event.tokens.unwrap().input, event.tokens.unwrap().output),
            (12, 7)
        );

        let answer = core.post("/v1/chat/completions", &asked()).await;
        assert_eq!(
            answer.text(),
            format!("{ONE}{ONE}{USAGE}{DONE}"),
            "who asks gets the bytes as they came"
        );
        assert_eq!(upstream.seen()[1].body, asked().as_bytes());
        assert_eq!(
            upstream.seen()[1].connection,
            0,
            "the connection is used again after a stream"
        );
    });
}

#[test]
fn events_are_not_held_back_and_the_end_mark_ends_the_answer() {
    run(|| async {
        let script = [
            stream_open(&[ONE]),
            vec![Step::Wait(Duration::from_millis(300))],
            vec![
                Step::Bytes(format!("{:x}\r\n{DONE}\r\n", DONE.len()).into_bytes()),
                Step::Hang,
            ],
        ]
        .concat();
        let (core, _upstream) = openai(&["a"], vec![script]).await;
        let mut client = core.connect().await;
        let begin = Instant::now();
        client
            .write_all(&post_as("root", "/v1/chat/completions", &asked()))
            .await
            .unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(ONE) {
            assert!(client.read_buf(&mut seen).await.unwrap() > 0);
        }
        assert!(
            begin.elapsed() < Duration::from_millis(250),
            "{:?}",
            begin.elapsed()
        );
        while !seen.ends_with(b"0\r\n\r\n") {
            assert!(client.read_buf(&mut seen).await.unwrap() > 0);
        }
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "does not wait for the upstream's own end"
        );
    });
}

#[test]
fn a_cut_stream_ends_with_an_error_event() {
    run(|| async {
        let script = [
            stream_open(&[ONE, "data: {\"half"]),
            vec![Step::Wait(Duration::from_millis(30)), Step::Cut],
        ]
        .concat();
        let (core, _upstream) = openai(&["a"], vec![script]).await;
        let answer = core.post("/v1/chat/completions", &asked()).await;
        let text = answer.text();
        let last = text.rsplit("data: ").next().unwrap().trim();
        let error: serde_json::Value =
            serde_json::from_str(last).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(error["error"]["code"], "upstream_failed");
        assert!(
            text.ends_with("\n\n") && !text.contains("half"),
            "no client can read an event that was cut: {text:?}"
        );
        let event = &core.events(1).await[0];
        assert_eq!(
            (event.outcome(), event.estimated, event.client_gone),
            (Outcome::Unknown, true, false)
        );
    });
}

#[test]
fn a_stream_that_stands_still_ends_with_an_error_event() {
    run(|| async {
        let settings = Settings {
            idle_timeout: Duration::from_millis(200),
            ..Settings::default()
        };
        let (core, upstream) = openai_with(
            &["a"],
            vec![[stream_open(&[ONE]), vec![Step::Hang]].concat()],
            settings,
        )
        .await;
        let answer = core.post("/v1/chat/completions", &asked()).await;
        assert!(
            answer.text().starts_with(ONE) && answer.text().contains("\"error\""),
            "{}",
            answer.text()
        );
        upstream.gone(1).await;
        assert_eq!(core.events(1).await[0].outcome(), Outcome::Unknown);
    });
}

#[test]
fn a_cut_plain_answer_breaks_the_connection() {
    run(|| async {
        let cut = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"half\":".to_vec();
        let (core, _upstream) = openai(
            &["a"],
            vec![vec![
                Step::Bytes(cut),
                Step::Wait(Duration::from_millis(20)),
                Step::Cut,
            ]],
        )
        .await;
        let answer = core.post("/v1/chat/completions", CHAT).await;
        assert!(answer.broken, "{answer:?}");
        assert_eq!(core.events(1).await[0].outcome(), Outcome::Unknown);
    });
}

/// Hangs up after so many bytes of the answer; the upstream must notice, and one event be booked.
fn hang_up(script: Vec<Step>, after: usize, outcome: Outcome, gone: bool) {
    run(|| async {
        let (core, upstream) = openai(&["a"], vec![script]).await;
        let mut client = core.connect().await;
        client
            .write_all(&post_as("root", "/v1/chat/completions", &asked()))
            .await
            .unwrap();
        let mut seen = Vec::new();
        while seen.len() < after && unchunk_tail(&seen).is_none() {
            assert!(client.read_buf(&mut seen).await.unwrap() > 0);
        }
        wait_for_request(&upstream).await;
        let begin = Instant::now();
        drop(client);
        upstream.gone(1).await;
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "noticed at once: {:?}",
            begin.elapsed()
        );
        let event = &core.events(1).await[0];
        assert_eq!(
            (event.outcome(), event.client_gone),
            (outcome, gone),
            "{event:?}"
        );
    });
}

fn unchunk_tail(seen: &[u8]) -> Option<Vec<u8>> {
    let at = seen.windows(4).position(|w| w == b"\r\n\r\n")?;
    unchunk(&seen[at + 4..])
}

async fn wait_for_request(upstream: &Upstream) {
    while upstream.seen().is_empty() {
        sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn law_18_a_client_that_hangs_up_before_the_head_is_booked_once() {
    hang_up(vec![Step::Hang], 0, Outcome::Unknown, true);
}

#[test]
fn law_18_a_client_that_hangs_up_in_mid_stream_is_booked_once() {
    hang_up(
        [stream_open(&[ONE]), vec![Step::Hang]].concat(),
        50,
        Outcome::Unknown,
        true,
    );
}

#[test]
fn law_18_a_client_that_hangs_up_after_the_end_mark_did_not_leave_early() {
    hang_up(
        [stream_open(&[ONE, USAGE, DONE]), vec![Step::Hang]].concat(),
        usize::MAX,
        Outcome::Reported,
        false,
    );
}

#[test]
fn anthropic_streams_are_settled_at_their_end_mark_only() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    let delta = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":15}}\n\n";
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let body = r#"{"model":"claude-sonnet-4-5","stream":true,"max_tokens":9,"messages":[]}"#;
    run(|| async {
        let cut = [
            stream_open(&[ping, start]),
            vec![Step::Wait(Duration::from_millis(30)), Step::Cut],
        ]
        .concat();
        let upstream = Upstream::start([stream(&[ping, start, ping, delta, stop]), cut]).await;
        let resources = provider("an", ProviderKind::Anthropic, upstream.address, &["k"]);
        let core = core(Setup {
            resources,
            ..Setup::default()
        })
        .await;
        let answer = core.post("/v1/messages", body).await;
        assert_eq!(
            answer.text(),
            [ping, start, ping, delta, stop].concat(),
            "pings pass"
        );
        let answer = core.post("/v1/messages", body).await;
        assert!(
            answer
                .text()
                .contains("event: error\ndata: {\"type\":\"error\""),
            "{}",
            answer.text()
        );
        let events = core.events(2).await;
        let of = |i: usize| {
            (
                events[i].outcome(),
                events[i].tokens.unwrap().input,
                events[i].tokens.unwrap().output,
            )
        };
        assert_eq!(of(0), (Outcome::Reported, 25, 15));
        assert_eq!(of(1).0, Outcome::Unknown);
        assert_eq!(of(1).1, 25, "the input that was reported is exact");
    });
}

#[test]
fn a_core_that_stops_lets_streams_end_then_ends_them() {
    run(|| async {
        let settings = Settings {
            drain: Duration::from_millis(300),
            ..Settings::default()
        };
        let slow = [
            stream_open(&[ONE]),
            vec![Step::Wait(Duration::from_millis(100))],
            vec![Step::Bytes(
                format!("{:x}\r\n{DONE}\r\n0\r\n\r\n", DONE.len()).into_bytes(),
            )],
        ]
        .concat();
        let (core, _upstream) = openai_with(
            &["a"],
            vec![slow, [stream_open(&[ONE]), vec![Step::Hang]].concat()],
            settings,
        )
        .await;
        let request = post_as("root", "/v1/chat/completions", &asked());
        let (slow, endless, _idle) = (
            begin(&core, &request).await,
            begin(&core, &request).await,
            core.connect().await,
        );
        core.handle.drain();
        let (slow, endless) = tokio::join!(finish(slow), async {
            sleep(Duration::from_millis(300)).await;
            core.handle.abort();
            finish(endless).await
        });
        assert!(
            slow.contains("[DONE]") && !slow.contains("\"error\""),
            "{slow}"
        );
        assert!(
            endless.contains("\"error\"") && endless.ends_with("0\r\n\r\n"),
            "{endless}"
        );
        tokio::time::timeout(Duration::from_secs(3), core.done)
            .await
            .unwrap()
            .unwrap();
    });
}

async fn begin(core: &Core, request: &[u8]) -> (tokio::net::TcpStream, Vec<u8>) {
    let (mut client, mut seen) = (core.connect().await, Vec::new());
    client.write_all(request).await.unwrap();
    while !String::from_utf8_lossy(&seen).contains("data: ") {
        assert!(client.read_buf(&mut seen).await.unwrap() > 0);
    }
    (client, seen)
}

async fn finish((mut client, mut seen): (tokio::net::TcpStream, Vec<u8>)) -> String {
    while !seen.ends_with(b"0\r\n\r\n") && client.read_buf(&mut seen).await.unwrap_or(0) > 0 {}
    String::from_utf8_lossy(&seen).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However the upstream's bytes are cut into packets, the client sees the same text and the same is booked.
    #[test]
    fn how_a_stream_is_cut_into_packets_changes_nothing(cuts in prop::collection::vec(1_usize..900, 0..8), ask in any::<bool>()) {
        let Step::Bytes(bytes) = stream(&[ONE, ONE, USAGE, DONE]).into_iter().flat_map(|step| match step {
            Step::Bytes(bytes) => bytes,
            _ => Vec::new(),
        }).collect::<Vec<u8>>().into() else { return Ok(()) };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let (mut script, mut start) = (Vec::new(), 0);
        for cut in cuts.into_iter().chain([bytes.len()]) {
            script.push(Step::Bytes(bytes[start..cut].to_vec()));
            script.push(Step::Wait(Duration::from_millis(1)));
            start = cut;
        }
        run(|| async {
            let (core, _upstream) = openai(&["a"], vec![script]).await;
            let request = if ask { asked() } else { CHAT_STREAM.to_owned() };
            let answer = core.post("/v1/chat/completions", &request).await;
            let expected = if ask { format!("{ONE}{ONE}{USAGE}{DONE}") } else { format!("{SHOWN_ONE}{SHOWN_ONE}{DONE}") };
            assert_eq!(answer.text(), expected);
            let event = &core.events(1).await[0];
            assert_eq!((event.outcome(), event.tokens.unwrap().output), (Outcome::Reported, 7));
        });
    }
}

impl From<Vec<u8>> for Step {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}
