//! What an edge must refuse that the HTTP library would pass (RFC 9110, RFC 9112), over raw sockets.

use std::time::Duration;

use proxyxai_data_plane::context::Settings;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

use crate::harness::{
    CHAT, COMPLETION, Setup, core, openai, openai_with, plain, post_as, read_answer, run, secret,
};

/// Each request, and the status of its answer.
const VECTORS: [(&str, &str, u16); 22] = [
    ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
    (
        "two hosts",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        400,
    ),
    ("bad host", "GET / HTTP/1.1\r\nHost: a/b?c\r\n\r\n", 400),
    ("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    (
        "another authority",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    (
        "the same authority",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        200,
    ),
    (
        "connect",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        400,
    ),
    ("lf only", "GET / HTTP/1.1\nHost: a\n\n", 400),
    ("one lf", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    (
        "two codings",
        "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "coding twice",
        "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "coding then length",
        "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "length then coding",
        "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "length twice",
        "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        400,
    ),
    (
        "lengths differ",
        "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        400,
    ),
    (
        "length as a list",
        "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\n{}",
        400,
    ),
    (
        "space before colon",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        400,
    ),
    (
        "folded line",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        400,
    ),
    (
        "upgrade",
        "GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        426,
    ),
    ("unknown path", "GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    (
        "wrong method",
        "DELETE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
        405,
    ),
];

#[test]
fn ambiguous_requests_are_refused() {
    run(|| async {
        let core = core(Setup::default()).await;
        for (name, request, status) in VECTORS {
            assert_eq!(core.send(request.as_bytes()).await.status, status, "{name}");
        }
    });
}

#[test]
fn chunked_bodies_and_expectations_are_served() {
    run(|| async {
        let (core, upstream) = openai(&["a"], vec![plain("200 OK", "", COMPLETION)]).await;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n",
            secret("root")
        );
        let (one, two) = CHAT.split_at(10);
        let chunked = format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
            one.len(),
            two.len()
        );
        assert_eq!(core.send(chunked.as_bytes()).await.status, 200);
        let mut client = core.connect().await;
        client
            .write_all(
                format!(
                    "{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
                    CHAT.len()
                )
                .as_bytes(),
            )
            .await
            .unwrap();
        let mut interim = [0; 25];
        client.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(CHAT.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut client).await.status, 200);
        for seen in upstream.seen() {
            assert_eq!(seen.body, CHAT.as_bytes());
            let head = seen.head.to_ascii_lowercase();
            assert!(
                !head.contains("expect") && !head.contains("transfer-encoding"),
                "{head}"
            );
        }
    });
}

#[test]
fn large_and_compressed_bodies_are_refused_so_that_the_client_can_read_it() {
    run(|| async {
        let settings = Settings {
            body_limit: 1 << 20,
            ..Settings::default()
        };
        let (core, upstream) =
            openai_with(&["a"], vec![plain("200 OK", "", COMPLETION)], settings).await;
        for _ in 0..3 {
            let mut client = core.connect().await;
            let request = post_as("root", "/v1/chat/completions", &"x".repeat((1 << 20) + 1));
            client.write_all(&request).await.unwrap();
            let answer = read_answer(&mut client).await;
            assert_eq!(
                (
                    answer.status,
                    answer.json()["error"]["code"].as_str().unwrap()
                ),
                (413, "request_too_large")
            );
        }
        let plain = String::from_utf8(post_as("root", "/v1/chat/completions", CHAT)).unwrap();
        let compressed = plain.replace("Content-Type:", "Content-Encoding: gzip\r\nContent-Type:");
        assert_eq!(core.send(compressed.as_bytes()).await.status, 415);
        assert!(upstream.seen().is_empty());
    });
}

/// Sends bytes, then nothing; how long until the gateway closes, and what it said.
async fn silence(core: &crate::harness::Core, bytes: &[u8]) -> (Duration, String) {
    let (mut client, begin) = (core.connect().await, Instant::now());
    client.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    timeout(Duration::from_secs(5), client.read_to_end(&mut said))
        .await
        .unwrap()
        .unwrap();
    (begin.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn silent_and_slow_clients_are_closed() {
    run(|| async {
        let settings = Settings {
            head_timeout: Duration::from_millis(300),
            ..Settings::default()
        };
        let (core, _upstream) =
            openai_with(&["a"], vec![plain("200 OK", "", COMPLETION)], settings).await;
        let whole = post_as("root", "/v1/chat/completions", CHAT);
        let without_end = whole.len() - 10;
        for (bytes, expected) in [
            (&b""[..], ""),
            (b"GET / HT", ""),
            (&whole[..without_end], "HTTP/1.1 4"),
        ] {
            let (took, said) = silence(&core, bytes).await;
            assert!(
                took >= Duration::from_millis(300) && took < Duration::from_secs(2),
                "{took:?} after {} bytes",
                bytes.len()
            );
            assert!(said.starts_with(expected), "{said}");
        }
        // Byte by byte, on a connection that has served already.
        let mut client = core.connect().await;
        client.write_all(&whole).await.unwrap();
        assert_eq!(read_answer(&mut client).await.status, 200);
        let begin = Instant::now();
        while client.write_all(b"G").await.is_ok() && begin.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(20)).await;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "{:?}",
            begin.elapsed()
        );
    });
}

#[test]
fn too_many_connections_are_turned_away_in_words() {
    run(|| async {
        let settings = Settings {
            max_connections: 2,
            ..Settings::default()
        };
        let (core, _upstream) =
            openai_with(&["a"], vec![plain("200 OK", "", COMPLETION)], settings).await;
        let (_one, _two) = (core.connect().await, core.connect().await);
        sleep(Duration::from_millis(50)).await;
        let answer = core.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(
            (answer.status, answer.header("retry-after").as_deref()),
            (503, Some("1"))
        );
    });
}

#[test]
fn overload_is_refused_early() {
    run(|| async {
        let settings = Settings {
            max_in_flight: 1,
            ..Settings::default()
        };
        let slow = vec![
            crate::harness::Step::Wait(Duration::from_millis(400)),
            plain("200 OK", "", COMPLETION).remove(0),
        ];
        let (core, upstream) = openai_with(&["a"], vec![slow], settings).await;
        let first = core.post("/v1/chat/completions", CHAT);
        let second = async {
            while upstream.seen().is_empty() {
                sleep(Duration::from_millis(2)).await;
            }
            core.post("/v1/chat/completions", CHAT).await
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!(
            (
                first.status,
                second.status,
                second.header("retry-after").as_deref()
            ),
            (200, 503, Some("1"))
        );
    });
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    run(|| async {
        let settings = Settings {
            idle_timeout: Duration::from_millis(300),
            ..Settings::default()
        };
        let event = format!("data: {}\n\n", "x".repeat(60_000));
        let parts: Vec<&str> = std::iter::repeat_n(event.as_str(), 400).collect();
        let (core, upstream) =
            openai_with(&["a"], vec![crate::harness::stream_open(&parts)], settings).await;
        let mut client = core.connect().await;
        client
            .write_all(&post_as(
                "root",
                "/v1/chat/completions",
                crate::harness::CHAT_STREAM,
            ))
            .await
            .unwrap();
        upstream.gone(1).await;
        assert!(core.events(1).await[0].client_gone);
    });
}
