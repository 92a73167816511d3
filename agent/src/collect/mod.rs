//! What the agent measures: of the machine, and of each tenant on it.
//!
//! A [`source`] is read on its own task at every round and publishes totals
//! and gauges; [`round`] makes one report of what they have published. The
//! sources are independent and each may be absent, slow or wrong: the others
//! go on, and the report says of each how it is.
//!
//! | source | reads | per tenant |
//! |---|---|---|
//! | [`host`] | /proc, sysinfo, statvfs | – |
//! | [`container`] | Docker's list and events, [`cgroup`] files | CPU, memory (measured) |
//! | [`postgres`] | catalog, statistics, pg_stat_activity, fence | storage, vehicles, connections |
//! | [`app`] | the application's Prometheus page | points, calls, errors, durations, clients |
//! | [`shared`] | [`cgroup`] files, process trees in /proc | by [`attribute`], CPU and memory |
//!
//! Read in this order: [`source`], [`counter`], [`split`], the sources,
//! [`attribute`], [`round`], [`collector`].

pub mod app;
pub mod attribute;
pub mod cgroup;
pub mod collector;
mod columns;
pub mod container;
pub mod counter;
pub mod host;
pub mod postgres;
pub mod proc;
pub mod round;
pub mod shared;
pub mod source;
pub mod split;
