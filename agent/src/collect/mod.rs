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
//! | [`container`] | Docker's list and events, [`cgroup`] files, net/dev | CPU, memory, [`detail`] (measured) |
//! | [`postgres`] | catalog, statistics, pg_stat_activity, fence | storage, vehicles, connections |
//! | [`app`] | the application's Prometheus page | points, calls, errors, durations, clients |
//! | [`shared`] | [`cgroup`] files, process trees in /proc | by [`attribute`], CPU and memory |
//! | [`slices`] | [`cgroup`] files of slices and services | CPU, memory, [`detail`] (measured) |
//! | [`access_log`] | nginx's log, where the application counts nothing | calls, errors, durations, clients |
//! | [`redis`] | INFO, and keys drawn at random | keys, memory (attributed) |
//! | [`checks`] | what a customer's node serves | – |
//!
//! Read in this order: [`source`], [`counter`], [`split`], the sources,
//! [`attribute`], [`round`], [`collector`].

pub mod access_log;
pub mod app;
pub mod attribute;
pub mod cgroup;
pub mod checks;
pub mod collector;
mod columns;
pub mod container;
pub mod counter;
pub mod detail;
pub mod host;
pub mod machine;
pub mod postgres;
pub mod proc;
pub mod redis;
pub mod round;
pub mod shared;
pub mod slices;
pub mod source;
pub mod split;
