//! Which versions of etcd are good enough.
//!
//! Older ones have faults that matter here: watches that skip or repeat, permissions that leak. They are refused at start.

use super::{StoreError, link::Links};

/// The least good patch of each minor version that is still kept; newer minors are good.
const FLOORS: [(u64, u64, u64); 3] = [(3, 5, 33), (3, 6, 14), (3, 7, 1)];

/// Asks all members; those that do not answer are not judged, unless it is all of them.
pub(super) async fn check(links: &Links, allow_old: bool) -> Result<(), StoreError> {
    let mut answered = false;
    let mut silent = String::new();
    for (endpoint, version) in links.versions().await {
        match version {
            Ok(version) if is_good(&version) => answered = true,
            Ok(version) if allow_old => {
                answered = true;
                tracing::warn!(endpoint, version, "this etcd has known faults; upgrade it");
            }
            Ok(version) => {
                return Err(links.failed(&format!(
                    "{endpoint} runs version {version}, which has known faults: 3.5.33, 3.6.14 or 3.7.1 is the least, unless `etcd_allow_old_version` is on"
                )));
            }
            Err(error) => {
                tracing::warn!(endpoint, error, "this member of etcd does not answer");
                silent = error;
            }
        }
    }
    if answered {
        Ok(())
    } else {
        Err(links.failed(&silent))
    }
}

fn is_good(version: &str) -> bool {
    let mut numbers = version
        .split(['.', '-', '+'])
        .map_while(|part| part.parse().ok());
    let mut next = || numbers.next().unwrap_or(0_u64);
    let (major, minor, patch) = (next(), next(), next());
    match FLOORS
        .iter()
        .find(|floor| (floor.0, floor.1) == (major, minor))
    {
        Some(floor) => patch >= floor.2,
        None => FLOORS
            .iter()
            .all(|floor| (major, minor) > (floor.0, floor.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_good;

    #[test]
    fn versions_with_known_faults_are_old() {
        for good in [
            "3.5.33",
            "3.5.40",
            "3.6.14",
            "3.7.1",
            "3.7.3",
            "3.8.0",
            "4.0.0",
            "3.6.14-rc.1",
        ] {
            assert!(is_good(good), "{good}");
        }
        for old in [
            "3.4.23", "3.5.32", "3.6.0", "3.6.13", "3.7.0", "2.3.8", "", "3.5", "unknown",
        ] {
            assert!(!is_good(old), "{old}");
        }
    }
}
