//! Who may call what: one table of services and roles, and the check before every call.
//!
//! Invariant: a service without an entry is refused to everybody; a test fails on one.

use http::{HeaderMap, Request, Response};
use proxyxai_core::secret::{ExposeSecret as _, SecretString};
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use subtle::ConstantTimeEq as _;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

/// What a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Admin,
    Node,
}

/// Who may call the methods of a service.
const TABLE: [(&str, &[Role]); 14] = [
    ("proxyxai.admin.v1.AccountService", &[Role::Admin]),
    ("proxyxai.admin.v1.KeyService", &[Role::Admin]),
    ("proxyxai.admin.v1.ProviderService", &[Role::Admin]),
    ("proxyxai.admin.v1.UpstreamKeyService", &[Role::Admin]),
    ("proxyxai.admin.v1.RouteService", &[Role::Admin]),
    ("proxyxai.admin.v1.UsageQueryService", &[Role::Admin]),
    ("proxyxai.admin.v1.SecretService", &[Role::Admin]),
    ("proxyxai.admin.v1.BackupService", &[Role::Admin]),
    ("proxyxai.admin.v1.NodeService", &[Role::Admin]),
    ("proxyxai.config.v1.ConfigService", &[Role::Node]),
    ("proxyxai.usage.v1.UsageService", &[Role::Node]),
    // Health and the schema hold nothing of a deployment: an empty list means that anybody may ask.
    ("grpc.health.v1.Health", &[]),
    ("grpc.reflection.v1.ServerReflection", &[]),
    ("grpc.reflection.v1alpha.ServerReflection", &[]),
];

/// The credentials of a deployment.
pub(crate) struct Credentials {
    /// Of administrators.
    pub(crate) admin: SecretString,
    /// Of nodes.
    pub(crate) node: SecretString,
}

impl Credentials {
    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Status> {
        let service = path
            .strip_prefix('/')
            .and_then(|rest| rest.split_once('/'))
            .map(|(service, _)| service);
        let allowed = TABLE
            .iter()
            .find(|(name, _)| Some(*name) == service)
            .map(|(_, roles)| *roles);
        match allowed {
            None => Err(Status::unimplemented("there is no such service here")),
            Some([]) => Ok(()),
            Some(roles) => match self.role(headers) {
                Some(role) if roles.contains(&role) => Ok(()),
                Some(_) => Err(Status::permission_denied(
                    "this credential is of another role than the call needs",
                )),
                None => Err(Status::unauthenticated(
                    "send `authorization: Bearer <credential>`; the credential of administrators is in the file `admin-credential` of the data directory",
                )),
            },
        }
    }

    fn role(&self, headers: &HeaderMap) -> Option<Role> {
        let given = headers
            .get(http::header::AUTHORIZATION)?
            .to_str()
            .ok()?
            .strip_prefix("Bearer ")
            .filter(|given| !given.is_empty())?;
        let is = |secret: &SecretString| {
            bool::from(secret.expose_secret().as_bytes().ct_eq(given.as_bytes()))
        };
        if is(&self.admin) {
            Some(Role::Admin)
        } else if is(&self.node) {
            Some(Role::Node)
        } else {
            None
        }
    }
}

/// Puts the check before a service.
#[derive(Clone)]
pub(crate) struct Guard(pub(crate) Arc<Credentials>);

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            credentials: Arc::clone(&self.0),
            inner,
        }
    }
}

/// A service behind the check.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    credentials: Arc<Credentials>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self
            .credentials
            .check(request.uri().path(), request.headers())
        {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            admin: "admin-secret".into(),
            node: "node-secret".into(),
        }
    }

    fn check(path: &str, credential: Option<&str>, want: tonic::Code) {
        let mut headers = HeaderMap::new();
        if let Some(credential) = credential {
            headers.insert(
                "authorization",
                format!("Bearer {credential}").parse().unwrap(),
            );
        }
        let code = credentials()
            .check(path, &headers)
            .map_or_else(|status| status.code(), |()| tonic::Code::Ok);
        assert_eq!(code, want, "{path} with {credential:?}");
    }

    #[test]
    fn every_service_of_the_protos_has_an_entry() {
        let set = prost_types::FileDescriptorSet::decode(proxyxai_proto::DESCRIPTORS).unwrap();
        let mut services = 0;
        for file in set.file {
            for service in &file.service {
                services += 1;
                let name = format!("{}.{}", file.package(), service.name());
                assert!(
                    TABLE.iter().any(|(known, _)| *known == name),
                    "{name} has no entry"
                );
            }
        }
        assert_eq!(services, 11);
    }

    #[test]
    fn an_empty_credential_is_nobody_s() {
        let empty = Credentials {
            admin: "".into(),
            node: "".into(),
        };
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer ".parse().unwrap());
        assert_eq!(empty.role(&headers), None);
    }

    #[test]
    fn roles_are_kept_apart() {
        use tonic::Code::{Ok, PermissionDenied, Unauthenticated, Unimplemented};
        check(
            "/proxyxai.admin.v1.KeyService/ListKeys",
            Some("admin-secret"),
            Ok,
        );
        check(
            "/proxyxai.admin.v1.KeyService/ListKeys",
            Some("node-secret"),
            PermissionDenied,
        );
        check(
            "/proxyxai.admin.v1.KeyService/ListKeys",
            Some("admin-secre"),
            Unauthenticated,
        );
        check(
            "/proxyxai.admin.v1.KeyService/ListKeys",
            None,
            Unauthenticated,
        );
        check(
            "/proxyxai.config.v1.ConfigService/Stream",
            Some("node-secret"),
            Ok,
        );
        check(
            "/proxyxai.config.v1.ConfigService/Stream",
            Some("admin-secret"),
            PermissionDenied,
        );
        check("/grpc.health.v1.Health/Check", None, Ok);
        for malformed in [
            "proxyxai.admin.v1.KeyService/ListKeys",
            "//ListKeys",
            "/",
            "",
            "/x.Y/Z",
            "/proxyxai.admin.v1.KeyService",
        ] {
            check(malformed, None, Unimplemented);
        }
    }
}
