//! The matrix as a table, step by fault.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::case::{Case, Fault};
use super::play::Played;

/// What came of the cases so far.
#[derive(Default)]
pub struct Report {
    /// By the step's word and the fault.
    cells: BTreeMap<(usize, Fault), Cell>,
    steps: Vec<String>,
    pub failures: Vec<String>,
    writes: usize,
    in_doubt: u64,
    recoveries: Vec<Duration>,
}

#[derive(Default)]
struct Cell {
    well: u32,
    failed: u32,
    worst: Option<Duration>,
}

impl Report {
    /// Adds one case.
    pub fn add(&mut self, case: Case, outcome: anyhow::Result<Played>) {
        let step = case.step.to_string();
        let row = self.steps.iter().position(|known| *known == step).unwrap_or_else(|| {
            self.steps.push(step);
            self.steps.len() - 1
        });
        let cell = self.cells.entry((row, case.fault)).or_default();
        match outcome {
            Ok(played) => {
                cell.well += 1;
                cell.worst = cell.worst.max(played.recovery);
                self.writes += played.writes;
                self.in_doubt += played.in_doubt;
                self.recoveries.extend(played.recovery);
            }
            Err(error) => {
                cell.failed += 1;
                self.failures.push(format!("{error:#}"));
            }
        }
    }

    /// How many cases there were.
    pub fn cases(&self) -> u32 {
        self.cells.values().map(|cell| cell.well + cell.failed).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}", "step")?;
        for fault in Fault::ALL {
            write!(f, " {:>15}", fault.as_str())?;
        }
        writeln!(f)?;
        for (row, step) in self.steps.iter().enumerate() {
            write!(f, "{step:<11}")?;
            for fault in Fault::ALL {
                let text = match self.cells.get(&(row, fault)) {
                    None => "–".to_owned(),
                    Some(cell) => {
                        let worst = cell.worst.map(|worst| format!(" {} ms", worst.as_millis()));
                        let failed = if cell.failed > 0 {
                            format!(" {} FAILED", cell.failed)
                        } else {
                            String::new()
                        };
                        format!("{} ok{}{failed}", cell.well, worst.unwrap_or_default())
                    }
                };
                write!(f, " {text:>15}")?;
            }
            writeln!(f)?;
        }
        let mut sorted = self.recoveries.clone();
        sorted.sort();
        let at = |part: usize| sorted.get(sorted.len() * part / 100).or(sorted.last());
        writeln!(
            f,
            "{} cases, {} failed; {} writes acknowledged, {} commits in doubt and looked up; \
             one side active after {:?} (p50), {:?} (p95), {:?} (max)",
            self.cases(),
            self.failures.len(),
            self.writes,
            self.in_doubt,
            at(50).copied().unwrap_or_default(),
            at(95).copied().unwrap_or_default(),
            sorted.last().copied().unwrap_or_default(),
        )?;
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        Ok(())
    }
}
