//! The dashboards of deploy/grafana ask for metrics that exist, and the chart carries the same files.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

use super::{
    metrics::{documented, values},
    structure::root,
};

/// Files of a folder, by name.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Words of a query that may name a metric.
fn words(query: &str) -> impl Iterator<Item = &str> {
    query.split(|c: char| !(c.is_ascii_alphanumeric() || "_:$".contains(c)))
}

/// Everything a dashboard's query may ask for: rows of docs/metrics.md, recording rules, and what Prometheus itself adds.
fn known() -> BTreeSet<String> {
    let mut known: BTreeSet<String> = ["up", "ALERTS"].map(str::to_owned).into();
    for (name, family) in documented() {
        match family.kind.as_str() {
            "histogram" => {
                known.extend(["bucket", "sum", "count"].map(|of| format!("{name}_{of}")));
            }
            _ => {
                known.insert(name);
            }
        }
    }
    let rules = fs::read_to_string(root().join("deploy/prometheus/rules.yaml")).unwrap();
    known.extend(values(&rules, "record:"));
    known
}

/// A query takes its metrics from `known`, and shows no more than the largest series where a label has many values.
fn check(query: &str, known: &BTreeSet<String>, at: &str) {
    let selectors = query.split('{').rev().skip(1);
    let selected = selectors.filter_map(|before| words(before).last());
    let named = words(query).filter(|word| word.starts_with("xai") || word.starts_with("process_"));
    let mut any = false;
    for metric in selected.chain(named) {
        assert!(known.contains(metric), "{metric} at {at}: {query}");
        any = true;
    }
    assert!(any, "no metric at {at}: {query}");
    let mut groups = query.split("by (").skip(1);
    let many = groups.any(|group| {
        let labels = group.split(')').next().unwrap_or_default();
        words(labels).any(|label| ["provider", "rpc"].contains(&label))
    });
    let bounded = !many || query.contains("topk(");
    assert!(bounded, "it has no bound at {at}: {query}");
}

#[test]
fn every_dashboard_asks_for_metrics_that_exist() {
    let known = known();
    let (mut uids, mut queries) = (BTreeSet::new(), 0);
    for file in files("deploy/grafana/dashboards") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let board: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(uids.insert(board["uid"].as_str().unwrap().to_owned()));
        let variables = board["templating"]["list"].as_array().unwrap();
        let variables: Vec<&str> = variables
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {panel}");
            let none = Vec::new();
            for target in panel["targets"].as_array().unwrap_or(&none) {
                let at = format!("{name}: {}", panel["title"]);
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{at}");
                let query = target["expr"].as_str().unwrap();
                check(query, &known, &at);
                let used = words(query).filter_map(|word| word.strip_prefix('$'));
                for variable in used.filter(|used| !used.starts_with("__")) {
                    assert!(variables.contains(&variable), "${variable} at {at}");
                }
                queries += 1;
            }
        }
    }
    let all = ["proxyxai-cascade", "proxyxai-operator", "proxyxai-tenant"];
    assert_eq!(uids, all.map(str::to_owned).into());
    assert!(queries > 50, "{queries}");
}

#[test]
fn the_chart_carries_the_same_rules_and_dashboards() {
    let mut pairs = vec![(
        root().join("deploy/prometheus/rules.yaml"),
        root().join("helm/proxyxai/rules/rules.yaml"),
    )];
    let copies = root().join("helm/proxyxai/dashboards");
    for file in files("deploy/grafana/dashboards") {
        let copy = copies.join(file.file_name().unwrap());
        pairs.push((file, copy));
    }
    for (own, copy) in &pairs {
        let same = fs::read(own).unwrap() == fs::read(copy).unwrap_or_default();
        assert!(same, "`make chart` copies {}", own.display());
    }
    let carried = files("helm/proxyxai/rules").len() + files("helm/proxyxai/dashboards").len();
    assert_eq!(carried, pairs.len(), "what was taken away is in the chart");
}
