//! Opens the store that the settings name.

use std::sync::Arc;

use proxyxai_control_plane::store::{Store, embedded::EmbeddedStore};

use super::data::DataDir;
use crate::{
    failure::Failure,
    settings::{Settings, store::StoreKind},
};

/// Opens it.
pub(crate) async fn open(settings: &Settings, data: &DataDir) -> Result<Arc<dyn Store>, Failure> {
    match settings.store {
        StoreKind::Embedded => {
            let store = EmbeddedStore::open(&data.store_file());
            Ok(Arc::new(store.map_err(|e| Failure::failed(e.to_string()))?))
        }
        StoreKind::Etcd => etcd(settings).await,
    }
}

#[cfg(not(feature = "etcd"))]
pub(crate) async fn etcd(_: &Settings) -> Result<Arc<dyn Store>, Failure> {
    Err(Failure::usage(
        "this xai was built without etcd; build it with `cargo build --release`, or use `store: embedded`",
    ))
}

#[cfg(feature = "etcd")]
pub(crate) async fn etcd(settings: &Settings) -> Result<Arc<dyn Store>, Failure> {
    use proxyxai_control_plane::store::etcd::{EtcdSettings, EtcdStore, EtcdTls};

    let read = |setting: &'static str, value: &crate::settings::store::Optional| {
        let Some(file) = value.file() else {
            return Ok(None);
        };
        std::fs::read(&file).map(Some).map_err(|error| {
            let file = file.display();
            Failure::usage(format!("`{setting}`: {file} cannot be read: {error}"))
        })
    };
    let secret = |setting: &'static str, value: &crate::settings::store::Optional| {
        let text = read(setting, value)?.map(String::from_utf8).transpose();
        let text = text.map_err(|_| Failure::usage(format!("`{setting}`: the file is no text")))?;
        Ok::<_, Failure>(text.map(|text| text.trim().to_owned().into()))
    };
    let password = secret("etcd_password_file", &settings.etcd_password_file)?;
    let certificate = read("etcd_certificate_file", &settings.etcd_certificate_file)?;
    let key = secret("etcd_key_file", &settings.etcd_key_file)?;
    let store = EtcdStore::connect(EtcdSettings {
        prefix: settings.etcd_prefix.as_str().to_owned(),
        user: settings.etcd_user.text().map(str::to_owned).zip(password),
        tls: EtcdTls {
            authority: read("etcd_ca_file", &settings.etcd_ca_file)?,
            identity: certificate.zip(key),
        },
        connect_timeout: settings.etcd_connect_timeout.0,
        request_timeout: settings.etcd_request_timeout.0,
        allow_old_version: settings.etcd_allow_old_version,
        ..EtcdSettings::new(settings.etcd_endpoints.all().to_vec())
    });
    let store = Box::pin(store).await;
    Ok(Arc::new(store.map_err(|e| Failure::failed(e.to_string()))?))
}
