//! The tables of docs/metrics.md say what running programs expose, and rules and runbook fit them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use proxyxai_testkit::Fault;

use super::{
    collector::Collector,
    machines::Machine,
    process::{Ask, Gateway, Home, until},
    structure::root,
};

/// A family of metrics: its type, its help, the labels of its samples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Family {
    pub(super) kind: String,
    help: String,
    labels: BTreeSet<String>,
    samples: usize,
}

/// The families of a page, each announced once and before its samples.
fn families(page: &str) -> BTreeMap<String, Family> {
    let mut found: BTreeMap<String, Family> = BTreeMap::new();
    let mut last = String::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            last = name.to_owned();
            let family = Family {
                help: help.to_owned(),
                ..Family::default()
            };
            assert!(found.insert(last.clone(), family).is_none(), "{name} twice");
            continue;
        }
        let family = found.get_mut(&last).unwrap();
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, last);
            family.kind = kind.to_owned();
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let of = match family.kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix)),
            _ => Some(name),
        };
        assert_eq!(of, Some(last.as_str()), "{line}");
        let labels = labels.trim_end_matches('}').split("\",");
        let names = labels.filter_map(|label| label.split_once('='));
        let names = names.map(|(name, _)| name.to_owned());
        family.labels.extend(names.filter(|name| name != "le"));
        family.samples += 1;
    }
    found
}

/// Rows of the tables: name, type, labels, meaning, bound.
pub(super) fn documented() -> BTreeMap<String, Family> {
    let text = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut found = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, meaning, bound] = cells.as_slice() else {
            panic!("a row has five cells: {row}");
        };
        assert!(!bound.is_empty(), "how many series there may be: {row}");
        let labels = labels.split(", ").map(|label| label.trim_matches('`'));
        let family = Family {
            kind: (*kind).to_owned(),
            help: (*meaning).to_owned(),
            labels: labels
                .filter(|label| !label.is_empty())
                .map(str::to_owned)
                .collect(),
            samples: 0,
        };
        let name = name.trim_matches('`').to_owned();
        assert!(found.insert(name, family).is_none(), "{row}");
    }
    found
}

#[tokio::test]
async fn the_tables_of_metrics_say_what_is_exposed() {
    let (home, collector) = (Home::new(), Collector::start().await);
    let (keys, url) = (home.keys(), collector.url());
    let variables = [
        ("XAI_KEYS", keys.as_str()),
        ("XAI_TRACE_ENDPOINT", url.as_str()),
    ];
    let gateway = home.start(&variables).await;
    let key = home.first_key();
    home.sim.script("*", [Fault::status(500)]);
    for ask in [
        Ask::chat(&key, "gpt-4o-mini", "tokens=2"),
        Ask::chat(&key, "gpt-4o-mini", "tokens=2").streamed(),
        Ask::chat("nobody", "gpt-4o-mini", ""),
    ] {
        gateway.ask(&ask).await;
    }
    let token = home.json("join-token create").await["token"].clone();
    let planes = format!("https://{}", gateway.grpc);
    let variables = [
        ("XAI_CONTROL_PLANES", planes.as_str()),
        ("XAI_JOIN_TOKEN", token.as_str().unwrap()),
    ];
    let data = home.data().with_file_name("node");
    let node = Machine::start(&home, data, "xai-data-plane", &variables).await;
    node.ready().await;
    let page = until("all that is asked for is in the metrics", async || {
        let page = Gateway::get(gateway.ops, "/metrics", &[]).await.body;
        let booked = page.contains("xai_upstream_attempts_total{");
        let joined = page.contains("xai_rpc_calls_total{rpc=\"Join\",code=\"OK\"} 1");
        (booked && joined).then_some(page)
    })
    .await;
    let mut exposed = families(&page);
    let alone = families(&node.get("/metrics").await.body);
    for (name, family) in alone {
        let both = exposed
            .entry(name.clone())
            .or_insert_with(|| family.clone());
        assert_eq!(
            (&both.kind, &both.help),
            (&family.kind, &family.help),
            "{name}"
        );
        both.labels.extend(family.labels);
        both.samples += family.samples;
    }
    let documented = documented();
    for (name, family) in &exposed {
        assert!(family.samples > 0, "{name} has no sample in this test");
        let row = documented.get(name);
        let row = row.unwrap_or_else(|| panic!("{name} is not in docs/metrics.md: {family:?}"));
        assert_eq!(row.kind, family.kind, "type of {name}");
        assert_eq!(row.help, family.help, "meaning of {name}");
        assert_eq!(row.labels, family.labels, "labels of {name}");
    }
    for name in documented.keys() {
        assert!(exposed.contains_key(name), "{name} is exposed by nobody");
    }
    node.stop().await;
    gateway.stop().await;
}

/// What stands behind `- alert:` and the like.
pub(super) fn values(text: &str, key: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter_map(|line| line.trim_start_matches("- ").strip_prefix(key))
        .map(|value| value.trim().trim_matches('\'').to_owned())
        .collect()
}

#[test]
fn every_alert_has_a_case_and_a_section_and_asks_for_metrics_that_exist() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let rules = read("deploy/prometheus/rules.yaml");
    let cases = values(&read("deploy/prometheus/tests.yaml"), "alertname:");
    let runbook = read("docs/runbook.md");
    let sections: BTreeSet<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let alerts = values(&rules, "alert:");
    assert!(alerts.len() > 20);
    for alert in &alerts {
        let count = cases.iter().filter(|case| *case == alert).count();
        assert_eq!(
            count, 2,
            "{alert}: one case where it fires, one where it does not"
        );
        assert!(sections.contains(alert.as_str()), "{alert} has no section");
        let link = format!("runbook: docs/runbook.md#{}", alert.to_lowercase());
        assert!(rules.contains(&link), "{link}");
    }
    assert_eq!(
        sections.len(),
        alerts.len(),
        "sections of alerts that exist"
    );
    let recorded: BTreeSet<String> = values(&rules, "record:").into_iter().collect();
    let documented = documented();
    for expression in values(&rules, "expr:") {
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
        for word in words.filter(|word| word.starts_with("xai") || word.starts_with("process_")) {
            let family = word.strip_suffix("_bucket").unwrap_or(word);
            let known = documented.contains_key(family) || recorded.contains(word);
            assert!(known, "{word} in {expression}");
        }
    }
}

/// How long promtool may take on a loaded machine.
const PROMTOOL: Duration = Duration::from_secs(60);

#[tokio::test]
#[ignore = "needs promtool: PROMTOOL_BIN, or promtool on the PATH"]
async fn promtool_agrees_with_the_rules() {
    let program = std::env::var_os("PROMTOOL_BIN").unwrap_or_else(|| "promtool".into());
    for words in [
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "tests.yaml"],
    ] {
        let mut command = tokio::process::Command::new(&program);
        command
            .args(words)
            .current_dir(root().join("deploy/prometheus"));
        let done = tokio::time::timeout(PROMTOOL, command.output()).await;
        let done = done.expect("promtool ends").unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{words:?}: {said}");
    }
}
