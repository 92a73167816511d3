//! Where a tenant goes, once its mode is decided. (Choosing the mode is
//! `decide`'s alone; a tenant that fits no server is reported, not rehoused.)
//!
//! Plain functions of values: a snapshot of the nodes in, a choice with its
//! reasons out. Shared nodes are filled by best fit over five dimensions, so
//! that few servers carry many tenants and none is filled above the placement
//! limit; a dedicated node is taken whole. What a node holds is, per dimension,
//! the smaller of its configured shape and what its agent measured.
//!
//! Demand is one figure a dimension for now; room is left for 24 hourly ones.
//!
//! **Invariant:** no choice fills a node above the placement limit in any
//! dimension, nor gives it more tenants than its shape allows.
//! **Invariant:** a node that is joining, draining, revoked or silent is never
//! chosen.
//! **Invariant:** the same snapshot gives the same choice, whatever the order
//! of its nodes; ties end at the smallest node id.

pub mod load;
pub mod node;
pub mod place;

pub use load::{Amounts, Dimension, Load, MilliConnections, MilliPoints};
pub use node::{Measured, NodeState, Standing};
pub use place::{Demand, Home, NoRoom, Placed, Policy, Refusal, Refused, RunnerUp, place};

#[cfg(test)]
mod tests;
