//! The settings of the deployment in a manifest: given as a whole, or left alone.

use prost::Message as _;
use proxyxai_core::{
    access::{Caller, Permission, may_call},
    audit::describe::Schema,
};
use proxyxai_proto::admin::v1::{ChangeAction, ObjectChange, Settings};

use crate::{
    admin::settings,
    auth,
    config_store::{Edit, State},
    status::Fault,
};

/// The call that changes them by itself.
const UPDATE: &str = "/proxyxai.admin.v1.SettingsService/UpdateSettings";

/// As manifests say them, if any was set and the caller sees them.
pub(super) fn seen(state: &State, caller: &Caller) -> Option<Settings> {
    may_call(caller, Permission::ReadDeployment).ok()?;
    let set = state.settings.settings.unwrap_or_default();
    (set != Settings::default()).then_some(set)
}

/// What to change, if the manifest gives settings that are not in force.
pub(super) fn decide(
    state: &State,
    caller: &Caller,
    given: Option<Settings>,
    now_unix_ms: i64,
) -> Result<Option<Edit>, Fault> {
    let Some(given) = given else { return Ok(None) };
    let edit = settings::change(state, given, None, now_unix_ms)?;
    if edit.is_some() {
        auth::may_make(caller, UPDATE)?;
    }
    Ok(edit)
}

/// The change as answers tell it.
pub(super) fn shown(
    state: &State,
    (caller, schema): (&Caller, &Schema),
    given: Option<Settings>,
) -> Result<Option<ObjectChange>, Fault> {
    if given.is_some() {
        may_call(caller, Permission::ReadDeployment).map_err(Fault::Denied)?;
    }
    let before = state.settings.settings.unwrap_or_default();
    let Some(after) = given.filter(|given| *given != before) else {
        return Ok(None);
    };
    let (before, after) = (before.encode_to_vec(), after.encode_to_vec());
    let (before, after) = schema
        .change("proxyxai.admin.v1.Settings", Some(&before), Some(&after))
        .map_err(|error| Fault::Defect(error.to_string()))?;
    Ok(Some(ObjectChange {
        action: ChangeAction::Update.into(),
        kind: "settings".to_owned(),
        name: "deployment".to_owned(),
        before,
        after,
    }))
}
