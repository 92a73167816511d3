//! What the operator's commands about moves need of an agent, without running
//! one.

use std::sync::Arc;

use super::{RunError, mover};
use crate::config::Config;
use crate::durable::StateLock;
use crate::identity::StoredIdentity;
use crate::mover::supervisor::Supervisor;
use crate::mover::tunnel::Tickets;

/// The supervisor of what is on record, for looking at it; an agent may run.
///
/// # Errors
/// [`RunError`], when identity or records can't be read.
pub fn supervisor(config: &Config) -> Result<Supervisor, RunError> {
    let identity = StoredIdentity::load(&config.state_dir)?;
    let tickets = Arc::new(Tickets::load(&config.state_dir)?);
    let setup = mover::setup(config, &identity, tickets)?;
    Ok(Supervisor::load(setup)?)
}

/// The same for working on it: no agent runs for as long as the lock is held.
///
/// # Errors
/// [`RunError::State`] when one does.
pub fn locked_supervisor(config: &Config) -> Result<(StateLock, Supervisor), RunError> {
    let lock = StateLock::take(&config.state_dir)?;
    Ok((lock, supervisor(config)?))
}
