//! What the agent measures, one file per source.
pub mod app;
pub mod counter;
pub mod host;
pub mod postgres;
pub mod proc;
pub mod source;
pub mod split;
