//! The data path of a move: one tenant's rows from the database beside this
//! agent to another node's, while the tenant keeps writing.
//!
//! # Theory of operation
//!
//! For the duration of a move each tenant table carries row triggers that fire
//! for this tenant alone. They are the *guard* (a write passes only where the
//! tenant's fence row says `active`) and, on the source, the *key log* (the
//! row's primary key is appended to a log table). With them in place:
//!
//! | step | what it does | undo |
//! |---|---|---|
//! | preflight | reads both sides, lists every problem | – |
//! | guard | fence rows, guards, key log | drop them |
//! | copy | one snapshot, taken after the last trigger; binary COPY, chunk by chunk | delete the tenant's rows on the target |
//! | drain | logged keys: re-read the current row, replace it on the target, compare, commit there, forget the key here | – |
//! | verify | exact hash of both sides, minus the keys logged meanwhile | – |
//! | cut over | fence closed ▸ rest applied, `active` prepared ▸ `moved` commits (**point of no return**) ▸ target commits | before it: roll back |
//! | way back | the new side's log is drained to the old copy, which both sides' hash proves every hour | ended by roll back or finish |
//! | roll back | the cut-over in the other direction: the old copy serves again | – |
//! | finish | logs and the serving side's guards removed; the other side keeps a refusing guard and its fence row | – |
//! | clean up | the copy that serves nobody is deleted, beside its own database; the fence row stays | only from a backup |
//! | abandon | instead of undo, where the target is out of reach: the source lets go alone | – |
//!
//! A move goes in legs: leg 0 forth, leg 1 back ([`leg`]). Drain, verification
//! and cut-over are the same code for each.
//!
//! Row data is never carried by the log: a key says "look again", so a replay
//! is harmless, and the order of changes doesn't matter.
//!
//! **Invariant:** a side becomes `active` only in a transaction whose commit is
//! sent after the other side's `moved` is known to be durable.
//!
//! **Invariant:** rows are applied only towards a database whose fence row,
//! locked by the applying transaction, waits for this very leg of this very
//! move: `standby` before the first switch, `moved` after it.
//!
//! **Invariant:** every statement that deletes or replaces tenant rows names
//! the tenant in its WHERE clause.
//!
//! **Invariant:** the two fence rows alone decide what a restarted mover does
//! ([`recover`]).
//!
//! The work runs in a child process ([`child`]) that the agent's
//! [`supervisor`] restarts when it dies. Read in this order.

pub mod abandon;
mod apply;
pub mod archive;
pub mod catalog;
pub mod child;
pub mod clean_up;
pub mod connect;
pub mod copy;
pub mod cut_over;
pub mod drain;
pub mod error;
pub mod fail;
pub mod fence;
pub mod finish;
pub mod guard;
pub mod hypertable;
pub(crate) mod jobs;
pub mod leg;
pub mod membership;
pub mod operator;
pub mod preflight;
pub mod pressure;
mod pump;
pub mod recover;
pub mod report;
pub mod requests;
pub mod run;
mod set_aside;
pub mod spec;
pub mod sql;
pub mod statements;
pub mod supervisor;
pub mod tunnel;
pub mod undo;
pub mod verify;
pub mod way_back;
