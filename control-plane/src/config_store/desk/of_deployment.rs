//! The settings of the deployment: their row, and what was last in force, which stands in when the row cannot be used.
//!
//! Invariant: what is in force is a function of both rows, so that every replica comes to the same settings, also after a restart
//! (law 10).

use prost::Message as _;
use proxyxai_core::settings::check;
use proxyxai_proto::store::v1::StoredSettings;

use super::{Unconfirmed, Withheld};
use crate::{config_store::state::Cell, store::keyspace::Key};

#[derive(Default)]
pub(super) struct OfDeployment {
    /// What stands in the row.
    pub(super) offered: Option<Cell>,
    /// What was last in force.
    pub(super) good: Option<Cell>,
}

impl OfDeployment {
    /// The settings that come into force with the next head; the default ones when neither row can be used.
    pub(super) fn in_force(&self) -> StoredSettings {
        match (read(self.offered.as_ref()), read(self.good.as_ref())) {
            (Ok(Some(offered)), _) => offered,
            (_, Ok(Some(good))) => good,
            (Ok(None) | Err(_), Ok(None) | Err(_)) => StoredSettings::default(),
        }
    }

    /// Why the row is not in force as it stands.
    pub(super) fn withheld(&self) -> Option<Withheld> {
        let good = read(self.good.as_ref());
        let stand_in = matches!(good, Ok(Some(_)));
        let reason = match read(self.offered.as_ref()) {
            Ok(Some(_)) => return None,
            Ok(None) if !stand_in => return None,
            Ok(None) => {
                "its row is gone, but nobody deleted it; set the settings that are meant".to_owned()
            }
            Err(reason) => format!("{reason}; set the settings anew"),
        };
        Some(Withheld { reason, stand_in })
    }

    /// What is in force and not yet noted as good.
    pub(super) fn unconfirmed(&self) -> Option<Unconfirmed> {
        let offered = self.offered.as_ref()?;
        let noted = self.good.as_ref().map(|good| &good.value) == Some(&offered.value);
        let usable = matches!(read(Some(offered)), Ok(Some(_)));
        (usable && !noted).then(|| Unconfirmed {
            keys: (Key::Settings.to_string(), Key::GoodSettings.to_string()),
            value: offered.value.clone(),
            mod_revision: offered.mod_revision,
            note_revision: self.good.as_ref().map_or(0, |good| good.mod_revision),
        })
    }
}

fn read(cell: Option<&Cell>) -> Result<Option<StoredSettings>, String> {
    let Some(cell) = cell else { return Ok(None) };
    let stored = StoredSettings::decode(cell.value.clone()).map_err(|error| error.to_string())?;
    if stored.encode_to_vec() != cell.value {
        return Err("it has fields that this program does not know, or was written by something else; use the program that wrote it".to_owned());
    }
    check(&stored.settings.unwrap_or_default()).map_err(|wrong| wrong.to_string())?;
    Ok(Some(stored))
}
