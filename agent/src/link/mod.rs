//! The agent's end of the link: dials, says Hello, reports, receives.

pub mod report;
