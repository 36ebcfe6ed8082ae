//! A page of metrics as a program reads it: samples by name and labels.

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    /// As they stand between the braces; empty when there are none.
    pub(super) labels: &'a str,
    pub(super) value: f64,
}

/// The samples of a page; what is none is passed over.
pub(super) fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        // A label may hold spaces, a value does not.
        let (series, value) = line.trim_end().rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}')?),
            None => (series, ""),
        };
        let value = value.parse().ok()?;
        Some(Sample {
            name,
            labels,
            value,
        })
    })
}

/// The first sample of this name.
pub(super) fn value(page: &str, name: &str) -> Option<f64> {
    let found = samples(page).find(|sample| sample.name == name);
    found.map(|sample| sample.value)
}

/// The value of a label, when it needs no escapes.
pub(super) fn label<'a>(sample: &Sample<'a>, name: &str) -> Option<&'a str> {
    sample
        .labels
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_all_else_is_passed_over() {
        let page =
            "# HELP a b\n# TYPE a gauge\na 1\nb{c=\"d e\",f=\"g\"} 2.5\nnonsense\nx{y=\"z\" 3\n";
        let found: Vec<_> = samples(page).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(value(page, "a"), Some(1.0));
        assert_eq!(value(page, "c"), None);
        assert_eq!(label(&found[1], "f"), Some("g"));
        assert_eq!(label(&found[1], "c"), Some("d e"));
        assert_eq!(label(&found[1], "d"), None);
    }
}
