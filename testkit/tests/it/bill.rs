//! The bill is true: what a provider would charge, whatever became of its answer, and it says of itself what the answer said.

use proxyxai_testkit::{BillRow, Simulator};
use serde_json::{Value, json};

use super::client::{Dialect, Reply, call, chat};

/// Input of the request below: 3, and a token for each four bytes of its texts.
const INPUT: u64 = 15;

/// The row and the answer of one chat.
async fn charge(dialect: Dialect, fault: Value, stream: bool) -> (Option<BillRow>, Reply) {
    let sim = Simulator::new();
    sim.script("*", [serde_json::from_value(fault).unwrap()]);
    let options = json!({ "stream": stream, "stream_options": { "include_usage": true } });
    let body = chat("tokens=6 cached=4 reasoning=2", options);
    let reply = call(&sim, dialect, dialect.path(), &body).await;
    let mut rows = sim.bill().rows;
    assert!(rows.len() <= 1, "one request, one charge: {rows:?}");
    (rows.pop(), reply)
}

#[tokio::test(start_paused = true)]
async fn a_charge_is_what_was_generated_and_says_whether_it_was_reported() {
    for dialect in Dialect::BOTH {
        for stream in [false, true] {
            // (fault, output, whole, usage sent); no charge when the output is none
            for (fault, charged) in [
                (json!({}), Some((8, true, true))),
                (json!({ "delay_ms": 9 }), Some((8, true, true))),
                (json!({ "no_usage": true }), Some((8, true, false))),
                (json!({ "status": 500 }), None),
                (json!({ "status": 429 }), None),
                (json!({ "close": true }), None),
            ] {
                let (row, reply) = charge(dialect, fault.clone(), stream).await;
                let context = format!("{dialect:?} {stream} {fault}: {row:?} {reply:?}");
                let found = row
                    .as_ref()
                    .map(|row| (row.output, row.whole, row.usage_sent));
                assert_eq!(found, charged, "{context}");
                let Some(row) = row else { continue };
                // OpenAI counts cached input within the input, Anthropic beside it.
                let input = if dialect == Dialect::Openai {
                    INPUT - 4
                } else {
                    INPUT
                };
                assert_eq!((row.input, row.cache_read), (input, 4), "{context}");
                assert_eq!(
                    (
                        row.upstream_key.as_str(),
                        row.model.as_str(),
                        row.tag.as_str()
                    ),
                    ("sk-1", "m", "t")
                );
                if row.usage_sent && !stream {
                    let usage = &reply.json()["usage"];
                    let said = match dialect {
                        Dialect::Openai => [&usage["prompt_tokens"], &usage["completion_tokens"]],
                        Dialect::Anthropic => [&usage["input_tokens"], &usage["output_tokens"]],
                    };
                    assert_eq!(said, [&json!(INPUT), &json!(8)], "{context}");
                }
            }
        }
        // What is cut or stalled costs what was generated until then, and the whole answer was not sent.
        for at in [1, 300, 900] {
            for fault in [json!({ "cut_at_byte": at }), json!({ "stall_at_byte": at })] {
                let (row, reply) = charge(dialect, fault.clone(), true).await;
                let row = row.unwrap();
                assert!(!row.whole && row.output <= 8, "{row:?} {reply:?}");
            }
        }
        // An error as the first event costs nothing; what is malformed was not reported.
        assert_eq!(
            charge(dialect, json!({ "first_event_error": true }), true)
                .await
                .0,
            None
        );
        for stream in [false, true] {
            let (row, _) = charge(dialect, json!({ "malformed": true }), stream).await;
            assert!(row.is_some_and(|row| !row.usage_sent));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_the_option_reports_nothing_and_costs_the_same() {
    let sim = Simulator::new();
    let body = chat("tokens=6", json!({ "stream": true }));
    let reply = call(&sim, Dialect::Openai, Dialect::Openai.path(), &body).await;
    assert!(!reply.body.contains("usage") && reply.body.ends_with("data: [DONE]\n\n"));
    let rows = sim.bill().rows;
    assert!(
        rows[0].whole && !rows[0].usage_sent && rows[0].output == 6,
        "{rows:?}"
    );
}
