//! The demo: a whole fleet on this machine, and one tenant that outgrows its
//! shared server and is moved while its devices keep writing.
//!
//! Nothing here tells the coordinator what to do: it signs tenants up, lets
//! devices and people use them, and watches. The decision comes from what the
//! agents report. Only at the end an operator wants the tenant back, and says
//! so. [`story`] is the plot, [`town`] the tenants in it, [`watch`] looks at
//! the move, [`roll_back`] is the operator, [`summary`] reckons up.

pub mod costs;
pub mod roll_back;
pub mod story;
pub mod summary;
pub mod timeline;
pub mod town;
pub mod watch;
