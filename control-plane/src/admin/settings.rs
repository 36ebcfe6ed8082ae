//! Settings of the whole deployment.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_core::{
    idempotency::{self, Repeat},
    settings::{check, in_force},
};
use proxyxai_proto::{
    admin::v1::{
        GetSettingsRequest, GetSettingsResponse, Settings, SettingsView, UpdateSettingsRequest,
        UpdateSettingsResponse, settings_service_server::SettingsService,
    },
    store::v1::{CallMark, StoredSettings},
};
use tonic::{Request, Response, Status};

use super::writing::call_mark;
use crate::{
    auth,
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

pub(crate) struct SettingsServer {
    pub(crate) config: Arc<ConfigStore>,
    /// What this control plane's own settings say.
    pub(crate) audit_keep: Duration,
}

#[tonic::async_trait]
impl SettingsService for SettingsServer {
    async fn get_settings(
        &self,
        _: Request<GetSettingsRequest>,
    ) -> Result<Response<GetSettingsResponse>, Status> {
        Ok(Response::new(GetSettingsResponse {
            settings: Some(self.view()),
        }))
    }

    async fn update_settings(
        &self,
        request: Request<UpdateSettingsRequest>,
    ) -> Result<Response<UpdateSettingsResponse>, Status> {
        const NAME: &str = "UpdateSettings";
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let key = &request.idempotency_key;
        let mark = call_mark(&caller, NAME, key, &request.encode_to_vec())?;
        let now = self.config.clock.unix_ms();
        let edit = |state: &State| Ok((update(state, &request, mark.as_ref(), now)?, ()));
        self.config.edit(&caller, NAME, edit).await?;
        Ok(Response::new(UpdateSettingsResponse {
            settings: Some(self.view()),
        }))
    }
}

impl SettingsServer {
    fn view(&self) -> SettingsView {
        let state = self.config.state();
        let set = state.settings.settings.unwrap_or_default();
        SettingsView {
            set: Some(set),
            in_force: Some(in_force(&set, self.audit_keep.as_secs())),
            resource_version: state.settings_revision,
        }
    }
}

fn update(
    state: &State,
    request: &UpdateSettingsRequest,
    mark: Option<&CallMark>,
    now_unix_ms: i64,
) -> Result<Vec<Edit>, Fault> {
    let stored = &*state.settings;
    let repeat = mark.map_or(Repeat::Other, |mark| {
        let earlier = stored.changed_by.as_ref();
        idempotency::compare(earlier, stored.changed_unix_ms, mark, now_unix_ms)
    });
    match repeat {
        Repeat::Other => {}
        Repeat::Same => return Ok(Vec::new()),
        Repeat::Conflict => {
            return Err(Fault::field(
                "idempotency_key",
                "a call with this key asked for something else; choose a new key for a new call",
            ));
        }
    }
    let (given, current) = (request.resource_version, state.settings_revision);
    if given != 0 && given != current {
        return Err(Fault::Stale {
            what: "settings",
            id: "deployment".to_owned(),
            given,
            current,
        });
    }
    let before = stored.settings.unwrap_or_default();
    let next = Settings {
        max_stale_seconds: request
            .max_stale_seconds
            .unwrap_or(before.max_stale_seconds),
        audit_keep_seconds: request
            .audit_keep_seconds
            .unwrap_or(before.audit_keep_seconds),
    };
    let changed = change(state, next, mark.cloned(), now_unix_ms)?;
    Ok(changed.into_iter().collect())
}

/// Puts settings in the place of those in force; nothing when they are the same.
pub(crate) fn change(
    state: &State,
    next: Settings,
    changed_by: Option<CallMark>,
    now_unix_ms: i64,
) -> Result<Option<Edit>, Fault> {
    check(&next).map_err(|wrong| Fault::field(wrong.field, wrong.what))?;
    if next == state.settings.settings.unwrap_or_default() {
        return Ok(None);
    }
    Ok(Some(Edit::Settings(StoredSettings {
        settings: Some(next),
        changed_by,
        changed_unix_ms: now_unix_ms,
    })))
}
