//! The agent: a light daemon on every machine that collects what each tenant
//! uses, reports it to the coordinator over one outbound stream, and carries
//! out moves.

pub mod archives;
pub mod cli;
pub mod collect;
pub mod command;
pub mod config;
mod durable;
pub mod hold;
pub mod identity;
pub mod link;
pub mod mover;
pub mod nginx;
pub mod run;
pub mod status;
