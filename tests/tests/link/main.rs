//! The link, both ends on loopback over a real database: enrolment, sessions,
//! reports, commands, and those who mean no good.

mod commands;
mod enrolment;
mod hostile;
mod sessions;
mod world;
