//! Steers the simulated providers over HTTP, for tests in other languages: `/_sim/script`, `/_sim/chaos`, `/_sim/bill`, `/_sim/requests`,
//! `/_sim/reset`.

use std::sync::Arc;

use http::Response;
use serde::Deserialize;
use serde_json::json;

use crate::{
    answer::SimBody,
    fault::{Chaos, Fault, Script},
    sim::{State, json as answer_json},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    key: String,
    faults: Vec<Fault>,
}

/// Answers a request to steer.
pub(crate) fn answer(state: &Arc<State>, path: &str, body: &[u8]) -> Response<SimBody> {
    let result = match path {
        "/_sim/script" => serde_json::from_slice::<Push>(body).map(|push| {
            state.lock().script.push(&push.key, push.faults);
            json!({})
        }),
        "/_sim/chaos" => serde_json::from_slice::<Chaos>(body).map(|chaos| {
            state.lock().script.set_chaos(chaos);
            json!({})
        }),
        "/_sim/bill" => serde_json::to_value(&state.lock().bill),
        "/_sim/requests" => {
            let inner = state.lock();
            serde_json::to_value(&inner.seen)
                .map(|requests| json!({ "count": inner.count, "requests": requests }))
        }
        "/_sim/reset" => {
            let mut inner = state.lock();
            inner.script = Script::default();
            inner.bill = Default::default();
            inner.seen.clear();
            inner.tagged.clear();
            inner.count = 0;
            Ok(json!({}))
        }
        _ => return answer_json(404, SimBody::free("{}")),
    };
    match result {
        Ok(value) => answer_json(200, SimBody::free(value.to_string())),
        Err(error) => answer_json(
            400,
            SimBody::free(json!({ "error": error.to_string() }).to_string()),
        ),
    }
}
