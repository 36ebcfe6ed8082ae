//! May it be tried again, and what is answered when nothing is left.

use proxyxai_core::route::retry::{
    AttemptEnd::{self, ConnectFailed, ConnectionLost, FirstEventError, Status, TimedOut},
    REASONS, Verdict, judge, when_none_left,
};

fn check(end: AttemptEnd, want: &str) {
    let got = match judge(end) {
        Verdict::Return => "return".to_owned(),
        Verdict::TryNext { why } => {
            assert!(REASONS.contains(&why), "{why} is no word of the vocabulary");
            format!("next {why}")
        }
    };
    assert_eq!(got, want, "{end:?}");
}

#[test]
fn what_another_key_may_mend_is_tried_again() {
    check(ConnectFailed, "next connect_failed");
    check(TimedOut, "next timed_out");
    check(ConnectionLost, "next connection_lost");
    check(Status(401), "next key_refused");
    check(Status(402), "next payment_required");
    check(Status(403), "next key_forbidden");
    check(Status(429), "next rate_limited");
    for status in [500, 502, 503, 504, 520, 529, 599] {
        check(Status(status), "next provider_error");
        check(FirstEventError(status), "next error_event");
    }
    check(FirstEventError(429), "next error_event");
    for status in [200, 204, 301, 400, 404, 405, 408, 409, 413, 415, 422] {
        check(Status(status), "return");
    }
    check(FirstEventError(400), "return");
}

fn check_none_left(ends: &[AttemptEnd], want: &str) {
    assert_eq!(format!("{:?}", when_none_left(ends)), want, "{ends:?}");
}

#[test]
fn the_answer_when_none_is_left_says_most() {
    check_none_left(
        &[Status(429), Status(500), Status(401)],
        "RateLimited { attempt: 0 }",
    );
    check_none_left(&[Status(429), Status(429)], "RateLimited { attempt: 1 }");
    check_none_left(
        &[Status(403), Status(401), Status(500)],
        "KeyRefused { attempt: 1 }",
    );
    check_none_left(&[Status(500), TimedOut], "Failed { timed_out: true }");
    check_none_left(&[TimedOut, ConnectFailed], "Failed { timed_out: false }");
    check_none_left(&[], "Failed { timed_out: false }");
}
