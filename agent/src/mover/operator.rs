//! The operator's way to settle moves while no agent runs: by the same rules,
//! from the same records and fence rows.

use std::io::Write;

use serde::Serialize;
use tokio::sync::watch;
use webhost_proto::ids::MoveId;

use super::child::Line;
use super::spec::{Done, Recovered, Serving, Step};
use super::supervisor::Supervisor;

/// The exit code when every move that was asked for is settled.
pub const SETTLED: u8 = 0;
/// The exit code when one could not be settled.
pub const UNSETTLED: u8 = 1;
/// The exit code when nothing was tried: an agent runs, or there is no such
/// move.
pub const REFUSED: u8 = 2;

/// What an operator may do about a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Finishes a switch that was begun; nothing else is changed.
    Settle,
    /// That, and undoes a move that was not switched.
    Undo,
    /// That, with a target that can't be reached.
    Abandon,
}

/// One move, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub move_id: String,
    pub tenant_id: String,
    /// The step that was last asked for.
    pub step: String,
    pub epoch: u64,
    /// "source" or "target"; none where it is not known, or was not looked at.
    pub served_by: Option<&'static str>,
    pub problem: Option<String>,
}

/// The moves on record.
pub fn list(supervisor: &Supervisor) -> Vec<Outcome> {
    let mut all: Vec<Outcome> = supervisor
        .on_record()
        .into_iter()
        .map(|(spec, step)| Outcome {
            move_id: spec.move_id.to_string(),
            tenant_id: spec.tenant.to_string(),
            step: step.to_string(),
            epoch: spec.epoch.0,
            served_by: None,
            problem: None,
        })
        .collect();
    all.sort_by(|a, b| a.move_id.cmp(&b.move_id));
    all
}

/// Settles one move, or all of them. None of that name: an empty list.
pub async fn settle(
    supervisor: &Supervisor,
    which: Option<MoveId>,
    remedy: Remedy,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for mut outcome in list(supervisor) {
        let Some((spec, _)) = supervisor
            .on_record()
            .into_iter()
            .find(|(spec, _)| spec.move_id.to_string() == outcome.move_id)
        else {
            continue;
        };
        if which.is_some_and(|which| which != spec.move_id) {
            continue;
        }
        let (silent, _) = watch::channel(None);
        // An abandoned move is settled beside the source alone.
        let settled = match remedy {
            Remedy::Abandon => Ok(Serving::Source),
            Remedy::Settle | Remedy::Undo => {
                match supervisor.by_hand(&spec, Step::Recover, &silent).await {
                    Line::Done(Done::Recover(Recovered { serving: Some(serving), .. })) => {
                        Ok(serving)
                    }
                    other => Err(said(other)),
                }
            }
        };
        let undone = match (remedy, &settled) {
            (Remedy::Undo, Ok(Serving::Source)) => Some(Step::Undo),
            (Remedy::Abandon, _) => Some(Step::Abandon),
            _ => None,
        };
        outcome.served_by = settled.as_ref().ok().map(|serving| match serving {
            Serving::Source => "source",
            Serving::Target => "target",
        });
        outcome.problem = settled.err();
        if let Some(step) = undone {
            match supervisor.by_hand(&spec, step, &silent).await {
                Line::Done(_) => outcome.step = step.to_string(),
                other => {
                    outcome.problem = Some(said(other));
                    if remedy == Remedy::Abandon {
                        outcome.served_by = None;
                    }
                }
            }
        } else if remedy == Remedy::Undo && outcome.problem.is_none() {
            outcome.problem =
                Some("it was switched and can't be undone: the target serves the tenant".into());
        }
        outcomes.push(outcome);
    }
    outcomes
}

fn said(line: Line) -> String {
    match line {
        Line::Failed { message, .. } => message,
        Line::Done(_) | Line::Progress(_) => "the mover gave another answer than asked for".into(),
    }
}

/// Prints, and says the exit code.
///
/// # Errors
/// When the output can't be written.
pub fn print(out: &mut impl Write, outcomes: &[Outcome], json: bool) -> std::io::Result<u8> {
    if json {
        let text = serde_json::to_string_pretty(outcomes).map_err(std::io::Error::other)?;
        writeln!(out, "{text}")?;
    } else if outcomes.is_empty() {
        writeln!(out, "no move is on record here")?;
    } else {
        for outcome in outcomes {
            write!(
                out,
                "move {} of tenant {}, epoch {}, last step {}",
                outcome.move_id, outcome.tenant_id, outcome.epoch, outcome.step
            )?;
            if let Some(side) = outcome.served_by {
                write!(out, ": served by the {side}")?;
            }
            if let Some(problem) = &outcome.problem {
                write!(out, "; {problem}")?;
            }
            writeln!(out)?;
        }
    }
    Ok(if outcomes.iter().any(|outcome| outcome.problem.is_some()) { UNSETTLED } else { SETTLED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_reads_well_and_a_problem_shows_in_the_exit_code() {
        let mut outcome = Outcome {
            move_id: "m".into(),
            tenant_id: "t".into(),
            step: "cut over".into(),
            epoch: 7,
            served_by: Some("target"),
            problem: None,
        };
        let mut text = Vec::new();
        let code = print(&mut text, std::slice::from_ref(&outcome), false).expect("prints");
        assert_eq!(code, SETTLED);
        assert_eq!(
            String::from_utf8_lossy(&text),
            "move m of tenant t, epoch 7, last step cut over: served by the target\n"
        );
        outcome.problem = Some("why".into());
        let code = print(&mut Vec::new(), &[outcome], true).expect("prints");
        assert_eq!(code, UNSETTLED);
        let mut text = Vec::new();
        assert_eq!(print(&mut text, &[], false).expect("prints"), SETTLED);
        assert_eq!(String::from_utf8_lossy(&text), "no move is on record here\n");
    }
}
