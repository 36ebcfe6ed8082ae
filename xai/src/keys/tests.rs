//! Keys from all kinds of places, chosen by what the store is sealed under.

use proxyxai_control_plane::store::{Op, Txn, embedded::EmbeddedStore};
use proxyxai_core::ports::Random;

use super::*;
use crate::settings::{self, Given, Settings};

const ONE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const TWO: &str = "02020202020202020202020202020202020202020202020202020202020202Fe";

struct Sevens;

impl Random for Sevens {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

fn id(text: &str) -> String {
    parse(text).unwrap().id().to_string()
}

/// A data directory with settings, and a store that is sealed under this key.
struct Place {
    folder: tempfile::TempDir,
    settings: Settings,
    environment: Environment,
    store: Arc<dyn Store>,
}

impl Place {
    async fn new(in_use: &str, next: &str, sealed_by: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::from([("KEY", ONE), ("OTHER", TWO)]);
        let given = Given {
            data: Some(folder.path().to_str().unwrap().parse().unwrap()),
            key_encryption_key: Some(in_use.parse().unwrap()),
            next_key_encryption_key: Some(next.parse().unwrap()),
            ..Given::default()
        };
        let settings = settings::load(given, None, &environment).unwrap().settings;
        let store = EmbeddedStore::in_memory().unwrap();
        if let Some(key) = sealed_by {
            // A `Text`: field 1, its length, its bytes.
            let value = [&[10, 16], id(key).as_bytes()].concat();
            let txn = Txn {
                compares: Vec::new(),
                then: vec![Op::Put("meta/key-encryption-key".into(), value)],
            };
            store.txn(txn).await.unwrap();
        }
        Self {
            folder,
            settings,
            environment,
            store: Arc::new(store),
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder.path().join(name)).ok();
        text.map(|text| text.trim().to_owned())
    }

    async fn choose(&self) -> Result<String, String> {
        let chosen = choose(
            self.settings.keys(),
            &self.environment,
            &self.store,
            Some(&Sevens),
        )
        .await;
        chosen
            .map(|key| key.id().to_string())
            .map_err(|error| error.to_string())
    }

    async fn refused(&self, words: &[&str]) {
        let text = self.choose().await.unwrap_err();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            words.iter().all(|word| text.contains(word)),
            "{text} lacks {words:?}"
        );
        assert!(
            !text.contains(&ONE[..8]) && !text.contains(&TWO[..8]),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_key_is_made_for_an_empty_store_alone() {
    let place = Place::new("file", "file", None).await;
    let made = place.choose().await.unwrap();
    assert_eq!(id(&place.read(KEY_ENCRYPTION_KEY).unwrap()), made);
    assert_eq!(place.choose().await.unwrap(), made);
    let place = Place::new("file", "file", Some(ONE)).await;
    place
        .refused(&[&id(ONE), "there is no key", "put it back"])
        .await;
    assert_eq!(place.read(KEY_ENCRYPTION_KEY), None);
    let place = Place::new("env:NOBODY", "file", None).await;
    place
        .refused(&["there is no key", "new-key", "env:NOBODY"])
        .await;
}

#[tokio::test]
async fn the_key_that_fits_the_store_is_taken_from_all_kinds_of_places() {
    for in_use in ["env:KEY", "command:printenv KEY", "command:echo"] {
        let place = Place::new(in_use, "file", Some(ONE)).await;
        match in_use {
            "command:echo" => {
                place
                    .refused(&["command:echo", "64 hexadecimal digits"])
                    .await
            }
            // The variable is of the settings' environment, not of this process.
            "command:printenv KEY" => place.refused(&["printenv KEY", "failed", "by hand"]).await,
            _ => assert_eq!(place.choose().await.unwrap(), id(ONE)),
        }
    }
    let place = Place::new(&format!("command:echo {ONE}"), "file", Some(ONE)).await;
    assert_eq!(place.choose().await.unwrap(), id(ONE));
    let place = Place::new("command:/no/such/program", "file", Some(ONE)).await;
    place.refused(&["/no/such/program", "does not start"]).await;
    // Neither fits: what the key in use is goes on, and the control plane names both.
    let place = Place::new("env:OTHER", "file", Some(ONE)).await;
    assert_eq!(place.choose().await.unwrap(), id(TWO));
    for wrong in [
        "",
        "xy",
        &ONE[1..],
        &format!("{ONE}0"),
        &ONE.replace('1', "g"),
    ] {
        let place = Place::new("file", "file", None).await;
        place.write(KEY_ENCRYPTION_KEY, wrong);
        place.refused(&["64 hexadecimal digits"]).await;
    }
}

#[tokio::test]
async fn a_next_key_that_the_store_is_sealed_under_takes_its_place() {
    let place = Place::new("file", "file", Some(TWO)).await;
    place.write(KEY_ENCRYPTION_KEY, ONE);
    place.write(NEXT_KEY_ENCRYPTION_KEY, TWO);
    assert_eq!(place.choose().await.unwrap(), id(TWO));
    assert_eq!(place.read(KEY_ENCRYPTION_KEY).as_deref(), Some(TWO));
    assert_eq!(place.read(NEXT_KEY_ENCRYPTION_KEY), None);
    let kept = format!("{KEY_ENCRYPTION_KEY}.{}", id(ONE));
    assert_eq!(place.read(&kept).as_deref(), Some(ONE));
    // Places that others keep are left alone.
    let place = Place::new("env:KEY", "env:OTHER", Some(TWO)).await;
    assert_eq!(place.choose().await.unwrap(), id(TWO));
}

#[tokio::test]
async fn a_command_is_bounded_in_time_with_all_that_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("slow");
    let pid = folder.path().join("pid");
    let text = format!("sleep 600 & echo $! > {}; wait\n", pid.display());
    fs::write(&script, text).unwrap();
    let arguments = [script.to_str().unwrap().to_owned()];
    // Long enough for the script to begin on a busy machine: it is waited for, below, before the command is given up.
    let begun = async {
        loop {
            match fs::read_to_string(&pid) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let (answer, sleeper) = tokio::join!(run("sh", &arguments, Duration::from_secs(5)), begun);
    assert_eq!(
        answer.err().as_deref(),
        Some("the command gave no answer within 5 s")
    );
    let sleeper = rustix::process::Pid::from_raw(sleeper.trim().parse().unwrap()).unwrap();
    let gone = async {
        // Until its new parent has taken notice, it is still listed.
        while rustix::process::test_kill_process(sleeper).is_ok() && !is_dead(sleeper) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone)
        .await
        .unwrap();
}

/// Whether only its name is left.
fn is_dead(pid: rustix::process::Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.contains(") Z "))
}
