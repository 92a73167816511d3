//! The new place: HTTP through the tunnel of the target's agent.

use std::sync::Arc;

use super::upstream::Dial;
use crate::mover::connect::Stream;
use crate::mover::spec::Spec;
use crate::mover::supervisor::Identify;
use crate::mover::tunnel::Through;

/// Dials the application beside the target's agent, with the move's ticket.
pub(super) struct There {
    pub(super) spec: Spec,
    /// Asked before each connection, so that a renewed certificate is used.
    pub(super) identify: Identify,
}

#[tonic::async_trait]
impl Dial for There {
    async fn dial(&self) -> Result<Box<dyn Stream>, String> {
        let identity = (self.identify)()?;
        let through = Arc::new(Through::new(&self.spec, &identity)?);
        through.http().await
    }
}
