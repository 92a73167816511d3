//! The cells of the matrix.

use webhost_agent::mover::fail::points;
use webhost_agent::mover::spec::Step;

/// What goes wrong, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The step answers with an error.
    Error,
    /// Its answer is lost, and it is asked for once more.
    Twice,
    /// The coordinator comes back from a crash and asks for the step again
    /// while it runs.
    AskedAgain,
    /// The mover's process dies; the agent lives.
    MoverKilled,
    /// The mover's process stands still for longer than the fence allows.
    MoverFrozen,
    /// It stands still and never goes on.
    MoverFrozenForGood,
    /// The agent dies, and its mover with it; another is started.
    AgentKilled,
    /// The source's PostgreSQL dies at once and recovers.
    SourceCrashed,
    /// The target's does.
    TargetCrashed,
    /// The target's agent dies: the way to its database is cut, and back
    /// later.
    TargetCut,
    /// Nothing comes through any more, but nothing is closed either; then it
    /// is cut, and back later.
    TargetSilent,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Error,
        Self::Twice,
        Self::AskedAgain,
        Self::MoverKilled,
        Self::MoverFrozen,
        Self::MoverFrozenForGood,
        Self::AgentKilled,
        Self::SourceCrashed,
        Self::TargetCrashed,
        Self::TargetCut,
        Self::TargetSilent,
    ];

    /// For tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Twice => "twice",
            Self::AskedAgain => "asked again",
            Self::MoverKilled => "mover killed",
            Self::MoverFrozen => "mover frozen",
            Self::MoverFrozenForGood => "mover frozen for good",
            Self::AgentKilled => "agent killed",
            Self::SourceCrashed => "source crashed",
            Self::TargetCrashed => "target crashed",
            Self::TargetCut => "target cut off",
            Self::TargetSilent => "target silent",
        }
    }

    /// How the mover comes to it: the value of `WEBHOST_FAIL_AT` without the
    /// point; none where the step just runs.
    pub(super) const fn deed(self) -> Option<&'static str> {
        match self {
            Self::Twice => None,
            Self::Error => Some("error:"),
            Self::MoverKilled => Some(""),
            Self::AskedAgain
            | Self::MoverFrozen
            | Self::MoverFrozenForGood
            | Self::AgentKilled
            | Self::SourceCrashed
            | Self::TargetCrashed
            | Self::TargetCut
            | Self::TargetSilent => Some("hold:"),
        }
    }
}

/// One cell: a step, where in it, and what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub step: Step,
    pub point: &'static str,
    pub fault: Fault,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {} ({})", self.fault.as_str(), self.point, self.step)
    }
}

/// The whole matrix.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for step in Step::ALL {
        for (number, point) in points(step).iter().copied().enumerate() {
            for fault in Fault::ALL {
                // To run a step twice needs no point.
                if fault != Fault::Twice || number == 0 {
                    cases.push(Case { step, point, fault });
                }
            }
        }
    }
    cases
}

/// A part for every run of the tests: each step at two of its points, with
/// the faults in turn, and the worst of them right behind the point of no
/// return.
pub fn bounded() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut turn = 0;
    for step in Step::ALL {
        let points = points(step);
        for number in [points.len() / 2, turn % points.len()] {
            let fault = Fault::ALL[turn % Fault::ALL.len()];
            turn += 3;
            cases.push(Case { step, point: points[number], fault });
        }
    }
    for fault in
        [Fault::MoverKilled, Fault::AgentKilled, Fault::SourceCrashed, Fault::TargetCrashed]
    {
        cases.push(Case { step: Step::CutOver, point: "after_moved", fault });
    }
    // Frozen while writers wait, on both sides of the point of no return.
    for (step, point) in [
        (Step::CutOver, "after_take"),
        (Step::CutOver, "after_moved"),
        (Step::RollBack, "back_after_moved"),
    ] {
        cases.push(Case { step, point, fault: Fault::MoverFrozenForGood });
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounded_part_leaves_no_step_and_no_fault_out() {
        let (bounded, all) = (bounded(), all());
        for step in Step::ALL {
            assert!(bounded.iter().any(|case| case.step == step), "{step}");
            for point in points(step) {
                assert!(all.iter().any(|case| case.point == *point), "{point}");
            }
        }
        for fault in Fault::ALL {
            assert!(bounded.iter().any(|case| case.fault == fault), "{fault:?}");
        }
        assert!(bounded.len() * 4 < all.len(), "{} of {}", bounded.len(), all.len());
    }
}
