//! `xai store …`: moves the store of a gateway that does not run.

use std::{
    fs,
    io::BufReader,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Subcommand;
use proxyxai_control_plane::{
    store::{Store, keyspace::Key},
    tick,
    transfer::{self, Export, Import, TransferError},
};

use crate::{
    archive_file::ArchiveFile,
    cli::CheckArgs,
    environment::Environment,
    failure::Failure,
    keys::{self, KeyReader},
    output::print,
    settings::{Settings, store::StoreKind},
    system::{SystemClock, SystemRandomness, unix_ms},
    up::{
        data::DataDir,
        store::{etcd, open},
    },
};

/// What can be done with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Copy the whole store into a file; secrets stay sealed in it. Of a gateway that runs: `xai backup`.
    Export {
        /// The file; it must not exist yet.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        settings: CheckArgs,
    },
    /// Fill a store from such a file, one generation higher; the key-encryption key of the file must be in its place.
    Import {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Delete what the store holds.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        settings: CheckArgs,
    },
    /// Raise the generation of a store that was put back by other means, such as a copy of its disk or a snapshot of etcd: before
    /// anything starts on it.
    Restored {
        #[command(flatten)]
        settings: CheckArgs,
    },
}

/// Does what was asked for.
///
/// # Errors
/// Says why not.
pub(crate) fn run(verb: Verb, environment: &Environment) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the system gives no event loop: {error}")))?;
    let done = runtime.block_on(async {
        match verb {
            Verb::Export { file, settings } => export(&settings.load(environment)?, &file).await,
            Verb::Import {
                file,
                replace,
                settings,
            } => import(&settings.load(environment)?, environment, &file, replace).await,
            Verb::Restored { settings } => {
                restored(&settings.load(environment)?, environment).await
            }
        }
    })?;
    print(&format!("{done}\n"))
}

/// Writes the store into a file. Says what was done.
pub(crate) async fn export(settings: &Settings, file: &Path) -> Result<String, Failure> {
    let place = Place::existing(settings).await?;
    let mut archive = ArchiveFile::create(file)?;
    let mut export = Export::new(Arc::clone(&place.store), unix_ms());
    while let Some(more) = export.next_bytes().await.map_err(failed)? {
        archive.write(&more)?;
    }
    archive.finish()
}

async fn import(
    settings: &Settings,
    environment: &Environment,
    file: &Path,
    replace: bool,
) -> Result<String, Failure> {
    let open = fs::File::open(file)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
    let reader = KeyReader::in_use(settings.keys(), environment);
    let key = reader.read().await?.ok_or_else(|| {
        Failure::failed(format!(
            "there is no key at {reader}; put the key-encryption key there that the file was sealed under"
        ))
    })?;
    let random = randomness()?;
    let place = Place::open(settings).await?;
    place.at_rest().await?;
    let options = Import {
        key: Arc::new(key),
        replace,
        now_unix_ms: unix_ms(),
    };
    let imported =
        transfer::import(&place.store, &mut BufReader::new(open), options, &random).await;
    let imported = imported.map_err(failed)?;
    let mut said = format!(
        "{} entries of deployment {} were imported; it is generation {} now.",
        imported.entries, imported.deployment_id, imported.generation
    );
    for key in imported.unopened {
        said.push_str(&format!(
            "\nThe secret at `{key}` does not open, as it did not where the file was made; give it anew."
        ));
    }
    Ok(said)
}

async fn restored(settings: &Settings, environment: &Environment) -> Result<String, Failure> {
    let place = Place::existing(settings).await?;
    place.at_rest().await?;
    let key = keys::choose(settings.keys(), environment, &place.store, None).await?;
    let (random, clock) = (randomness()?, SystemClock::start());
    let restored = transfer::restored(&place.store, key, &random, &clock).await;
    let restored = restored.map_err(failed)?;
    let mut said = format!(
        "The store is generation {} now; start the gateway.",
        restored.generation
    );
    if let Some(left) = restored.left {
        said.push_str(&format!("\nNot everything is sealed anew yet: {left}."));
    }
    Ok(said)
}

/// The store that the settings name.
struct Place {
    store: Arc<dyn Store>,
    /// Of an embedded store: nobody else has it open.
    held: Option<DataDir>,
}

impl Place {
    async fn existing(settings: &Settings) -> Result<Self, Failure> {
        let folder = &settings.data.0;
        if settings.store == StoreKind::Embedded && !folder.join("store.redb").exists() {
            return Err(Failure::failed(format!(
                "there is no store in {}; name the data directory with --data",
                folder.display()
            )));
        }
        Self::open(settings).await
    }

    async fn open(settings: &Settings) -> Result<Self, Failure> {
        if settings.store == StoreKind::Etcd {
            let store = etcd(&settings.store()).await?;
            return Ok(Self { store, held: None });
        }
        let held = DataDir::open(&settings.data.0)?;
        let store = open(&settings.store(), &held).await?;
        Ok(Self {
            store,
            held: Some(held),
        })
    }

    /// Refuses a store on which a control plane runs: the tick moves then.
    async fn at_rest(&self) -> Result<(), Failure> {
        let tick = async || {
            let entry = self.store.get(&Key::Tick.to_string()).await;
            let entry = entry.map_err(|error| Failure::failed(error.to_string()))?;
            Ok::<_, Failure>(entry.map_or(0, |entry| entry.mod_revision))
        };
        let before = tick().await?;
        if self.held.is_some() || before == 0 {
            return Ok(());
        }
        tokio::time::sleep(tick::INTERVAL.saturating_mul(3)).await;
        if tick().await? == before {
            return Ok(());
        }
        Err(Failure::failed(
            "a control plane runs on the store; stop every one, then run this again",
        ))
    }
}

fn randomness() -> Result<SystemRandomness, Failure> {
    SystemRandomness::open().map_err(|error| Failure::failed(error.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn failed(error: TransferError) -> Failure {
    Failure::failed(error.to_string())
}
