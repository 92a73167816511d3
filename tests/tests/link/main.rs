//! The link, both ends on loopback over a real database: enrolment, sessions,
//! reports, commands, and those who mean no good.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests: a failure here is a failed test"
)]

mod commands;
mod enrolment;
mod hostile;
mod sessions;
mod world;
