//! Whether the two sides' tables are the same.

use super::Table;
use crate::mover::hypertable::Hypertable;

/// What differs between the two sides' tables, each in a sentence.
pub fn differences(source: &[Table], target: &[Table]) -> Vec<String> {
    let mut problems = Vec::new();
    for here in source {
        let Some(there) = target.iter().find(|table| table.name == here.name) else {
            problems.push(format!("table {} is missing on the target", here.name));
            continue;
        };
        let show = |table: &Table| {
            table
                .columns
                .iter()
                .map(|c| {
                    format!(
                        "{} {}{}{}",
                        c.name,
                        c.full_type,
                        if c.not_null { " not null" } else { "" },
                        if c.generated { " generated" } else { "" }
                    )
                })
                .collect::<Vec<_>>()
        };
        let (left, right) = (show(here), show(there));
        if left != right {
            let first = left
                .iter()
                .zip(&right)
                .find(|(a, b)| a != b)
                .map(|(a, b)| format!("source has {a}, target has {b}"))
                .unwrap_or_else(|| {
                    format!("source has {} columns, target {}", left.len(), right.len())
                });
            problems.push(format!("columns of {} differ: {first}", here.name));
        }
        if !here.membership.same_as(&there.membership)
            || here.key != there.key
            || here.time != there.time
        {
            problems.push(format!("the key of {} differs between source and target", here.name));
        }
        if here.hypertable != there.hypertable {
            let show = |table: &Table| {
                table
                    .hypertable
                    .as_ref()
                    .map_or_else(|| "a plain table".to_owned(), Hypertable::to_string)
            };
            problems.push(format!(
                "{} is {} on the source and {} on the target",
                here.name,
                show(here),
                show(there)
            ));
        }
        for constraint in &here.constraints {
            if !there.constraints.contains(constraint) {
                problems.push(format!("{} lacks on the target: {constraint}", here.name));
            }
        }
        for constraint in &there.constraints {
            if !here.constraints.contains(constraint) {
                problems.push(format!("{} has only on the target: {constraint}", here.name));
            }
        }
        for sequence in &here.sequences {
            if !there.sequences.contains(sequence) {
                problems
                    .push(format!("sequence {sequence} of {} is missing on the target", here.name));
            }
        }
    }
    problems
}
