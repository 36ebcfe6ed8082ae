//! Lists models: asks each provider that speaks the dialect once, joins what they say, and leaves out what the caller may not use.

use std::{cell::Cell, collections::BTreeSet, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, header, request::Parts, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Limited};
use proxyxai_core::{
    dialect::{Dialect, Endpoint},
    route::pool::{Pool, PoolIndex},
};
use serde_json::{Value, json};

use crate::{
    attempt::{self, Answer, Call, Coming},
    config::Pinned,
    context::Context,
    made::Servers,
    meter::{Caller, Facts},
    relay::AnswerBody,
    request::{Asked, Bounds, relay},
    respond::Failure,
    timers::within,
};

const PATH: &str = "/v1/models";
/// Largest list of one provider.
const LIST_BYTES: usize = 8 << 20;

/// Answers a request for all models, or for one.
pub(crate) async fn answer(
    cx: &Rc<Context>,
    pinned: Arc<Pinned>,
    caller: Caller,
    head: Parts,
    asked: &Asked,
    bounds: Bounds,
) -> Result<Response<AnswerBody>, Failure> {
    let dialect = asked.dialect;
    let one = head
        .uri
        .path()
        .trim_end_matches('/')
        .strip_prefix(PATH)
        .and_then(|rest| rest.strip_prefix('/'))
        .map(str::to_owned);
    let mapped_model = one
        .as_deref()
        .and_then(|model| pinned.snapshot.mapped(dialect, model));
    let path = match &mapped_model {
        Some(model) => PathAndQuery::try_from(format!("{PATH}/{}", in_path(model))).ok(),
        None => head.uri.path_and_query().cloned(),
    };
    let facts = Arc::new(Facts {
        request_id: asked.request_id.get(),
        account: caller.account(),
        key: caller.key.record.id,
        prices: Arc::clone(&pinned.snapshot.prices),
        endpoint: Endpoint::Models,
        model: one.clone().unwrap_or_default(),
        mapped_model,
        stream: false,
    });
    if let Some(trace) = &asked.trace {
        trace.planned(cx, &facts);
    }
    let call = Call {
        facts,
        trace: asked.trace.clone(),
        pinned,
        caller,
        dialect,
        method: head.method,
        path: path.unwrap_or(PathAndQuery::from_static(PATH)),
        headers: head.headers,
        body: Bytes::new(),
        hides_usage: false,
        deadline: cx.timers.deadline(bounds.time),
        bounds,
        servers: Servers::Any,
        used: Cell::new(0),
    };
    let answer = match one {
        Some(model) => retrieve(cx, &call, &model).await,
        None => list(cx, &call).await,
    };
    asked.used.set(call.used.get());
    answer
}

async fn retrieve(
    cx: &Rc<Context>,
    call: &Call,
    model: &str,
) -> Result<Response<AnswerBody>, Failure> {
    if call.caller.may_use(model).is_err() {
        return Err(Failure::NoSuchModel(model.to_owned()));
    }
    let (index, pool) = usable(call, Some(model))?;
    if !pool.serves(call.facts.sent_model()) {
        return Err(Failure::NoSuchModel(model.to_owned()));
    }
    Ok(relay(
        cx,
        call,
        attempt::run(cx, call, (index, pool)).await?,
    ))
}

async fn list(cx: &Rc<Context>, call: &Call) -> Result<Response<AnswerBody>, Failure> {
    let (index, pool) = usable(call, None)?;
    let snapshot = &call.pinned.snapshot;
    let provider_of = |key| {
        snapshot
            .upstream_keys
            .get::<usize>(key)
            .map(|key| key.provider.0)
    };
    let providers: BTreeSet<usize> = pool.keys().filter_map(|key| provider_of(key.0)).collect();
    let several = providers.len() > 1;
    let (mut models, mut failure) = (Vec::new(), None);
    for provider in providers {
        let own = pool.only(|key| provider_of(key.0) == Some(provider));
        match attempt::run(cx, call, (index, &own)).await {
            Ok(Answer::Coming(coming)) if coming.head.status == http::StatusCode::OK => {
                match read(cx, call, coming).await {
                    Some(found) => models.extend(found),
                    None => {
                        failure = Some(Failure::UpstreamFailed {
                            attempts: 1,
                            provider: String::new(),
                            last: "its list of models cannot be read".to_owned(),
                            timed_out: false,
                            spent: false,
                        })
                    }
                }
            }
            Ok(other) if !several => return Ok(relay(cx, call, other)),
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(failure) if models.is_empty() => Err(failure),
        _ => Ok(write(call, models)),
    }
}

/// A name of a model as a part of a path.
fn in_path(model: &str) -> String {
    let mut path = String::with_capacity(model.len());
    for byte in model.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                path.push(char::from(byte));
            }
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path
}

/// The pool that is asked.
fn usable<'a>(call: &'a Call, model: Option<&str>) -> Result<(PoolIndex, &'a Pool), Failure> {
    let found = call
        .pinned
        .snapshot
        .pool(call.dialect, model)
        .filter(|(_, pool)| pool.serves(None));
    found.ok_or_else(|| Failure::NoUpstream {
        what: format!("the dialect {}", call.dialect.as_str()),
    })
}

async fn read(cx: &Rc<Context>, call: &Call, coming: Coming) -> Option<Vec<Value>> {
    let Coming {
        body, mut meter, ..
    } = coming;
    let body = Limited::new(body, LIST_BYTES).collect();
    let whole = within(&cx.timers, cx.timers.until(call.deadline), body)
        .await
        .and_then(Result::ok);
    let Some(whole) = whole else {
        meter.settle_unknown("upstream_cut");
        return None;
    };
    meter.settle_free();
    let mut list: Value = serde_json::from_slice(&whole.to_bytes()).ok()?;
    list.get_mut("data")?.as_array_mut().map(std::mem::take)
}

/// The list in the shape of the dialect, each model once, and only such as the caller may use.
fn write(call: &Call, models: Vec<Value>) -> Response<AnswerBody> {
    let caller = &call.caller;
    let mut seen = BTreeSet::new();
    let data: Vec<Value> = models
        .into_iter()
        .filter(|model| {
            let id = model.get("id").and_then(Value::as_str).unwrap_or_default();
            !id.is_empty() && seen.insert(id.to_owned()) && caller.may_use(id).is_ok()
        })
        .collect();
    let id = |model: Option<&Value>| {
        model
            .and_then(|model| model.get("id"))
            .cloned()
            .unwrap_or(Value::Null)
    };
    let list = match call.dialect {
        Dialect::OpenaiChat | Dialect::OpenaiResponses => json!({ "object": "list", "data": data }),
        Dialect::AnthropicMessages => {
            json!({ "first_id": id(data.first()), "last_id": id(data.last()), "has_more": false, "data": data })
        }
    };
    let mut response = Response::new(AnswerBody::whole(list.to_string().into()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
