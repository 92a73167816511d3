//! Mutations of the mover that must make the tests go red: each takes away
//! one thing that the whole rests on.
//!
//! A mutation is a text that occurs once in a file, and what takes its place.
//! `make mutants` applies each in a copy of the tree and runs the test that
//! must fail; an ordinary test holds the anchors.

use std::path::Path;

use anyhow::{Context, ensure};

/// One mutation.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    pub name: &'static str,
    pub file: &'static str,
    pub old: &'static str,
    pub new: &'static str,
    /// The tests of `--test mover` that must go red, by the start of their
    /// names.
    pub red: &'static str,
    /// What they must say then: red for another reason shows nothing.
    pub says: &'static str,
}

/// All of them.
pub const MUTANTS: [Mutant; 9] = [
    Mutant {
        name: "the guard's branch for isolation levels removed",
        file: "agent/src/mover/guard/triggers.rs",
        old: "IF pg_catalog.current_setting('transaction_isolation') = 'read committed' THEN",
        new: "IF true THEN",
        red: "invariants::an_old_snapshot_does_not_write_past_the_switch",
        says: "refused: ()",
    },
    Mutant {
        name: "the log's delete moved before the target's commit",
        file: "agent/src/mover/drain.rs",
        old: "self.target.batch(\"COMMIT\").await?;\n        self.run.fail.on(\"between_commits\", self.leg)?;\n        self.source.batch(\"COMMIT\").await?;",
        new: "self.source.batch(\"COMMIT\").await?;\n        self.run.fail.on(\"between_commits\", self.leg)?;\n        self.target.batch(\"COMMIT\").await?;",
        red: "invariants::a_key_is_forgotten_only_after_its_row_is_there",
        says: "verify: ",
    },
    Mutant {
        name: "the state check dropped from apply",
        file: "agent/src/mover/fence.rs",
        old: "if rows.len() == 1 { Ok(()) } else { Err(not_waiting(spec, leg)) }",
        new: "if rows.len() <= 1 { Ok(()) } else { Err(not_waiting(spec, leg)) }",
        red: "invariants::nothing_is_applied_to_a_side_that_is_active",
        says: "refused: ",
    },
    Mutant {
        name: "the STABLE check of a statement's beginning dropped",
        file: "agent/src/mover/guard/triggers.rs",
        old: "head(&name(\"began\"), \"trigger\", \"STABLE\", \"\")",
        new: "head(&name(\"began\"), \"trigger\", \"VOLATILE\", \"\")",
        red: "invariants::a_statement_that_began_before_the_activation_is_refused",
        says: "refused: ()",
    },
    Mutant {
        name: "the target's commit before 'moved'",
        file: "agent/src/mover/cut_over/fence.rs",
        old: "self.run.fail.on(\"after_prepare\", self.leg)?;",
        new: "self.target.batch(\"COMMIT\").await?; self.run.fail.on(\"after_prepare\", self.leg)?;",
        red: "invariants::a_switch_that_stops_leaves_no_two_sides_active",
        says: "after_prepare",
    },
    Mutant {
        name: "the log's length not looked at before the fence",
        file: "agent/src/mover/cut_over/mod.rs",
        old: "const MOST_ROWS: i64 = 10_000;",
        new: "const MOST_ROWS: i64 = i64::MAX;",
        red: "backlog::a_log_that_writers_keep_long_is_not_read_inside_the_fence",
        says: "the log is too long: CutOver(",
    },
    Mutant {
        name: "a move finished alone by a side that does not serve",
        file: "agent/src/mover/finish.rs",
        old: "if recover::beside(run).await?.serving.is_none() {",
        new: "if recover::beside(run).await?.serving.is_none() && false {",
        red: "gone::a_target_finishes_alone_and_a_source_that_returns_is_cleaned",
        says: "MoveStepDone(",
    },
    Mutant {
        name: "the watcher's look at the source dropped",
        file: "tests/src/chaos/sides.rs",
        old: "source: source.is_none_or(|fence| fence.state == \"active\"),",
        new: "source: source.is_some_and(|_| false),",
        red: "invariants::two_active_sides_are_seen",
        says: "two active sides were seen 0 of ",
    },
    Mutant {
        name: "the watcher's second look at the target not compared",
        file: "tests/src/chaos/sides.rs",
        old: "Ok(before == after && standing.source && standing.target)",
        new: "drop(before); Ok(standing.source && standing.target)",
        red: "invariants::a_tenant_that_goes_back_and_forth_is_not_seen_twice",
        says: "two active sides were seen",
    },
];

impl Mutant {
    /// The file under `root` as it is, and as the mutation makes it.
    ///
    /// # Errors
    /// Where the text that it replaces is not there exactly once.
    pub fn of(&self, root: &Path) -> anyhow::Result<(String, String)> {
        let path = root.join(self.file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let times = text.matches(self.old).count();
        ensure!(
            times == 1,
            "mutation {:?} finds its text {times} times in {}: point it to where that is done now",
            self.name,
            self.file
        );
        let mutated = text.replace(self.old, self.new);
        Ok((text, mutated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_still_applies() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        for mutant in MUTANTS {
            let (text, mutated) = mutant.of(root).expect("applies");
            assert_ne!(text, mutated, "{}", mutant.name);
            let (module, red) = mutant.red.split_once("::").expect("module::test");
            let tests = root.join("tests/tests/mover").join(module).with_extension("rs");
            let tests = std::fs::read_to_string(tests).expect("the module's tests");
            assert!(tests.contains(&format!("async fn {red}()")), "there is no test {red}");
        }
    }
}
