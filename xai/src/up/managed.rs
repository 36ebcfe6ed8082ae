//! Objects that the process manages by itself, for the environment or for a demo: added, changed and removed at each start, a line
//! printed for each. All others are left alone.

use proxyxai_core::{
    route::provider::ProviderKind,
    secret::{ExposeSecret as _, SecretString},
};
use proxyxai_data_plane::config::{ControlChannel, NodeCredential};
use proxyxai_proto::admin::v1::{
    CreateProviderRequest, CreateUpstreamKeyRequest, DeleteProviderRequest,
    DeleteUpstreamKeyRequest, ListProvidersRequest, ListUpstreamKeysRequest, ManagedBy,
    ProviderView, UpdateProviderRequest, UpstreamKeyView,
    provider_service_client::ProviderServiceClient,
    upstream_key_service_client::UpstreamKeyServiceClient,
};
use tonic::{Code, Status, transport::Channel};

use crate::{control::Control, failure::Failure, process::say};

/// Tries before it is given up to agree with others that do the same.
const TRIES: usize = 5;

/// On whose behalf an object is managed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// XAI_BASE and XAI_KEYS.
    Environment,
    /// `--demo`.
    Demo,
}

impl Owner {
    pub(crate) fn managed_by(self) -> ManagedBy {
        match self {
            Self::Environment => ManagedBy::Env,
            Self::Demo => ManagedBy::Demo,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Demo => "demo",
        }
    }
}

/// What shall exist.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) providers: Vec<Provider>,
    pub(crate) keys: Vec<Key>,
    /// Nothing is said of what else there may be, so nothing is removed.
    pub(crate) keep_others: bool,
}

/// A provider that shall exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provider {
    pub(crate) id: String,
    pub(crate) kind: ProviderKind,
    pub(crate) base_url: String,
}

impl Provider {
    /// Whether an object of the control plane says the same.
    fn is(&self, view: &ProviderView) -> bool {
        view.provider.as_ref().is_some_and(|other| {
            other.kind() == self.kind.to_proto() && other.base_url == self.base_url
        })
    }
}

impl Wanted {
    /// Gives another id to providers whose id means something else: a secret must never go to a base that it is not of.
    fn step_aside(&mut self, taken: impl Fn(&Provider) -> bool) {
        for provider in self.providers.iter_mut().filter(|provider| taken(provider)) {
            let free: String = provider.id.chars().take(59).collect();
            let free = format!("{free}-env");
            for key in &mut self.keys {
                if key.provider_id == provider.id {
                    key.provider_id.clone_from(&free);
                }
            }
            provider.id = free;
        }
    }
}

/// An upstream key that shall exist. Its id follows from its secret, so another secret is another key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) provider_id: String,
    pub(crate) secret: SecretString,
}

/// The objects of the control plane, reached as an administrator reaches them, with a credential of the owner's own: the audit trail tells
/// what each of them did.
pub(crate) struct Objects {
    owner: Owner,
    providers: ProviderServiceClient<ControlChannel>,
    keys: UpstreamKeyServiceClient<ControlChannel>,
}

impl Objects {
    fn new(admin: ControlChannel, owner: Owner) -> Self {
        Self {
            owner,
            providers: ProviderServiceClient::new(admin.clone()),
            keys: UpstreamKeyServiceClient::new(admin),
        }
    }

    /// Those of a control plane of this process, reached by this channel.
    pub(crate) fn of(control: &Control, owner: Owner, channel: Channel) -> Result<Self, Failure> {
        let secret = control.plane.managing_credential(owner.managed_by());
        let secret = secret.unwrap_or_else(|| control.admin_credential.clone());
        let credential = NodeCredential::new(&secret).map_err(|_| {
            Failure::failed("the admin credential holds characters that cannot be sent; delete its file to get a new one")
        })?;
        Ok(Self::new(credential.on(channel), owner))
    }

    /// Makes what the owner manages equal to what is wanted.
    pub(crate) async fn reconcile(&mut self, wanted: Wanted) -> Result<(), Failure> {
        let owner = self.owner;
        let mut done = self.step(owner, wanted.clone()).await;
        for _ in 1..TRIES {
            // Another control plane with the same environment does the same at the same time.
            let outrun = [Code::AlreadyExists, Code::NotFound, Code::Aborted];
            match &done {
                Err(status) if outrun.contains(&status.code()) => {}
                Ok(()) | Err(_) => break,
            }
            done = self.step(owner, wanted.clone()).await;
        }
        done.map_err(|status| {
            Failure::failed(format!(
                "the objects of the {} cannot be set: {}",
                owner.word(),
                status.message()
            ))
        })
    }

    /// Whether there is any upstream key, enabled or not.
    pub(crate) async fn any_upstream_key(&mut self) -> Result<bool, Failure> {
        let all = self
            .all_keys()
            .await
            .map_err(|status| Failure::failed(status.message().to_owned()))?;
        Ok(!all.is_empty())
    }

    async fn step(&mut self, owner: Owner, mut wanted: Wanted) -> Result<(), Status> {
        let (providers, keys) = (self.all_providers().await?, self.all_keys().await?);
        let is_ours = |managed_by: i32| managed_by == i32::from(owner.managed_by());
        wanted.step_aside(|provider| {
            let taken =
                |view: &&ProviderView| id_of(view) == provider.id && !is_ours(view.managed_by);
            providers
                .iter()
                .find(taken)
                .is_some_and(|view| !provider.is(view))
        });
        for provider in &wanted.providers {
            match providers.iter().find(|view| id_of(view) == provider.id) {
                None => self.add_provider(owner, provider).await?,
                Some(view) if is_ours(view.managed_by) => {
                    self.change_provider(owner, provider, view).await?;
                }
                // Administrators made the very same one; keys can use it.
                Some(_) => {}
            }
        }
        for key in &wanted.keys {
            if !keys.iter().any(|view| view.id == key.id) {
                self.add_key(owner, key).await?;
            }
        }
        if wanted.keep_others {
            return Ok(());
        }
        for gone in keys.iter().filter(|view| {
            is_ours(view.managed_by) && !wanted.keys.iter().any(|key| key.id == view.id)
        }) {
            self.remove_key(owner, &gone.id).await?;
        }
        for gone in providers.iter().filter(|view| {
            is_ours(view.managed_by) && !wanted.providers.iter().any(|p| p.id == id_of(view))
        }) {
            self.remove_provider(owner, id_of(gone)).await?;
        }
        Ok(())
    }

    async fn remove_key(&mut self, owner: Owner, id: &str) -> Result<(), Status> {
        let request = DeleteUpstreamKeyRequest {
            id: id.to_owned(),
            ..DeleteUpstreamKeyRequest::default()
        };
        self.keys.delete_upstream_key(request).await?;
        say(&format!("{}: removed upstream key {id}", owner.word()));
        Ok(())
    }

    async fn remove_provider(&mut self, owner: Owner, id: &str) -> Result<(), Status> {
        let request = DeleteProviderRequest {
            id: id.to_owned(),
            ..DeleteProviderRequest::default()
        };
        match self.providers.delete_provider(request).await {
            Ok(_) => say(&format!("{}: removed provider {id}", owner.word())),
            // Administrators have put keys or routes of their own on it.
            Err(status) if status.code() == tonic::Code::FailedPrecondition => say(&format!(
                "{}: provider {id} stays: {}",
                owner.word(),
                status.message()
            )),
            Err(status) => return Err(status),
        }
        Ok(())
    }

    async fn add_provider(&mut self, owner: Owner, provider: &Provider) -> Result<(), Status> {
        let request = CreateProviderRequest {
            id: provider.id.clone(),
            kind: provider.kind.to_proto().into(),
            base_url: provider.base_url.clone(),
            allow_private: true,
            managed_by: owner.managed_by().into(),
            ..CreateProviderRequest::default()
        };
        self.providers.create_provider(request).await?;
        say(&format!(
            "{}: added provider {} ({}, {})",
            owner.word(),
            provider.id,
            provider.kind.as_str(),
            provider.base_url
        ));
        Ok(())
    }

    async fn change_provider(
        &mut self,
        owner: Owner,
        provider: &Provider,
        view: &ProviderView,
    ) -> Result<(), Status> {
        let allowed = view.provider.as_ref().is_some_and(|old| old.allow_private);
        if provider.is(view) && allowed {
            return Ok(());
        }
        let request = UpdateProviderRequest {
            id: provider.id.clone(),
            kind: Some(provider.kind.to_proto().into()),
            base_url: Some(provider.base_url.clone()),
            allow_private: Some(true),
            ..UpdateProviderRequest::default()
        };
        self.providers.update_provider(request).await?;
        say(&format!(
            "{}: changed provider {} ({}, {})",
            owner.word(),
            provider.id,
            provider.kind.as_str(),
            provider.base_url
        ));
        Ok(())
    }

    async fn add_key(&mut self, owner: Owner, key: &Key) -> Result<(), Status> {
        let request = CreateUpstreamKeyRequest {
            id: key.id.clone(),
            provider_id: key.provider_id.clone(),
            secret: key.secret.expose_secret().to_owned(),
            managed_by: owner.managed_by().into(),
            ..CreateUpstreamKeyRequest::default()
        };
        self.keys.create_upstream_key(request).await?;
        say(&format!(
            "{}: added upstream key {} of provider {}",
            owner.word(),
            key.id,
            key.provider_id
        ));
        Ok(())
    }

    async fn all_providers(&mut self) -> Result<Vec<ProviderView>, Status> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = self
                .providers
                .list_providers(ListProvidersRequest {
                    page_size: 1000,
                    page_token,
                    ..ListProvidersRequest::default()
                })
                .await?
                .into_inner();
            all.extend(page.providers);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    async fn all_keys(&mut self) -> Result<Vec<UpstreamKeyView>, Status> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListUpstreamKeysRequest {
                page_size: 1000,
                page_token,
                ..ListUpstreamKeysRequest::default()
            };
            let page = self.keys.list_upstream_keys(request).await?.into_inner();
            all.extend(page.upstream_keys);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }
}

fn id_of(view: &ProviderView) -> &str {
    view.provider
        .as_ref()
        .map_or("", |provider| provider.id.as_str())
}
