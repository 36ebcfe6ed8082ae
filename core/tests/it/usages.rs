//! Usage of whole answers, in one form whoever wrote it.

use proxyxai_core::dialect::{Endpoint, usage::usage_of_answer};

/// Input, cache read, written for 5 minutes and 1 hour, output, searches, tier.
fn check(endpoint: Endpoint, body: &str, want: &str) {
    let got = usage_of_answer(endpoint, body.as_bytes()).map(|usage| {
        let t = usage.tokens;
        format!(
            "{} {} {} {} {} {} {:?}",
            t.input,
            t.cache_read,
            t.cache_write_5m,
            t.cache_write_1h,
            t.output,
            usage.web_searches,
            usage.tier
        )
    });
    assert_eq!(got.as_deref().unwrap_or("none"), want, "{body}");
}

#[test]
fn openai_counts_the_cache_inside_the_prompt() {
    let chat = Endpoint::ChatCompletions;
    check(
        chat,
        r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#,
        "10 0 0 0 5 0 None",
    );
    check(
        chat,
        r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3}}}"#,
        "3 4 3 0 5 0 None",
    );
    check(
        chat,
        r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":null,"completion_tokens_details":null}}"#,
        "10 0 0 0 5 0 None",
    );
    check(
        chat,
        r#"{"usage":{"prompt_tokens":10.0,"completion_tokens":null}}"#,
        "10 0 0 0 0 0 None",
    );
    check(
        chat,
        r#"{"usage":{"prompt_tokens":10,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":4,"completion_tokens":1}}"#,
        "4 6 0 0 1 0 None",
    );
    // xAI keeps reasoning out of the completion, and shows it by the total.
    check(
        chat,
        r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":22,"completion_tokens_details":{"reasoning_tokens":7}}}"#,
        "10 0 0 0 12 0 None",
    );
    check(
        chat,
        r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"completion_tokens_details":{"reasoning_tokens":3}}}"#,
        "10 0 0 0 5 0 None",
    );
    check(
        chat,
        r#"{"service_tier":"flex","usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
        "1 0 0 0 1 0 Some(\"flex\")",
    );
    check(
        chat,
        r#"{"service_tier":"default","usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
        "1 0 0 0 1 0 None",
    );
    check(
        Endpoint::Embeddings,
        r#"{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
        "8 0 0 0 0 0 None",
    );
}

#[test]
fn decoys_are_no_usage() {
    let chat = Endpoint::ChatCompletions;
    check(
        chat,
        r#"{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":99}"}}]}"#,
        "none",
    );
    check(
        chat,
        r#"{"choices":[{"usage":{"prompt_tokens":99}}],"usage":{"prompt_tokens":1}}"#,
        "1 0 0 0 0 0 None",
    );
    check(
        chat,
        r#"{"usage":{"prompt_tokens":1},"x":{"usage":{"prompt_tokens":99}}}"#,
        "1 0 0 0 0 0 None",
    );
    for broken in [
        "",
        "{",
        "null",
        r#"{"usage":null}"#,
        r#"{"usage":{"prompt_tokens":-1}}"#,
        r#"{"usage":{"prompt_tokens":1}"#,
        r#"{"usage":[]}"#,
    ] {
        check(chat, broken, "none");
    }
}

#[test]
fn anthropic_counts_the_cache_beside_the_input() {
    let messages = Endpoint::Messages;
    check(
        messages,
        r#"{"usage":{"input_tokens":10,"output_tokens":5}}"#,
        "10 0 0 0 5 0 None",
    );
    check(
        messages,
        r#"{"usage":{"input_tokens":10,"cache_creation_input_tokens":7,"cache_read_input_tokens":3,"cache_creation":{"ephemeral_5m_input_tokens":5,"ephemeral_1h_input_tokens":2},"output_tokens":5,"server_tool_use":{"web_search_requests":2},"service_tier":"standard"}}"#,
        "10 3 5 2 5 2 None",
    );
    check(
        messages,
        r#"{"usage":{"input_tokens":1,"output_tokens":1,"speed":"fast","service_tier":"standard"}}"#,
        "1 0 0 0 1 0 Some(\"fast\")",
    );
}

#[test]
fn responses_count_the_cache_inside_the_input() {
    let responses = Endpoint::Responses;
    check(
        responses,
        r#"{"id":"r","usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":15},"service_tier":"priority","tool_usage":{"web_search":{"num_requests":2}}}"#,
        "3 4 3 0 5 2 Some(\"priority\")",
    );
    check(
        responses,
        r#"{"usage":{"input_tokens":10,"input_tokens_details":null,"output_tokens":null},"service_tier":null,"tool_usage":null}"#,
        "10 0 0 0 0 0 None",
    );
    for none in [
        r#"{"usage":null}"#,
        r#"{"usage":{}}"#,
        r#"{"output":[{"usage":{"input_tokens":9}}]}"#,
        r#"{"usage":{"input_tokens":1}"#,
        "",
    ] {
        check(responses, none, "none");
    }
    check(Endpoint::CountTokens, r#"{"input_tokens":9}"#, "none");
}
