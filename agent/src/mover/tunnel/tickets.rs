//! Which moves may come through, kept on disk as hashes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use webhost_proto::ids::{MoveId, NodeId, TenantId};

use crate::durable::{self, DurableError};

/// One move's permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub move_id: MoveId,
    pub tenant: TenantId,
    /// SHA-256 of the ticket itself.
    pub sha256: Vec<u8>,
    pub source_node: NodeId,
    pub expires_at_us: i64,
}

/// The open tickets of this node.
pub struct Tickets {
    dir: PathBuf,
    open: Mutex<HashMap<MoveId, (Ticket, CancellationToken)>>,
}

impl Tickets {
    /// Reads what an earlier run left in `state_dir`.
    ///
    /// # Errors
    /// [`DurableError`], naming the file.
    pub fn load(state_dir: &Path) -> Result<Self, DurableError> {
        let dir = state_dir.join("tunnels");
        durable::private_dir(&dir).map_err(durable::at(&dir))?;
        let open = durable::load_all::<Ticket>(&dir)?
            .into_iter()
            .map(|ticket| (ticket.move_id, (ticket, CancellationToken::new())))
            .collect();
        Ok(Self { dir, open: Mutex::new(open) })
    }

    fn path(&self, move_id: MoveId) -> PathBuf {
        self.dir.join(format!("{move_id}.json"))
    }

    /// Lets a move in; a repetition replaces the ticket and keeps what runs.
    ///
    /// # Errors
    /// [`DurableError`]; the ticket is not open then.
    pub fn open(&self, ticket: Ticket) -> Result<(), DurableError> {
        durable::save(&self.path(ticket.move_id), &ticket)?;
        let mut open = self.lock();
        let token = open.get(&ticket.move_id).map(|(_, token)| token.clone());
        open.insert(ticket.move_id, (ticket, token.unwrap_or_default()));
        Ok(())
    }

    /// Lets a move in no more, and ends its connections. Idempotent.
    ///
    /// # Errors
    /// [`DurableError`]; the connections are cut all the same.
    pub fn close(&self, move_id: MoveId) -> Result<(), DurableError> {
        if let Some((_, token)) = self.lock().remove(&move_id) {
            token.cancel();
        }
        let path = self.path(move_id);
        durable::remove(&path).map_err(durable::at(&path))
    }

    /// Checks what a mover presents; answers what ends its connection. All
    /// refusals look the same from outside.
    pub fn admit(
        &self,
        move_id: MoveId,
        presented: &[u8],
        node: NodeId,
        now_us: i64,
    ) -> Result<CancellationToken, &'static str> {
        let open = self.lock();
        let Some((ticket, token)) = open.get(&move_id) else { return Err("no such move") };
        let hash = ring::digest::digest(&ring::digest::SHA256, presented);
        // In constant time: how much of a guess was right must not show.
        #[allow(deprecated)]
        let same =
            ring::constant_time::verify_slices_are_equal(hash.as_ref(), &ticket.sha256).is_ok();
        if !same {
            return Err("wrong ticket");
        }
        if ticket.source_node != node {
            return Err("the ticket is another node's");
        }
        if now_us >= ticket.expires_at_us {
            return Err("the ticket expired");
        }
        Ok(token.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MoveId, (Ticket, CancellationToken)>> {
        // No code panics while it holds the lock; a poisoned map is whole.
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
