//! Streams that are watched as they pass, however they are cut into pieces.

use bytes::Bytes;
use proptest::prelude::*;
use proxyxai_core::dialect::{
    Dialect, Endpoint,
    first_event::{FirstEvent, first_event},
    stream::StreamMeter,
    usage::Usage,
};

const CHAT: &str = include_str!("../fixtures/chat.sse");
const RESPONSE: &str = include_str!("../fixtures/response.sse");
const MESSAGES: &str = include_str!("../fixtures/messages.sse");

/// What comes out, the usage, and whether the stream ended.
fn run(endpoint: Endpoint, hides: bool, pieces: &[&[u8]]) -> (Vec<u8>, Option<Usage>, bool) {
    let mut meter = StreamMeter::new(endpoint, hides);
    let mut out = Vec::new();
    for piece in pieces {
        meter
            .push(Bytes::copy_from_slice(piece), &mut |bytes| {
                out.extend_from_slice(&bytes)
            })
            .unwrap();
    }
    meter.finish(&mut |bytes| out.extend_from_slice(&bytes));
    (out, meter.usage(), meter.ended())
}

fn total(usage: Option<&Usage>) -> u64 {
    usage.map_or(0, |usage| usage.tokens.input_total() + usage.tokens.output)
}

#[test]
fn every_cut_gives_the_same() {
    for (endpoint, text) in [
        (Endpoint::ChatCompletions, CHAT),
        (Endpoint::Messages, MESSAGES),
        (Endpoint::Responses, RESPONSE),
    ] {
        for ends in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', ends);
            for hides in [false, true] {
                let whole = run(endpoint, hides, &[text.as_bytes()]);
                assert!(
                    whole.1.is_some() && whole.2,
                    "{endpoint:?} {ends:?}: {whole:?}"
                );
                for size in [1, 2, 3, 7, 64, 311] {
                    let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                    assert_eq!(
                        run(endpoint, hides, &pieces),
                        whole,
                        "{endpoint:?} {ends:?} hides={hides} in pieces of {size}"
                    );
                }
                if !hides {
                    assert_eq!(whole.0, text.as_bytes());
                }
            }
        }
    }
}

#[test]
fn what_the_client_did_not_ask_for_is_hidden() {
    let (shown, usage, _) = run(Endpoint::ChatCompletions, true, &[CHAT.as_bytes()]);
    let shown = String::from_utf8(shown).unwrap();
    assert!(
        !shown.contains("\"usage\"") && !shown.contains("\"choices\":[]"),
        "{shown}"
    );
    assert_eq!(
        shown.matches("data: ").count(),
        CHAT.matches("data: ").count() - 1
    );
    for line in shown
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
    {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    assert_eq!(total(usage.as_ref()), 9 + 4);
}

#[test]
fn messages_overwrite_and_never_add() {
    let (_, usage, _) = run(Endpoint::Messages, false, &[MESSAGES.as_bytes()]);
    let tokens = usage.unwrap().tokens;
    assert_eq!(
        (
            tokens.input,
            tokens.cache_read,
            tokens.cache_write_5m,
            tokens.cache_write_1h,
            tokens.output
        ),
        (25, 6, 3, 4, 15)
    );
}

#[test]
fn an_event_is_never_held_back() {
    let mut meter = StreamMeter::new(Endpoint::ChatCompletions, true);
    for event in CHAT.split_inclusive("\n\n") {
        let mut out = Vec::new();
        meter
            .push(Bytes::copy_from_slice(event.as_bytes()), &mut |bytes| {
                out.extend_from_slice(&bytes)
            })
            .unwrap();
        assert!(
            !out.is_empty() || event.contains("\"choices\":[]"),
            "{event}"
        );
    }
}

#[test]
fn an_event_without_an_end_is_refused() {
    let mut meter = StreamMeter::new(Endpoint::ChatCompletions, true);
    let line = Bytes::from(vec![b'x'; 700_000]);
    assert!(meter.push(line.clone(), &mut drop).is_ok());
    assert!(meter.push(line, &mut drop).is_err());
}

proptest! {
    #[test]
    fn law_18_a_cut_stream_never_yields_more(cut in any::<prop::sample::Index>(), which in 0_usize..3) {
        let (endpoint, text) = [(Endpoint::Messages, MESSAGES), (Endpoint::ChatCompletions, CHAT), (Endpoint::Responses, RESPONSE)][which];
        let whole = total(run(endpoint, false, &[text.as_bytes()]).1.as_ref());
        let part = total(run(endpoint, false, &[&text.as_bytes()[..cut.index(text.len())]]).1.as_ref());
        prop_assert!(part <= whole, "{part} of {whole}");
    }

    #[test]
    fn watching_never_breaks(text in "(data: |event: |\"usage\"|:|\\{|\\}|\\[|\\]|,|null|\n|\r|x){0,40}", hides in any::<bool>()) {
        run(Endpoint::ChatCompletions, hides, &[text.as_bytes()]);
        run(Endpoint::Messages, hides, &[text.as_bytes()]);
        run(Endpoint::Responses, hides, &[text.as_bytes()]);
        let _ = first_event(Dialect::OpenaiChat, text.as_bytes());
    }
}

#[test]
fn an_error_as_first_event_is_an_error() {
    let check = |dialect: Dialect, head: &str, want: &str| {
        let got = match first_event(dialect, head.as_bytes()) {
            FirstEvent::NeedMore => "more".to_owned(),
            FirstEvent::Content => "content".to_owned(),
            FirstEvent::Error { status, .. } => format!("error {status}"),
        };
        assert_eq!(got, want, "{head:?}");
    };
    let (chat, messages) = (Dialect::OpenaiChat, Dialect::AnthropicMessages);
    check(chat, "", "more");
    check(chat, ": keep-alive\n\n", "more");
    check(chat, "data: {\"choices\":[]}\n", "more");
    check(chat, "data: {\"choices\":[]}\n\n", "content");
    check(
        chat,
        ": x\n\ndata: {\"error\":{\"type\":\"server_error\"}}\n\n",
        "error 500",
    );
    check(
        chat,
        "data: {\"error\":{\"code\":\"rate_limit_exceeded\"}}\n\n",
        "error 429",
    );
    check(chat, "data: {\"error\":{\"code\":503}}\n\n", "error 503");
    check(chat, "data: {\"error\":null,\"choices\":[]}\n\n", "content");
    check(
        chat,
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"error\\\"\"}}]}\n\n",
        "content",
    );
    let responses = Dialect::OpenaiResponses;
    check(
        responses,
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n",
        "content",
    );
    check(
        responses,
        "event: error\ndata: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"m\",\"param\":null}\n\n",
        "error 429",
    );
    check(
        responses,
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"tokens\",\"code\":\"x\"}}\n\n",
        "error 429",
    );
    check(
        responses,
        "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n",
        "error 500",
    );
    check(
        messages,
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "more",
    );
    check(
        messages,
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
        "error 529",
    );
    check(
        messages,
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\"}}\n\n",
        "error 400",
    );
    check(
        messages,
        "event: message_start\ndata: {\"type\":\"message_start\"}\n\n",
        "content",
    );
}

#[test]
fn a_response_tells_its_usage_where_it_ends() {
    let check = |last: &str, want: Option<u64>, failed: bool| {
        let usage =
            r#"{"input_tokens":9,"input_tokens_details":{"cached_tokens":2},"output_tokens":4}"#;
        let last = last.replace("USAGE", usage);
        let text = format!(
            "data: {{\"type\":\"response.created\",\"response\":{{\"id\":\"resp_1\",\"usage\":null}}}}\n\ndata: {last}\n\n"
        );
        let mut meter = StreamMeter::new(Endpoint::Responses, false);
        meter.push(text.into(), &mut drop).unwrap();
        assert_eq!(meter.take_response().as_deref(), Some("resp_1"));
        assert_eq!(meter.events(), 2);
        let got = meter.usage().map(|usage| total(Some(&usage)));
        assert_eq!(
            (got, meter.ended(), meter.failed()),
            (want, true, failed),
            "{last}"
        );
    };
    check(
        r#"{"type":"response.completed","response":{"usage":USAGE}}"#,
        Some(13),
        false,
    );
    check(
        r#"{"response":{"usage":USAGE},"type":"response.incomplete"}"#,
        Some(13),
        false,
    );
    check(
        r#"{"type":"response.failed","response":{"usage":USAGE,"error":{"code":"server_error","message":"m"}}}"#,
        Some(13),
        true,
    );
    check(
        r#"{"type":"response.failed","response":{"usage":null,"error":null}}"#,
        None,
        true,
    );
}

#[test]
fn text_that_looks_like_an_event_is_text() {
    let mut meter = StreamMeter::new(Endpoint::Responses, false);
    let text = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"{\\\"type\\\":\\\"response.completed\\\",\\\"response\\\":{\\\"usage\\\":{\\\"input_tokens\\\":5}}}\"}\n\n";
    meter.push(text.into(), &mut drop).unwrap();
    assert!(meter.usage().is_none() && !meter.ended() && !meter.failed());
}
