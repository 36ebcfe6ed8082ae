//! A node that is cordoned and drained while clients use it: its probe, its connections, its streams.

use std::time::Duration;

use proxyxai_proto::config::v1::Schedule;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::harness::{
    CHAT, CHAT_STREAM, COMPLETION, PATIENCE, Step, openai, plain, post_as, read_answer, run,
    stream_open,
};

fn good() -> Vec<Step> {
    plain("200 OK", "", COMPLETION)
}

#[test]
fn a_cordoned_node_is_not_ready_and_serves_as_ever() {
    run(|| async {
        let (core, _upstream) = openai(&["a"], vec![good(), good(), good()]).await;
        assert!(core.handle.is_ready());
        core.want(Schedule::Cordon).await;
        assert!(!core.handle.is_ready() && core.handle.can_serve());
        assert_eq!(core.metric("xai_node_schedule{schedule=\"cordoned\"}"), 1);
        let mut client = core.connect().await;
        for _ in 0..2 {
            let request = post_as("root", "/v1/chat/completions", CHAT);
            client.write_all(&request).await.unwrap();
            let answer = read_answer(&mut client).await;
            assert_eq!((answer.status, answer.header("connection")), (200, None));
        }
        core.want(Schedule::Serve).await;
        assert!(core.handle.is_ready());
        assert_eq!(core.post("/v1/chat/completions", CHAT).await.status, 200);
    });
}

#[test]
fn a_drained_node_ends_connections_but_no_request() {
    run(|| async {
        let open = stream_open(&["data: {\"choices\":[]}\n\n"]);
        let rest = "data: [DONE]\n\n";
        let rest = format!("{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len()).into_bytes();
        let wait = Step::Wait(Duration::from_millis(700));
        let long = [open, vec![wait, Step::Bytes(rest)]].concat();
        let (core, _upstream) = openai(&["a"], vec![good(), long, good(), good()]).await;
        let mut idle = core.connect().await;
        let request = post_as("root", "/v1/chat/completions", CHAT);
        idle.write_all(&request).await.unwrap();
        assert_eq!(read_answer(&mut idle).await.status, 200);
        let mut busy = core.connect().await;
        let asked = post_as("root", "/v1/chat/completions", CHAT_STREAM);
        busy.write_all(&asked).await.unwrap();
        let mut streamed = Vec::new();
        busy.read_buf(&mut streamed).await.unwrap();
        let said = core.want(Schedule::Drain).await;
        assert_eq!(said.open_requests, 1, "{said:?}");
        assert_eq!(core.handle.open_requests(), 1);
        assert!(!core.handle.is_ready());
        // One that waits for its next request closes at once.
        let end = timeout(PATIENCE, idle.read_u8()).await.unwrap();
        assert!(end.is_err(), "the connection is over");
        // What comes all the same is served, and its connection closes.
        let late = core.post("/v1/chat/completions", CHAT).await;
        assert_eq!(
            (late.status, late.header("connection").as_deref()),
            (200, Some("close"))
        );
        // The stream ends as it should, and then its connection.
        timeout(PATIENCE, busy.read_to_end(&mut streamed))
            .await
            .unwrap()
            .unwrap();
        assert!(streamed.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"));
        core.events(3).await;
        let said = core.says(|vitals| vitals.open_requests == 0 && vitals.unreported_events == 0);
        assert_eq!(said.await.unreported_starts, 0);
        core.want(Schedule::Serve).await;
        let mut client = core.connect().await;
        client.write_all(&request).await.unwrap();
        let answer = read_answer(&mut client).await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    });
}

#[test]
fn a_node_that_was_told_to_stop_is_not_ready_and_still_takes_connections() {
    run(|| async {
        let (core, _upstream) = openai(&["a"], vec![good(), good()]).await;
        core.want(Schedule::Serve).await;
        core.handle.leave();
        assert!(!core.handle.is_ready() && core.handle.can_serve());
        for _ in 0..2 {
            let answer = core.post("/v1/chat/completions", CHAT).await;
            let connection = answer.header("connection");
            assert_eq!((answer.status, connection.as_deref()), (200, Some("close")));
        }
        core.handle.drain();
        timeout(PATIENCE, core.done)
            .await
            .expect("the core ends")
            .unwrap();
    });
}
