//! What a tenant needs, what it should live on, and who may say so.
//!
//! Everything here is a plain function of values: no I/O, no clock, no floats,
//! no globals. The [`plans::Catalog`] is configuration; a [`profile::Profile`]
//! is what one tenant stated joined with what was measured; [`recommend()`]
//! turns both into a [`recommend::Decision`] that carries everything it was
//! made of, because it goes into the audit table as it is.
//!
//! How a decision comes about: the hard rules ([`needs`]) speak first; where
//! they are silent, two scores ([`scores`]) choose the mode; the plan is the
//! smallest one of that mode that satisfies every need. What was *recommended*
//! (`mode`, `plan`) is not what may be *put in place*: `granted` is the
//! recommendation raised to the plan that the customer pays for, and nothing at
//! all while a need is unmet, because then a person must look.
//!
//! **Invariant:** a hard rule always ends in single-tenant, with confidence 1.
//! **Invariant:** the recommended plan satisfies every need, or `unmet_needs`
//! says which it doesn't.
//! **Invariant:** `granted` is never less than the bought plan; less, a shorter
//! retention or a smaller limit is never approved without an administrator.
//! **Invariant:** not even a forced move puts a tenant where a compliance rule
//! forbids it.
//! **Invariant:** scores, money and shares are integers (hundredths, cents,
//! basis points); the same input gives the same output, byte for byte.

pub mod accuracy;
pub mod advise;
pub mod amount;
pub mod cost;
pub mod force;
pub mod limits;
pub mod migrate;
pub mod needs;
pub mod plans;
mod plans_default;
mod plans_validate;
pub mod profile;
mod profile_read;
pub mod recommend;
pub mod scores;

pub use advise::{Advice, WeekPeaks, recommend_plan};
pub use amount::{BasisPoints, Cents, Hundredths};
pub use force::{ForceRefused, forced};
pub use migrate::{Approval, Migration, Residence, auto_approve, evaluate_migration};
pub use plans::{Catalog, CatalogError, Infrastructure, Mode, NodeShape, Plan, PlanName, Region};
pub use profile::{Compliance, Profile, ProfileError, ProfileOverrides, Usage};
pub use recommend::{Decision, Target, recommend};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_moves;
