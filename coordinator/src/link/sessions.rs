//! Who is connected to this coordinator: one session a node, the newest one.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use webhost_proto::ids::{CommandId, NodeId};
use webhost_proto::wire;

/// Why the coordinator ends a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Another session of the same node began.
    Fenced,
    /// The node was revoked, or its row is gone.
    Revoked,
    /// The node enrolled again: this session's certificate is the old one.
    CertificateReplaced,
}

/// Commands that wait for one session's attention. When it is full the rest
/// waits in the outbox, which is read again within a second.
const MAILBOX: usize = 64;

#[derive(Clone, Default)]
pub(super) struct Sessions {
    by_node: Arc<Mutex<HashMap<NodeId, Entry>>>,
    numbers: Arc<AtomicU64>,
}

struct Entry {
    number: u64,
    serial: String,
    end: Option<oneshot::Sender<Ending>>,
    mailbox: mpsc::Sender<wire::Command>,
    /// Handed to this session already.
    delivered: HashSet<CommandId>,
    /// Orders what is told about the node's sessions to the rest of the
    /// coordinator; handed on from a session to the one that fences it.
    order: Arc<tokio::sync::Mutex<()>>,
}

/// A session's end of its entry.
pub(super) struct Registered {
    pub(super) number: u64,
    pub(super) ending: oneshot::Receiver<Ending>,
    pub(super) mailbox: mpsc::Receiver<wire::Command>,
    pub(super) order: Arc<tokio::sync::Mutex<()>>,
    /// There was one before, which was fenced.
    pub(super) fenced: bool,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Entry>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a session; one of the same node that was there before ends.
    pub(super) fn register(&self, node: NodeId, serial: String) -> Registered {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (end, ending) = oneshot::channel();
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let mut by_node = self.lock();
        let earlier = by_node.remove(&node);
        let order = earlier.as_ref().map(|entry| entry.order.clone()).unwrap_or_default();
        let entry = Entry {
            number,
            serial,
            end: Some(end),
            mailbox: sender,
            delivered: HashSet::new(),
            order: order.clone(),
        };
        by_node.insert(node, entry);
        let fenced = earlier.is_some();
        if let Some(end) = earlier.and_then(|entry| entry.end) {
            // An error says that it is ending already.
            let _ending_already = end.send(Ending::Fenced);
        }
        Registered { number, ending, mailbox, order, fenced }
    }

    /// Whether `number` is still the node's session.
    pub(super) fn holds(&self, node: NodeId, number: u64) -> bool {
        self.lock().get(&node).is_some_and(|entry| entry.number == number)
    }

    /// Removes the session if it still is the node's.
    pub(super) fn remove(&self, node: NodeId, number: u64) {
        let mut by_node = self.lock();
        if by_node.get(&node).is_some_and(|entry| entry.number == number) {
            by_node.remove(&node);
        }
    }

    /// The nodes with a session, and the serial of the certificate in it.
    pub(super) fn all(&self) -> Vec<(NodeId, String)> {
        self.lock().iter().map(|(node, entry)| (*node, entry.serial.clone())).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Ends the node's session if it was made with this certificate.
    pub(super) fn end(&self, node: NodeId, serial: &str, why: Ending) {
        let end = self
            .lock()
            .get_mut(&node)
            .filter(|entry| entry.serial == serial)
            .and_then(|entry| entry.end.take());
        if let Some(end) = end {
            let _ending_already = end.send(why);
        }
    }

    /// Puts each command into the mailbox of its node's session, once per
    /// session. What finds no session or no room stays in the outbox.
    pub(super) fn deliver(&self, open: Vec<(NodeId, CommandId, wire::Command)>) {
        let mut by_node = self.lock();
        let still_open: HashSet<CommandId> = open.iter().map(|(_, id, _)| *id).collect();
        for entry in by_node.values_mut() {
            entry.delivered.retain(|id| still_open.contains(id));
        }
        for (node, id, command) in open {
            let Some(entry) = by_node.get_mut(&node) else { continue };
            if !entry.delivered.contains(&id) && entry.mailbox.try_send(command).is_ok() {
                entry.delivered.insert(id);
            }
        }
    }
}
