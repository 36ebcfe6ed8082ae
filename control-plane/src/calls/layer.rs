//! Puts the watch before all services.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::{Layer, Service};

use super::{Calls, code_of};

/// Watches the calls of the service behind it.
#[derive(Clone)]
pub(crate) struct Watched(pub(crate) Arc<Calls>);

impl<S> Layer<S> for Watched {
    type Service = WatchedService<S>;

    fn layer(&self, inner: S) -> WatchedService<S> {
        WatchedService {
            calls: Arc::clone(&self.0),
            inner,
        }
    }
}

/// A service whose calls are watched.
#[derive(Clone)]
pub(crate) struct WatchedService<S> {
    calls: Arc<Calls>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for WatchedService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let parent = request.headers().get("traceparent");
        let begun = self
            .calls
            .begin(&path, parent.map(|value| value.as_bytes()));
        let (calls, answer) = (Arc::clone(&self.calls), self.inner.call(request));
        Box::pin(async move {
            let response = answer.await?;
            calls.end(begun, &path, code_of(response.headers()));
            Ok(response)
        })
    }
}
