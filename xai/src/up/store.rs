//! Opens the store that the settings name.

use std::sync::Arc;

use proxyxai_control_plane::store::{Store, embedded::EmbeddedStore};

use super::data::DataDir;
use crate::{
    failure::Failure,
    settings::store::{Place, StoreKind},
};

/// Opens it.
pub(crate) async fn open(place: &Place<'_>, data: &DataDir) -> Result<Arc<dyn Store>, Failure> {
    match place.kind {
        StoreKind::Embedded => {
            let store = EmbeddedStore::open(&data.store_file());
            Ok(Arc::new(store.map_err(|e| Failure::failed(e.to_string()))?))
        }
        StoreKind::Etcd => etcd(place).await,
    }
}

#[cfg(not(feature = "etcd"))]
pub(crate) async fn etcd(_: &Place<'_>) -> Result<Arc<dyn Store>, Failure> {
    Err(Failure::usage(
        "this xai was built without etcd; build it with `cargo build --release`, or use `store: embedded`",
    ))
}

#[cfg(feature = "etcd")]
pub(crate) async fn etcd(place: &Place<'_>) -> Result<Arc<dyn Store>, Failure> {
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
    let password = secret("etcd_password_file", place.password_file)?;
    let certificate = read("etcd_certificate_file", place.certificate_file)?;
    let key = secret("etcd_key_file", place.key_file)?;
    let store = EtcdStore::connect(EtcdSettings {
        prefix: place.prefix.as_str().to_owned(),
        user: place.user.text().map(str::to_owned).zip(password),
        tls: EtcdTls {
            authority: read("etcd_ca_file", place.ca_file)?,
            identity: certificate.zip(key),
        },
        connect_timeout: place.connect_timeout,
        request_timeout: place.request_timeout,
        allow_old_version: place.allow_old_version,
        ..EtcdSettings::new(place.endpoints.all().to_vec())
    });
    let store = Box::pin(store).await;
    Ok(Arc::new(store.map_err(|e| Failure::failed(e.to_string()))?))
}
