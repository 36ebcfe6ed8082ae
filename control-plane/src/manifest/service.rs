//! The calls of [`ManifestService`].

use std::{collections::BTreeSet, sync::Arc};

use proxyxai_core::{access::Caller, account::key::Pepper, audit::describe::Schema};
use proxyxai_proto::{
    admin::v1::{
        ApplyManifestRequest, ApplyManifestResponse, GetManifestRequest, GetManifestResponse,
        Manifest, ObjectChange, QueryChangesRequest, QueryChangesResponse,
        manifest_service_server::{ManifestService, ManifestServiceServer},
    },
    config::v1::Version,
};
use tonic::{Request, Response, Status};

use super::{
    apply::{Tools, decide},
    plan::{Planned, plan},
    settings, show,
};
use crate::{
    admin::accounts,
    auth::{self, Credentials},
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

/// Largest manifest, encoded.
const MAX_BYTES: usize = 64 << 20;

pub(crate) struct ManifestServer {
    config: Arc<ConfigStore>,
    credentials: Arc<Credentials>,
    pepper: Pepper,
    schema: Schema,
}

impl ManifestServer {
    /// The service.
    pub(crate) fn service(
        config: Arc<ConfigStore>,
        credentials: Arc<Credentials>,
        pepper: Pepper,
    ) -> Result<ManifestServiceServer<Self>, Fault> {
        let schema = Schema::read(proxyxai_proto::DESCRIPTORS)
            .map_err(|error| Fault::Defect(error.to_string()))?;
        let server = Self {
            config,
            credentials,
            pepper,
            schema,
        };
        Ok(ManifestServiceServer::new(server)
            .max_decoding_message_size(MAX_BYTES)
            .max_encoding_message_size(MAX_BYTES))
    }

    fn shown(&self, planned: &[Planned]) -> Result<Vec<ObjectChange>, Fault> {
        let one = |planned: &Planned| planned.shown(&self.schema);
        planned.iter().map(one).collect()
    }

    /// Decides it all on one state.
    fn decide(
        &self,
        state: &State,
        (caller, with_credentials): (&Caller, &BTreeSet<String>),
        request: &ApplyManifestRequest,
    ) -> Result<(Vec<Edit>, ApplyManifestResponse), Fault> {
        let version = Version::from(state.snapshot.version);
        if let Some(expected) = request.expected.filter(|expected| *expected != version) {
            return Err(Fault::Stale {
                what: "configuration",
                id: "head".to_owned(),
                given: expected.revision,
                current: version.revision,
            });
        }
        let objects = objects(request.manifest.as_ref());
        let planned = plan(state, caller, &self.pepper, objects, request.prune)?;
        let tools = Tools {
            caller,
            pepper: &self.pepper,
            random: self.config.random(),
            now_unix_ms: self.config.clock.unix_ms(),
            with_credentials,
        };
        let (mut edits, created_keys) = decide(state, &tools, &planned)?;
        let mut changes = self.shown(&planned)?;
        let set = request.manifest.as_ref().and_then(|it| it.settings);
        changes.extend(settings::shown(state, (caller, &self.schema), set)?);
        edits.extend(settings::decide(state, caller, set, tools.now_unix_ms)?);
        Ok((
            edits,
            ApplyManifestResponse {
                changes,
                created_keys,
            },
        ))
    }
}

#[tonic::async_trait]
impl ManifestService for ManifestServer {
    async fn get_manifest(
        &self,
        request: Request<GetManifestRequest>,
    ) -> Result<Response<GetManifestResponse>, Status> {
        let caller = auth::caller(&request)?;
        let state = self.config.state();
        Ok(Response::new(GetManifestResponse {
            manifest: Some(Manifest {
                objects: show::all(&state, &caller),
                settings: settings::seen(&state, &caller),
            }),
            version: Some(state.snapshot.version.into()),
        }))
    }

    async fn query_changes(
        &self,
        request: Request<QueryChangesRequest>,
    ) -> Result<Response<QueryChangesResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let state = self.config.state();
        let objects = objects(request.manifest.as_ref());
        let planned = plan(&state, &caller, &self.pepper, objects, request.prune)?;
        let mut changes = self.shown(&planned)?;
        let set = request.manifest.as_ref().and_then(|it| it.settings);
        changes.extend(settings::shown(&state, (&caller, &self.schema), set)?);
        Ok(Response::new(QueryChangesResponse {
            changes,
            version: Some(state.snapshot.version.into()),
        }))
    }

    async fn apply_manifest(
        &self,
        request: Request<ApplyManifestRequest>,
    ) -> Result<Response<ApplyManifestResponse>, Status> {
        const NAME: &str = "ApplyManifest";
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        if request.dry_run {
            let with_credentials = self.credentials.accounts().await?;
            let who = (&caller, &with_credentials);
            let decided = self.decide(&self.config.state(), who, &request);
            return match decided {
                Ok((_, mut answer)) => {
                    answer.created_keys.clear();
                    Ok(Response::new(answer))
                }
                Err(fault) => Err(self.config.refused(&caller, NAME, fault).await.into()),
            };
        }
        let edit = |state: &State, with_credentials: &BTreeSet<String>| {
            self.decide(state, (&caller, with_credentials), &request)
        };
        let (config, credentials) = (&self.config, &self.credentials);
        let answer = match request.prune {
            true => {
                accounts::edit_without_new_credentials(config, credentials, &caller, NAME, edit)
                    .await?
            }
            false => {
                let none = BTreeSet::new();
                config
                    .edit(&caller, NAME, |state: &State| edit(state, &none))
                    .await?
            }
        };
        Ok(Response::new(answer))
    }
}

fn objects(manifest: Option<&Manifest>) -> &[proxyxai_proto::admin::v1::ManifestObject] {
    manifest.map_or(&[], |manifest| manifest.objects.as_slice())
}
