//! The check before every call: what it needs, who calls, and whether that fits. A call that passes has its [`Caller`] in the request.
//!
//! Invariant: a call without an entry in the table of permissions is refused to everybody. What an object's account must be is asked by
//! the handlers, with the same `core` code.

mod credentials;
mod table;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, header};
use proxyxai_core::access::{Caller, Permission, may_call};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

pub(crate) use credentials::{Credentials, ProcessCredential};

use crate::{config_store::ConfigStore, join::Door, status::Fault, tls::Peer};

/// Who calls; for handlers.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Fault> {
    let caller = request.extensions().get::<Caller>();
    caller
        .cloned()
        .ok_or_else(|| Fault::Defect("a call came in without a caller".to_owned()))
}

/// Whether a caller may make the call behind a path, whatever it is about.
pub(crate) fn may_make(caller: &Caller, path: &str) -> Result<(), Fault> {
    let (_, permission) =
        table::find(path).ok_or_else(|| Fault::Defect(format!("there is no call {path}")))?;
    may_call(caller, permission).map_err(Fault::Denied)
}

/// Name of the call behind a path, if there is one.
pub(crate) fn name_of(path: &str) -> Option<&'static str> {
    table::find(path).map(|(name, _)| name)
}

/// Lets calls in, or says why not.
pub(crate) struct Gate {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) door: Arc<Door>,
}

impl Gate {
    /// The caller, if the call may be made at all; `None` when anybody may.
    async fn admit(
        &self,
        path: &str,
        node: Option<&str>,
        bearer: Option<&str>,
    ) -> Result<Option<Caller>, Status> {
        let Some((name, permission)) = table::find(path) else {
            return Err(Status::unimplemented("there is no such call here"));
        };
        if permission == Permission::Public {
            return Ok(None);
        }
        // A node's certificate says who it is; a credential that is shown besides is that of somebody who administers from there.
        let caller = match (node, bearer) {
            (Some(node), None) => self.door.caller(node).await?,
            (_, bearer) => {
                let state = self.config.state();
                self.credentials.identify(bearer, &state).await?
            }
        };
        if let Err(refusal) = may_call(&caller, permission) {
            if permission.changes() {
                self.config.note_denied(&caller, name).await;
            }
            return Err(Fault::Denied(refusal).into());
        }
        Ok(Some(caller))
    }
}

/// Puts the gate before a service.
#[derive(Clone)]
pub(crate) struct Guard(pub(crate) Arc<Gate>);

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            gate: Arc::clone(&self.0),
            inner,
        }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The service that was found ready is the one that is called.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let given = request.headers().get(header::AUTHORIZATION);
            let bearer = given
                .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
                .map(str::to_owned);
            let peer = request.extensions().get::<Peer>();
            let node = peer.and_then(|peer| peer.node.clone());
            match gate.admit(&path, node.as_deref(), bearer.as_deref()).await {
                Ok(caller) => {
                    request.extensions_mut().extend(with(caller));
                    ready.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

fn with(caller: Option<Caller>) -> http::Extensions {
    let mut extensions = http::Extensions::new();
    if let Some(caller) = caller {
        extensions.insert(caller);
    }
    extensions
}
