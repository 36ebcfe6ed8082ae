//! Which failures are tried again, what the client gets when nothing is left, and what is booked for each attempt.

use std::time::Duration;

use proxyxai_data_plane::context::Settings;
use proxyxai_proto::usage::v1::Outcome;

use crate::harness::{
    CHAT, CHAT_STREAM, COMPLETION, Step, openai, openai_with, plain, run, stream, stream_open,
};

fn good() -> Vec<Step> {
    plain("200 OK", "", COMPLETION)
}

fn error(status: &str) -> Vec<Step> {
    plain(
        status,
        "retry-after: 7\r\nx-ratelimit-limit-requests: 3\r\n",
        "{\"error\":{\"message\":\"no\"}}",
    )
}

const ERROR_EVENT: &str = "data: {\"error\":{\"message\":\"busy\",\"type\":\"rate_limit_error\",\"code\":null,\"param\":null}}\n\n";
const BAD_EVENT: &str = "data: {\"error\":{\"message\":\"long\",\"type\":\"invalid_request_error\",\"code\":\"context_length_exceeded\",\"param\":null}}\n\n";

/// One request through scripts, one per attempt; then the status and, per attempt, outcome and reason.
fn check(
    keys: &[&str],
    body: &'static str,
    scripts: Vec<Vec<Step>>,
    status: u16,
    attempts: &[(Outcome, &str)],
) {
    run(|| async {
        let settings = Settings {
            first_byte_timeout: Duration::from_millis(300),
            ..Settings::default()
        };
        let (core, upstream) = openai_with(keys, scripts, settings).await;
        let answer = core.post("/v1/chat/completions", body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        let events = core.events(attempts.len()).await;
        let got: Vec<_> = events
            .iter()
            .map(|e| (e.outcome(), e.reason.as_str()))
            .collect();
        assert_eq!(got, attempts);
        for (event, number) in events.iter().zip(1..) {
            assert_eq!(
                (event.attempt, &event.request_id),
                (number, &events[0].request_id)
            );
            assert_eq!(event.estimated, event.outcome() == Outcome::Unknown);
        }
        let retried =
            attempts.len() > 1 && status >= 400 && answer.header("x-should-retry").is_none();
        assert!(
            !retried,
            "the client is told not to multiply what was tried"
        );
        assert!(upstream.seen().len() <= 3, "law 16");
    });
}

#[test]
fn law_16_what_may_differ_elsewhere_is_tried_elsewhere() {
    use Outcome::{Rejected, Reported, Unknown};
    for (status, why) in [
        ("500 Oops", "provider_error"),
        ("529 Busy", "provider_error"),
        ("401 No", "key_refused"),
        ("402 Pay", "payment_required"),
        ("403 No", "key_forbidden"),
        ("429 Slow", "rate_limited"),
    ] {
        check(
            &["a", "b"],
            CHAT,
            vec![error(status), good()],
            200,
            &[(Rejected, why), (Reported, "ok")],
        );
    }
    check(
        &["a", "b"],
        CHAT,
        vec![vec![Step::Cut], good()],
        200,
        &[(Unknown, "connection_lost"), (Reported, "ok")],
    );
    check(
        &["a", "b"],
        CHAT,
        vec![vec![Step::Hang], good()],
        200,
        &[(Unknown, "timed_out"), (Reported, "ok")],
    );
    let ok = stream(&[
        "data: {\"choices\":[{\"delta\":{}}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n",
        "data: [DONE]\n\n",
    ]);
    check(
        &["a", "b"],
        CHAT_STREAM,
        vec![stream(&[": ping\n\n", ERROR_EVENT]), ok.clone()],
        200,
        &[(Rejected, "error_event"), (Reported, "ok")],
    );
    // A head alone is no answer yet: what comes no further in time is tried elsewhere.
    check(
        &["a", "b"],
        CHAT_STREAM,
        vec![
            [stream_open(&[": ping\n\n"]), vec![Step::Hang]].concat(),
            ok.clone(),
        ],
        200,
        &[(Unknown, "timed_out"), (Reported, "ok")],
    );
    let cut = [
        stream_open(&[": ping\n\n"]),
        vec![Step::Wait(Duration::from_millis(20)), Step::Cut],
    ]
    .concat();
    check(
        &["a", "b"],
        CHAT_STREAM,
        vec![cut, ok],
        200,
        &[(Unknown, "connection_lost"), (Reported, "ok")],
    );
}

#[test]
fn law_16_three_attempts_at_most() {
    use Outcome::Rejected;
    check(
        &["a", "b", "c", "d"],
        CHAT,
        vec![error("500 Oops")],
        502,
        &[(Rejected, "provider_error"); 3],
    );
}

#[test]
fn errors_of_the_request_come_back_unchanged() {
    for status in [400, 404, 409, 413, 422] {
        run(|| async move {
            let (core, _upstream) = openai(&["a", "b"], vec![error(&format!("{status} No"))]).await;
            let answer = core.post("/v1/chat/completions", CHAT).await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (status, "{\"error\":{\"message\":\"no\"}}")
            );
            assert_eq!(answer.header("x-ratelimit-limit-requests"), None);
            assert_eq!(core.events(1).await[0].outcome(), Outcome::Rejected);
        });
    }
    check(
        &["a", "b"],
        CHAT_STREAM,
        vec![stream(&[BAD_EVENT])],
        400,
        &[(Outcome::Rejected, "rejected")],
    );
}

#[test]
fn the_last_refusal_tells_what_to_do() {
    run(|| async {
        let (core, _upstream) =
            openai(&["a", "b"], vec![error("429 Slow"), error("500 Oops")]).await;
        let answer = core.post("/v1/chat/completions", CHAT).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (429, "{\"error\":{\"message\":\"no\"}}")
        );
        assert_eq!(answer.header("retry-after").as_deref(), Some("7"));
        assert_eq!(
            answer.header("x-ratelimit-limit-requests").as_deref(),
            Some("3")
        );
        assert_eq!(answer.header("x-should-retry").as_deref(), Some("false"));
    });
    run(|| async {
        let (core, _upstream) = openai(&["bad-key"], vec![error("401 No")]).await;
        let answer = core.post("/v1/chat/completions", CHAT).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (502, Some("upstream_key_refused"))
        );
        assert!(
            answer.text().contains("bad-key") && !answer.text().contains("sk-bad-key"),
            "law 21: {}",
            answer.text()
        );
    });
    run(|| async {
        let (core, _upstream) = openai(&["a"], vec![error("503 Oops")]).await;
        let answer = core.post("/v1/chat/completions", CHAT).await;
        assert_eq!(
            (answer.status, answer.header("x-should-retry")),
            (502, None),
            "nothing was retried here"
        );
    });
}

#[test]
fn an_answer_that_never_comes_is_a_504() {
    check(
        &["a"],
        CHAT,
        vec![vec![Step::Hang]],
        504,
        &[(Outcome::Unknown, "timed_out")],
    );
}

#[test]
fn a_connection_that_died_idle_is_dialled_again_without_counting() {
    run(|| async {
        let close_after = [
            good(),
            vec![Step::Wait(Duration::from_millis(10)), Step::Cut],
        ]
        .concat();
        let (core, upstream) = openai(&["a"], vec![close_after, good()]).await;
        for _ in 0..2 {
            assert_eq!(core.post("/v1/chat/completions", CHAT).await.status, 200);
            upstream.gone(1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let events = core.events(2).await;
        assert!(events.iter().all(|event| event.attempt == 1));
    });
}

#[test]
fn the_connection_of_a_discarded_answer_is_used_again() {
    run(|| async {
        let (core, upstream) = openai(&["a", "b"], vec![error("500 Oops"), good()]).await;
        assert_eq!(core.post("/v1/chat/completions", CHAT).await.status, 200);
        assert!(upstream.seen().iter().all(|seen| seen.connection == 0));
    });
}
