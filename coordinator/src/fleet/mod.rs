//! Where a tenant goes, once its mode is decided, and what to do about a fleet
//! whose load has changed. (Choosing the mode is `decide`'s alone; a tenant that
//! fits no server is reported, not rehoused.)
//!
//! **Values in, values out.** A [`Snapshot`] of the nodes and tenants goes in, a
//! choice or a [`Plan`] with its reasons comes out. No clock, no I/O, whole
//! numbers only.
//!
//! **Load is a day.** What a tenant takes is a [`Need`]: 24 hourly figures of
//! CPU, database connections and GPS points, and one each of memory and disk. A
//! node's [`Load`] is their sum hour by hour, and it is as full as its fullest
//! hour. Tenants that are busy at different times share a node well, and adding
//! up their peaks would hide that.
//!
//! **A good place** is where a tenant fits and strands least. A node is closed
//! by the dimension that ends first; so nodes are filled along the fleet's own
//! mix, and one that is short of CPU gets those who need little of it
//! ([`room`]). Two other ways are known to be worse: to sort by size and fill,
//! and to compare only a few nodes at random.
//!
//! **The search** looks at the fullest nodes that could hold the tenant, and
//! not at those that can't: an ordered [`index`] by fullest dimension and level
//! says which they are. A placement costs a microsecond or two among thousands
//! of nodes, on one core; what the search rests on is updated in place.
//!
//! **A plan** empties draining nodes, relieves overloaded ones (each by the
//! smallest and cheapest set of tenants that makes it calm in one step), and
//! gives up nodes that the rest can do without. Three limits ascend so that
//! nothing swings to and fro: relieve to 72 %, place to 75 %, act above 80 %.
//! Who was moved stays for a week unless its own load changes, or its node must
//! be relieved or emptied.
//!
//! **Invariant:** no choice fills a node above the placement limit in any
//! dimension or hour, nor gives it more tenants than its shape allows.
//! **Invariant:** a node that is joining, draining, revoked or silent is never
//! chosen.
//! **Invariant:** the same snapshot gives the same choice and the same plan,
//! whatever the order of its parts; ties end at the smallest id.
//! **Invariant:** no move of a plan needs room that another move of it frees.
//! So every prefix of a plan holds with both ends of what is under way charged,
//! in any order, and a move that fails spoils no other.
//! **Invariant:** nothing is carried out that [`verify`] has not passed, which
//! shares no code with what it checks.

mod dedicated;
pub mod drain;
pub mod explain;
pub mod forecast;
pub mod growth;
pub mod index;
pub mod load;
pub mod need;
pub mod node;
pub mod place;
pub mod plan;
pub mod policy;
pub mod relieve;
pub mod room;
pub mod rooms;
pub mod seats;
pub mod several;
pub mod simulate;
pub mod snapshot;
pub mod verify;
pub mod words;

pub use explain::{Explained, Verdict, explain};
pub use forecast::forecast;
pub use load::{Amounts, Dimension, MilliConnections, MilliPoints};
pub use need::{Load, Need};
pub use node::{Measured, NodeState, Standing};
pub use place::{Demand, Home, NoRoom, Placed, Refusal, Refused, RunnerUp, place};
pub use plan::{Plan, plan};
pub use policy::Policy;
pub use several::Several;
pub use snapshot::{Rules, Snapshot, SnapshotError, Tenant};
pub use verify::verify;

#[cfg(test)]
mod tests;
