//! Reading what a request asks for, and changing nothing but what must be changed.

use bytes::Bytes;
use proptest::prelude::*;
use proxyxai_core::dialect::{Endpoint, intent};
use serde_json::{Value, json};

/// What is read from a chat body, or why not.
fn check(body: &str, want: &str) {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let got = match intent::read(Endpoint::ChatCompletions, &body) {
        Ok(i) => format!(
            "{} stream={} cap={:?} n={} hides={}",
            i.model.as_str(),
            i.stream,
            i.output_cap,
            i.choices,
            i.hides_usage()
        ),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, want, "{body:?}");
}

#[test]
fn bodies_are_read_as_the_provider_reads_them() {
    check(
        r#"{"model":"m","messages":[]}"#,
        "m stream=false cap=None n=1 hides=false",
    );
    check(
        r#" { "messages" : [{"model":"x"}] , "model" : "m" , "stream" : true } "#,
        "m stream=true cap=None n=1 hides=true",
    );
    check(
        r#"{"\u006dodel":"a\"b","stream":false,"max_tokens":5,"n":3}"#,
        "a\"b stream=false cap=Some(5) n=3 hides=false",
    );
    check(
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        "m stream=true cap=None n=1 hides=false",
    );
    check(
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":false}}"#,
        "m stream=true cap=None n=1 hides=true",
    );
    check(
        r#"{"model":"m","max_tokens":5,"max_completion_tokens":7}"#,
        "m stream=false cap=Some(7) n=1 hides=false",
    );
    check(r#"{"messages":[]}"#, "you must provide a model parameter");
    check(
        r#"{"model":"m","model":"n"}"#,
        "the body has `model` twice; send it once",
    );
    check(
        r#"{"model":"m","m\u006fdel":"n"}"#,
        "the body has `model` twice; send it once",
    );
    check(
        r#"{"model":5}"#,
        "`model` must be a string of 1 to 256 bytes",
    );
    check(
        r#"{"model":""}"#,
        "`model` must be a string of 1 to 256 bytes",
    );
    check(
        r#"{"model":"m","stream":"yes"}"#,
        "`stream` must be true or false",
    );
    check(
        r#"{"model":"m","stream":true,"stream_options":5}"#,
        "`stream_options` must be an object",
    );
    check("", "the body is not a JSON object: no `{` at byte 0");
    check("[]", "the body is not a JSON object: no `{` at byte 0");
    check(
        r#"{"model":"m"} x"#,
        "the body is not a JSON object: something after the object at byte 14",
    );
    check(
        r#"{"model":"m","a":[1,2}"#,
        "the body is not a JSON object: brackets that do not fit at byte 21",
    );
    check(
        r#"{"model":"m""#,
        "the body is not a JSON object: neither `,` nor `}` after a value at byte 12",
    );
    check(
        &format!(
            r#"{{"model":"m","a":{}{}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        ),
        "the body is not a JSON object: nesting deeper than 128 at byte 145",
    );
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(\\PC|\"|\\\\|usage|model){0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(model|stream|usage|[a-z\"]{1,6})", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn asking_for_usage_changes_nothing_else(extra in values(), options in prop_oneof![Just(None), Just(Some(json!(null))), Just(Some(json!({}))), Just(Some(json!({"include_usage": false}))), Just(Some(json!({"include_usage": null, "x": [1]}))), Just(Some(json!({"include_obfuscation": true})))], pretty in any::<bool>()) {
        let mut body = json!({ "messages": extra, "model": "m", "stream": true });
        if let Some(options) = options {
            body["stream_options"] = options;
        }
        let text = if pretty { serde_json::to_vec_pretty(&body) } else { serde_json::to_vec(&body) }.unwrap();
        let bytes = Bytes::from(text);
        let intent = intent::read(Endpoint::ChatCompletions, &bytes).unwrap();
        prop_assert!(intent.hides_usage());
        let sent: Value = serde_json::from_slice(&intent.forward_body(&bytes, None)).unwrap();
        if !body["stream_options"].is_object() {
            body["stream_options"] = json!({});
        }
        body["stream_options"]["include_usage"] = json!(true);
        prop_assert_eq!(sent, body);
    }

    #[test]
    fn another_name_of_the_model_changes_nothing_else(extra in values(), asked in "\\PC{1,12}", sent in "\\PC{1,12}", stream in any::<bool>(), pretty in any::<bool>(), last in any::<bool>()) {
        let mut body = json!({ "messages": extra, "stream": stream });
        // Keys are written in their order: before and after all others.
        body[if last { "zz" } else { "a" }] = json!({ "model": "deeper" });
        body["model"] = json!(asked);
        let text = if pretty { serde_json::to_vec_pretty(&body) } else { serde_json::to_vec(&body) }.unwrap();
        let bytes = Bytes::from(text);
        let intent = intent::read(Endpoint::ChatCompletions, &bytes).unwrap();
        let same = intent.forward_body(&bytes, Some(&asked));
        prop_assert_eq!(same.as_ptr() == bytes.as_ptr(), !stream, "nothing to change, nothing copied");
        let forwarded: Value = serde_json::from_slice(&intent.forward_body(&bytes, Some(&sent))).unwrap();
        body["model"] = json!(sent);
        if stream {
            body["stream_options"] = json!({ "include_usage": true });
        }
        prop_assert_eq!(forwarded, body);
    }

    #[test]
    fn an_untouched_body_is_the_same_bytes(extra in values()) {
        let bytes = Bytes::from(json!({ "x": extra, "model": "m" }).to_string());
        let intent = intent::read(Endpoint::Embeddings, &bytes).unwrap();
        let sent = intent.forward_body(&bytes, None);
        prop_assert_eq!(sent.as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn reading_never_breaks(text in "[{}\\[\\]\",:\\\\a-e0-2 ]{0,40}") {
        let _ = intent::read(Endpoint::ChatCompletions, &Bytes::from(text));
    }
}

#[test]
fn requests_for_responses_are_read_with_what_they_go_on_from() {
    let check = |more: &str, want: &str| {
        let body = Bytes::from(format!(r#"{{"model":"m"{more}}}"#));
        let got = match intent::read(Endpoint::Responses, &body) {
            Ok(i) => {
                let same = i.forward_body(&body, None) == body;
                format!(
                    "{} {:?} {:?} {:?} {} {same}",
                    i.stream,
                    i.output_cap,
                    i.service_tier,
                    i.state,
                    i.hides_usage()
                )
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(got, want, "{more}");
    };
    check("", "false None None None false true");
    check(
        r#","input":"a \"file_id\"","stream":true,"max_output_tokens":7,"service_tier":"flex","store":false"#,
        "true Some(7) Some(\"flex\") None false true",
    );
    check(
        r#","previous_response_id":"resp_1","conversation":null"#,
        "false None None Response(\"resp_1\") false true",
    );
    check(
        r#","previous_response_id":null,"background":false"#,
        "false None None None false true",
    );
    for other in [
        r#","conversation":"conv_1""#,
        r#","conversation":{"id":"conv_1"}"#,
        r#","input":[{"type":"item_reference","id":"x"}]"#,
        r#","input":[{"type":"reasoning","encrypted_content":"…"}]"#,
        r#","input":[{"content":[{"type":"input_file","file_id":"f"}]}]"#,
        r#","previous_response_id":7"#,
    ] {
        check(other, "false None None Other false true");
    }
    check(
        r#","previous_response_id":"a","previous_response_\u0069d":"b""#,
        "the body has `previous_response_id` twice; send it once",
    );
    check(
        r#","background":true"#,
        "`background` responses are not passed on, as what they end with could not be fetched here; send the request without it, and with `stream` if it takes long",
    );
    check(r#","stream":1"#, "`stream` must be true or false");
    let body = Bytes::from(r#"{"input":"x"}"#);
    assert!(intent::read(Endpoint::Responses, &body).is_err());
}
