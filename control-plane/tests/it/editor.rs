//! Random edits through the admin API, the same for the same seed, and short calls for what tests make again and again.

use proxyxai_proto::{
    admin::v1::{
        AccountView, CreateAccountRequest, CreateKeyRequest, CreateProviderRequest,
        CreateRouteRequest, CreateUpstreamKeyRequest, DeleteAccountRequest, DeleteKeyRequest,
        DeleteProviderRequest, DeleteRouteRequest, DeleteUpstreamKeyRequest, KeyView,
        ListAccountsRequest, ListKeysRequest, StringList, UpdateAccountRequest, UpdateKeyRequest,
        UpdateProviderRequest, UpdateRouteRequest, UpdateUpstreamKeyRequest,
    },
    config::v1::ProviderKind,
};
use tonic::Status;

use crate::harness::{Plane, SECRET, ok};

/// Small numbers from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

pub(crate) async fn account(plane: &Plane, parent: &str, name: &str) -> AccountView {
    let request = CreateAccountRequest {
        parent: parent.into(),
        name: name.into(),
        allowed_models: Vec::new(),
        ..CreateAccountRequest::default()
    };
    ok(plane.accounts().create_account(request).await)
        .account
        .unwrap()
}

/// Makes a virtual key; its whole text, too.
pub(crate) async fn key(plane: &Plane, account: &str, name: &str) -> (KeyView, String) {
    let request = CreateKeyRequest {
        account: account.into(),
        name: name.into(),
        ..CreateKeyRequest::default()
    };
    let made = plane.keys().create_key(request).await.unwrap().into_inner();
    (made.key.unwrap(), made.secret)
}

pub(crate) async fn provider(plane: &Plane, id: &str) {
    ok(plane
        .providers()
        .create_provider(provider_request(id))
        .await);
}

pub(crate) fn provider_request(id: &str) -> CreateProviderRequest {
    CreateProviderRequest {
        id: id.into(),
        kind: ProviderKind::Openai.into(),
        base_url: "https://api.example.com".into(),
        ..CreateProviderRequest::default()
    }
}

pub(crate) fn upstream_key_request(id: &str, provider: &str) -> CreateUpstreamKeyRequest {
    CreateUpstreamKeyRequest {
        id: id.into(),
        provider_id: provider.into(),
        secret: format!("{SECRET}{id}"),
        ..CreateUpstreamKeyRequest::default()
    }
}

pub(crate) async fn upstream_key(plane: &Plane, id: &str, provider: &str) {
    let request = upstream_key_request(id, provider);
    ok(plane.upstream_keys().create_upstream_key(request).await);
}

pub(crate) fn route_request(id: &str, model: &str, providers: &[&str]) -> CreateRouteRequest {
    CreateRouteRequest {
        id: id.into(),
        model: model.into(),
        provider_ids: providers.iter().map(ToString::to_string).collect(),
        ..CreateRouteRequest::default()
    }
}

pub(crate) async fn all_accounts(plane: &Plane) -> Vec<AccountView> {
    let request = ListAccountsRequest {
        page_size: 1000,
        ..ListAccountsRequest::default()
    };
    ok(plane.accounts().list_accounts(request).await).accounts
}

/// One random call; refused ones among them.
pub(crate) async fn random_edit(plane: &Plane, dice: &mut Dice) -> Result<(), Status> {
    let accounts: Vec<String> = all_accounts(plane)
        .await
        .into_iter()
        .map(|view| view.account.unwrap().id)
        .collect();
    let keys = ok(plane.keys().list_keys(ListKeysRequest::default()).await).keys;
    let account = dice.pick(&accounts).clone();
    let key = keys
        .get(dice.roll(keys.len() + 1))
        .map(|key| key.id.clone());
    let key = key.unwrap_or_else(|| "nobody".to_owned());
    let provider = format!("p{}", dice.roll(3));
    let (id, name) = (dice.roll(3).to_string(), format!("n{}", dice.roll(4)));
    let models: Vec<String> = ["*", "gpt-*", "", "m/*"][..dice.roll(5)]
        .iter()
        .map(ToString::to_string)
        .collect();
    match dice.roll(14) {
        0 | 1 => {
            let request = CreateAccountRequest {
                parent: account,
                name,
                allowed_models: models,
                ..CreateAccountRequest::default()
            };
            plane.accounts().create_account(request).await?;
        }
        2 | 3 => {
            let request = UpdateAccountRequest {
                account,
                name: (dice.roll(2) == 0).then_some(name),
                suspended: Some(dice.roll(3) == 0),
                allowed_models: Some(StringList { values: models }),
                ..UpdateAccountRequest::default()
            };
            plane.accounts().update_account(request).await?;
        }
        4 => {
            let request = DeleteAccountRequest {
                account,
                ..DeleteAccountRequest::default()
            };
            plane.accounts().delete_account(request).await?;
        }
        5 | 6 => {
            let request = CreateKeyRequest {
                account,
                name,
                ..CreateKeyRequest::default()
            };
            plane.keys().create_key(request).await?;
        }
        7 => {
            let request = UpdateKeyRequest {
                id: key,
                name: Some(name),
                disabled: Some(dice.roll(2) == 0),
                ..UpdateKeyRequest::default()
            };
            plane.keys().update_key(request).await?;
        }
        8 => {
            plane
                .keys()
                .delete_key(DeleteKeyRequest {
                    id: key,
                    ..DeleteKeyRequest::default()
                })
                .await?;
        }
        9 => {
            let request = provider_request(&provider);
            plane.providers().create_provider(request).await?;
        }
        10 => {
            let request = UpdateProviderRequest {
                id: provider,
                base_url: Some(["https://a.example", "ftp://b", "10.0.0.1"][dice.roll(3)].into()),
                disabled: Some(dice.roll(2) == 0),
                ..UpdateProviderRequest::default()
            };
            plane.providers().update_provider(request).await?;
        }
        11 => {
            let request = upstream_key_request(&format!("u{id}"), &provider);
            if dice.roll(2) == 0 {
                plane.upstream_keys().create_upstream_key(request).await?;
            } else {
                let request = UpdateUpstreamKeyRequest {
                    id: request.id,
                    disabled: Some(dice.roll(2) == 0),
                    secret: (dice.roll(2) == 0).then(|| format!("{SECRET}{name}")),
                    ..UpdateUpstreamKeyRequest::default()
                };
                plane.upstream_keys().update_upstream_key(request).await?;
            }
        }
        12 => {
            let (id, providers) = (format!("r{id}"), [provider.as_str()]);
            if dice.roll(2) == 0 {
                let request = route_request(&id, "gpt-*", &providers);
                plane.routes().create_route(request).await?;
            } else {
                let request = UpdateRouteRequest {
                    id,
                    model: Some(["*", "gpt-4*", ""][dice.roll(3)].into()),
                    provider_ids: None,
                    ..UpdateRouteRequest::default()
                };
                plane.routes().update_route(request).await?;
            }
        }
        _ => match dice.roll(3) {
            0 => {
                let request = DeleteProviderRequest {
                    id: provider,
                    ..DeleteProviderRequest::default()
                };
                plane.providers().delete_provider(request).await?;
            }
            1 => {
                let request = DeleteUpstreamKeyRequest {
                    id: format!("u{id}"),
                    ..DeleteUpstreamKeyRequest::default()
                };
                plane.upstream_keys().delete_upstream_key(request).await?;
            }
            _ => {
                let request = DeleteRouteRequest {
                    id: format!("r{id}"),
                    ..DeleteRouteRequest::default()
                };
                plane.routes().delete_route(request).await?;
            }
        },
    }
    Ok(())
}
