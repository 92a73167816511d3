//! An agent under measurement: the real program, enrolled over mTLS at a real
//! link, with containers of a private engine and a page of metrics beside it.
//!
//! [`sink`] is the coordinator's end of the link: it takes the reports and
//! counts the values in them. What crosses the socket is counted by [`meter`],
//! which stands between the two and sees TLS records only. [`page`] is the
//! application, [`database`] the tenants' PostgreSQL, [`stage`] puts the parts together, [`processes`] says what
//! they cost, and [`peers`] are other agents on the same machine.

pub mod database;
pub mod meter;
pub mod page;
pub mod peers;
pub mod processes;
pub mod sink;
pub mod stage;
