//! Rows of results: percentiles, comparisons, aims, and how they are shown.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Aim {
    /// The median is at most this.
    P50(f64),
    /// The 99th percentile is at most this.
    P99(f64),
    /// The ratio is at least this.
    RatioAtLeast(f64),
    /// The ratio is at most this.
    RatioAtMost(f64),
}

/// One measured quantity.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    name: String,
    unit: &'static str,
    n: usize,
    p50: f64,
    p99: f64,
    against: Option<(String, f64)>,
    aims: Vec<Aim>,
}

impl Row {
    /// Smaller is better: the 99th percentile is a long time.
    pub(super) fn costs(name: impl Into<String>, unit: &'static str, samples: &[f64]) -> Self {
        Self::of(name.into(), unit, samples, 0.99)
    }

    /// Larger is better: the 99th percentile is a low rate, which 99 of 100 samples reach.
    pub(super) fn rates(name: impl Into<String>, unit: &'static str, samples: &[f64]) -> Self {
        Self::of(name.into(), unit, samples, 0.01)
    }

    /// Durations, in milliseconds.
    pub(super) fn times(name: impl Into<String>, samples: &[Duration]) -> Self {
        let milliseconds: Vec<f64> = samples.iter().map(|took| took.as_secs_f64() * 1e3).collect();
        Self::costs(name, "ms", &milliseconds)
    }

    fn of(name: String, unit: &'static str, samples: &[f64], tail: f64) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            name,
            unit,
            n: sorted.len(),
            p50: percentile(&sorted, 0.5),
            p99: percentile(&sorted, tail),
            against: None,
            aims: Vec::new(),
        }
    }

    /// The same, compared with another row by their medians.
    #[must_use]
    pub(super) fn against(self, other: &Self) -> Self {
        let ratio = self.p50 / other.p50;
        self.ratio(&other.name, ratio)
    }

    /// The same, compared with something else.
    #[must_use]
    pub(super) fn ratio(mut self, against: &str, ratio: f64) -> Self {
        self.against = Some((against.to_owned(), ratio));
        self
    }

    /// The same, with something that it should be.
    #[must_use]
    pub(super) fn aim(mut self, aim: Aim) -> Self {
        self.aims.push(aim);
        self
    }

    /// Its ratio to what it is compared with.
    pub(super) fn found_ratio(&self) -> Option<f64> {
        self.against.as_ref().map(|(_, ratio)| *ratio)
    }

    fn is_met(&self, aim: &Aim) -> bool {
        let ratio = self.found_ratio();
        match aim {
            Aim::P50(most) => self.p50 <= *most,
            Aim::P99(most) => self.p99 <= *most,
            Aim::RatioAtLeast(least) => ratio.is_some_and(|ratio| ratio >= *least),
            Aim::RatioAtMost(most) => ratio.is_some_and(|ratio| ratio <= *most),
        }
    }

    /// Whether everything is as it should be; `None` if nothing was asked for.
    fn met(&self) -> Option<bool> {
        (!self.aims.is_empty()).then(|| self.aims.iter().all(|aim| self.is_met(aim)))
    }

    fn aims_text(&self) -> String {
        let texts = self.aims.iter().map(|aim| match aim {
            Aim::P50(most) => format!("p50 ≤ {}", number(*most)),
            Aim::P99(most) => format!("p99 ≤ {}", number(*most)),
            Aim::RatioAtLeast(least) => format!("ratio ≥ {least:.2}"),
            Aim::RatioAtMost(most) => format!("ratio ≤ {most:.2}"),
        });
        texts.collect::<Vec<_>>().join(", ")
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit,
            "n": self.n,
            "p50": self.p50,
            "p99": self.p99,
            "against": self.against.as_ref().map(|(name, _)| name),
            "ratio": self.found_ratio(),
            "target": (!self.aims.is_empty()).then(|| self.aims_text()),
            "met": self.met(),
        })
    }

    fn cells(&self) -> [String; 9] {
        let (against, ratio) = match &self.against {
            Some((name, ratio)) => (name.clone(), format!("{ratio:.2}")),
            None => Default::default(),
        };
        let met = match self.met() {
            None => "",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        [
            self.name.clone(),
            number(self.p50),
            number(self.p99),
            self.unit.to_owned(),
            self.n.to_string(),
            against,
            ratio,
            self.aims_text(),
            met.to_owned(),
        ]
    }
}

/// All rows, in the order in which they were measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

const HEAD: [&str; 9] = [
    "name", "p50", "p99", "unit", "n", "against", "ratio", "target", "",
];
/// Columns of numbers.
const RIGHT: [usize; 4] = [1, 2, 4, 6];

impl Report {
    /// Adds a row.
    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds something that was done once for so many floating IPs.
    pub(super) fn took(&mut self, what: &str, count: usize, took: Duration) {
        self.add(Row::times(format!("{what}/{count}"), &[took]));
    }

    /// A row by its name.
    pub(super) fn find(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// As a table for people.
    pub(super) fn table(&self) -> String {
        let lines: Vec<[String; 9]> = std::iter::once(HEAD.map(str::to_owned))
            .chain(self.rows.iter().map(Row::cells))
            .collect();
        let mut widths = [0; 9];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut table = String::new();
        for line in &lines {
            let mut text = String::new();
            for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
                let _ = if RIGHT.contains(&column) {
                    write!(text, "{cell:>width$}  ")
                } else {
                    write!(text, "{cell:<width$}  ")
                };
            }
            table += text.trim_end();
            table.push('\n');
        }
        table
    }

    /// One sentence on what was aimed at.
    pub(super) fn verdict(&self) -> String {
        let judged: Vec<bool> = self.rows.iter().filter_map(Row::met).collect();
        let met = judged.iter().filter(|met| **met).count();
        let idle = "the figures of a busy machine say little";
        format!("{met} of {} targets met; {idle}", judged.len())
    }

    /// As a list for programs.
    pub(super) fn json(&self) -> String {
        let rows: Vec<String> = self.rows.iter().map(|row| format!("  {}", row.json())).collect();
        format!("[\n{}\n]\n", rows.join(",\n"))
    }
}

/// The median of numbers; nought of none.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, 0.5)
}

/// The nearest rank.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Three digits that count, and no decimals where they would not.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).rev().collect();
        let costs = Row::costs("x", "ms", &hundred);
        assert_eq!((costs.n, costs.p50, costs.p99), (100, 50.0, 99.0));
        let rates = Row::rates("x", "1/s", &hundred);
        assert_eq!((rates.p50, rates.p99), (50.0, 1.0));
        let seven = Row::rates("x", "1/s", &[7.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!((seven.p50, seven.p99), (4.0, 1.0));
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_missed_aim_is_marked_and_nothing_else() {
        let other = Row::costs("other", "ms", &[2.0]);
        let row = Row::costs("mine", "ms", &[3.0]).against(&other);
        assert_eq!(row.met(), None);
        let met = row.clone().aim(Aim::P50(3.0)).aim(Aim::RatioAtMost(1.5));
        assert_eq!(met.met(), Some(true));
        let missed = met.aim(Aim::RatioAtLeast(1.51));
        assert_eq!(missed.met(), Some(false));
        let mut report = Report::default();
        report.add(other);
        report.add(missed);
        assert_eq!(report.table().matches("MISSED").count(), 1);
        assert!(report.verdict().starts_with("0 of 1 targets met"));
    }

    #[test]
    fn results_are_a_list_with_the_keys_that_programs_expect() {
        let mut report = Report::default();
        report.add(Row::costs("a", "ms", &[1.0]));
        report.add(Row::costs("b", "ms", &[2.0]).ratio("a", 2.0));
        let list: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(list[0]["against"], Value::Null);
        let row = &list[1];
        assert_eq!(
            (&row["name"], &row["unit"], &row["n"]),
            (&json!("b"), &json!("ms"), &json!(1))
        );
        assert_eq!((&row["p50"], &row["p99"]), (&json!(2.0), &json!(2.0)));
        assert_eq!((&row["against"], &row["ratio"]), (&json!("a"), &json!(2.0)));
    }
}
