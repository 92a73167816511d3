//! Figures with their goals: printed, and written as JSON.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Less,
    More,
}

/// One figure, as `target/bench/NAME.json` lists them.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub figure: String,
    pub value: f64,
    pub unit: &'static str,
    /// None where a figure is only there to compare with.
    pub goal: Option<f64>,
    pub better: Better,
    /// What an earlier prototype measured, in words; printed only.
    #[serde(skip)]
    pub prototype: &'static str,
}

/// All figures of a run, in order.
#[derive(Default)]
pub struct Figures {
    all: Vec<Figure>,
}

impl Figures {
    /// A figure where less is better.
    pub fn less(&mut self, figure: &str, value: f64, unit: &'static str, goal: Option<f64>) {
        self.add(figure, value, unit, goal, Better::Less, "");
    }

    /// A figure where more is better.
    pub fn more(&mut self, figure: &str, value: f64, unit: &'static str, goal: Option<f64>) {
        self.add(figure, value, unit, goal, Better::More, "");
    }

    /// Any figure, with the prototype's beside it.
    pub fn add(
        &mut self,
        figure: &str,
        value: f64,
        unit: &'static str,
        goal: Option<f64>,
        better: Better,
        prototype: &'static str,
    ) {
        // Three decimals are more than any of these is worth.
        let value = (value * 1000.0).round() / 1000.0;
        let figure = Figure { figure: figure.into(), value, unit, goal, better, prototype };
        let line = figure.line();
        // A reader that is gone (`| head`) does not end a measurement.
        let _written = writeln!(std::io::stdout().lock(), "{line}");
        self.all.push(figure);
    }

    /// Writes `target/bench/NAME.json`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, name: &str) -> anyhow::Result<()> {
        let folder = Path::new("target/bench");
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let file = folder.join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec_pretty(&self.all)?)
            .with_context(|| format!("write {}", file.display()))
    }
}

impl Figure {
    /// The figure as it is printed.
    pub fn line(&self) -> String {
        let decimals = match self.value.abs() {
            value if value < 10.0 => 3,
            value if value < 1000.0 => 1,
            _ => 0,
        };
        let goal = self.goal.map_or_else(String::new, |goal| {
            let (sign, met) = match self.better {
                Better::Less => ("≤", self.value <= goal),
                Better::More => ("≥", self.value >= goal),
            };
            format!("goal {sign} {goal}{}", if met { "" } else { ", missed" })
        });
        let prototype = match self.prototype {
            "" => String::new(),
            said => format!("  prototype {said}"),
        };
        format!(
            "{:<62} {:>11.decimals$} {:<7} {goal}{prototype}",
            self.figure, self.value, self.unit
        )
    }
}

/// The value below which `permille` of the sorted values lie; 0 of none.
pub fn quantile(sorted: &[u64], permille: usize) -> u64 {
    let at = (sorted.len() * permille / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// Microseconds as milliseconds.
pub fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// Rows in a time, per second.
pub fn per_second(rows: u64, micros: u64) -> f64 {
    rows as f64 * 1e6 / micros.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few() {
        let sorted = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        for (permille, want) in [(0, 1), (500, 6), (990, 10), (1000, 10)] {
            assert_eq!(quantile(&sorted, permille), want, "{permille}");
        }
        assert_eq!(quantile(&[], 500), 0);
    }

    #[test]
    fn a_missed_goal_is_said() {
        let mut figure = Figure {
            figure: "fence p50".into(),
            value: 4.5,
            unit: "ms",
            goal: Some(4.0),
            better: Better::Less,
            prototype: "4.9",
        };
        assert!(figure.line().ends_with("4.500 ms      goal ≤ 4, missed  prototype 4.9"));
        figure.value = 3.0;
        assert!(!figure.line().contains("missed"));
    }
}
