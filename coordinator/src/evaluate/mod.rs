//! Evaluation: every active tenant is looked at again, by the clock and at once
//! when something changes, and a move is begun or proposed where the engine
//! says so.
//!
//! **Theory of operation.** Every few seconds one scan reads the active tenants
//! and what the book knows of them. [`trigger`] says who is due, and why: the
//! interval is over, the plan or the stated profile changed, or a limit was
//! crossed or a performance issue began since the last look. [`judge`] puts the
//! facts before the engine. [`run`] writes what came of it: the decision with
//! all its inputs, the tenant's time of evaluation and, where the mode should
//! change, the move with its approval, in one transaction.
//!
//! **Invariant:** what the rules don't approve waits for a person. A proposal
//! that waits is approved by the rule as soon as the rule holds.
//! **Invariant:** a tenant that is moving is not evaluated for another move.
//! **Invariant:** of any number of coordinators one evaluates: the lease and
//! the time of the last evaluation are compared in the UPDATE that the rest of
//! the transaction hangs on.
//! **Invariant:** the same trouble of the same tenant leads to one evaluation
//! when it begins, and never to two within the configured gap.

pub mod accuracy;
pub mod carry;
pub mod force;
pub mod judge;
pub mod limits;
mod overload;
pub mod run;
pub mod trigger;

#[cfg(test)]
mod tests;

pub use carry::carry;
pub use force::{ForceError, Forced, Wanted, force};
pub use judge::{Facts, FactsError, Verdict, judge};
pub use run::{Evaluated, Evaluator, Pace};
