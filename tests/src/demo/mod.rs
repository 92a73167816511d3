//! The demo: a whole fleet on this machine, and one tenant that outgrows its
//! shared server and is moved while its devices keep writing.
//!
//! Nothing here tells the coordinator what to do: it signs tenants up, lets
//! devices and people use them, and watches. The decision comes from what the
//! agents report. [`story`] is the plot, [`town`] the tenants in it,
//! [`watch`] looks at the move, [`summary`] reckons up at the end.

pub mod costs;
pub mod story;
pub mod summary;
pub mod timeline;
pub mod town;
pub mod watch;
