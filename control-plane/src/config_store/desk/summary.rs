//! The list of what is out of order, for people: by key, each with its reason.
//!
//! Invariant: however rows came, one by one or together, the list is the same.

use proxyxai_core::snapshot::ResourceName;

use super::{Desk, GONE, WAITS, named_by};
use crate::{
    config_store::state::Withheld,
    store::keyspace::{CONFIG_PREFIX, Key},
};

impl Desk {
    /// Makes the list anew, after what is in force changed.
    pub(super) fn summarise(&mut self) {
        self.state.withheld.clear();
        let strange: Vec<String> = self.strange.keys().cloned().collect();
        strange.iter().for_each(|key| self.list_strange(key));
        self.list_settings();
        let names = self.withheld.keys().chain(&self.touched);
        let names: Vec<ResourceName> = names.cloned().collect();
        names.iter().for_each(|name| self.list_row(name));
    }

    /// Brings the list up to date with these rows, of which nothing came into force.
    pub(super) fn summarise_rows(&mut self, keys: &[String]) {
        for key in keys {
            match named_by(key) {
                Some(name) => self.list_row(&name),
                None => self.list_strange(key),
            }
        }
        self.list_settings();
    }

    fn list_settings(&mut self) {
        let why = self.settings.withheld();
        let key = Key::Settings.to_string();
        let below = key.strip_prefix(CONFIG_PREFIX).unwrap_or(&key);
        self.list(below.to_owned(), why);
    }

    fn list_strange(&mut self, key: &str) {
        let why = self.strange.get(key).map(|reason| Withheld {
            reason: reason.clone(),
            stand_in: false,
        });
        let below = key.strip_prefix(CONFIG_PREFIX).unwrap_or(key);
        self.list(below.to_owned(), why);
    }

    fn list_row(&mut self, name: &ResourceName) {
        let why = if self.touched.contains(name) {
            let offered = self.state.odd.get(name).map(|row| row.offered.as_ref());
            let read = match offered {
                Some(Some(cell)) => self.object(name, &cell.value).map(|_| ()),
                Some(None) => Err(GONE.to_owned()),
                None => Ok(()),
            };
            Some(Withheld {
                reason: read.err().unwrap_or_else(|| WAITS.to_owned()),
                stand_in: self.state.records.contains_key(name),
            })
        } else {
            self.withheld.get(name).cloned()
        };
        self.list(format!("{}/{}", name.kind.as_str(), name.id), why);
    }

    fn list(&mut self, key: String, why: Option<Withheld>) {
        match why {
            Some(why) => {
                self.state.withheld.insert(key, why);
            }
            None => {
                self.state.withheld.remove(&key);
            }
        }
    }
}
