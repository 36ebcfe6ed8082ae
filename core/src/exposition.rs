//! Prometheus' text format, version 0.0.4: families, samples, histograms.
//!
//! Invariants: a family is announced once, before its samples; a label's value is escaped here, whatever it is.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What a family counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many observations fall below each bound.
    Histogram,
}

/// The value of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// A count.
    Whole(u64),
    /// A time, shown in seconds.
    Seconds(Duration),
    /// Money, shown in US dollars: nano-USD.
    Nano(u64),
}

impl From<u64> for Number {
    fn from(count: u64) -> Self {
        Self::Whole(count)
    }
}

impl From<usize> for Number {
    fn from(count: usize) -> Self {
        Self::Whole(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Number {
    fn from(holds: bool) -> Self {
        Self::Whole(u64::from(holds))
    }
}

impl From<Duration> for Number {
    fn from(time: Duration) -> Self {
        Self::Seconds(time)
    }
}

impl From<&AtomicU64> for Number {
    fn from(count: &AtomicU64) -> Self {
        Self::Whole(count.load(Ordering::Relaxed))
    }
}

/// A page of metrics that is being written.
pub struct Page<'a>(&'a mut String);

impl<'a> Page<'a> {
    /// Goes on behind what is there.
    pub fn new(out: &'a mut String) -> Self {
        Self(out)
    }

    /// Announces a family.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _to_a_string = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Into<Number>) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _to_a_string = match value.into() {
            Number::Whole(count) => writeln!(self.0, " {count}"),
            Number::Seconds(time) => {
                writeln!(self.0, " {}.{:06}", time.as_secs(), time.subsec_micros())
            }
            Number::Nano(nano) => {
                const WHOLE: u64 = 1_000_000_000;
                writeln!(self.0, " {}.{:09}", nano / WHOLE, nano % WHOLE)
            }
        };
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.family(name, Kind::Counter, help);
        self.sample(name, &[], value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.family(name, Kind::Gauge, help);
        self.sample(name, &[], value);
    }

    /// The samples of a histogram: bounds in milliseconds, how many fell into each bucket (one more than there are bounds), their sum.
    pub fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        (bounds_ms, counts): (&[u64], &[u64]),
        sum: Duration,
    ) {
        let bucket = format!("{name}_bucket");
        let mut below = 0_u64;
        for (at, count) in counts.iter().enumerate() {
            below = below.saturating_add(*count);
            let bound = bounds_ms.get(at).map_or("+Inf".to_owned(), |ms| {
                format!("{}.{:03}", ms / 1000, ms % 1000)
            });
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.sample(&bucket, &labels, below);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, below);
    }
}

/// Observed times that many threads add to.
#[derive(Debug)]
pub struct Histogram {
    bounds_ms: &'static [u64],
    counts: Vec<AtomicU64>,
    sum_us: AtomicU64,
}

impl Histogram {
    /// With these upper bounds, which grow, in milliseconds.
    pub fn new(bounds_ms: &'static [u64]) -> Self {
        let buckets = bounds_ms.len().saturating_add(1);
        Self {
            bounds_ms,
            counts: std::iter::repeat_with(AtomicU64::default)
                .take(buckets)
                .collect(),
            sum_us: AtomicU64::new(0),
        }
    }

    /// Adds one.
    pub fn observe(&self, time: Duration) {
        let bucket = self
            .bounds_ms
            .partition_point(|bound| Duration::from_millis(*bound) < time);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Writes its samples.
    pub fn show(&self, page: &mut Page<'_>, name: &str, labels: &[(&str, &str)]) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts: Vec<u64> = self.counts.iter().map(get).collect();
        let sum = Duration::from_micros(get(&self.sum_us));
        page.histogram(name, labels, (self.bounds_ms, &counts), sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut out = String::new();
        let mut page = Page::new(&mut out);
        page.counter("a_total", "Of a.", 3_u64);
        page.family("b", Kind::Gauge, "Of b.");
        page.sample(
            "b",
            &[("x", "one"), ("y", "\"two\"\\\n")],
            Duration::from_millis(1_500),
        );
        page.sample("c", &[], Number::Nano(1_000_000_001));
        let histogram = Histogram::new(&[5, 1_000]);
        for ms in [1, 5, 6, 2_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        histogram.show(&mut page, "d", &[("x", "one")]);
        let expected = r#"# HELP a_total Of a.
# TYPE a_total counter
a_total 3
# HELP b Of b.
# TYPE b gauge
b{x="one",y="\"two\"\\\n"} 1.500000
c 1.000000001
d_bucket{x="one",le="0.005"} 2
d_bucket{x="one",le="1.000"} 3
d_bucket{x="one",le="+Inf"} 4
d_sum{x="one"} 2.012000
d_count{x="one"} 4
"#;
        assert_eq!(out, expected);
    }
}
