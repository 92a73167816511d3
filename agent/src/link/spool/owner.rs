//! Whose reports the spool holds. A machine that is enrolled as another node
//! must not send what the first one measured: the coordinator would count it
//! for tenants that the second one never had.
//!
//! The directory carries the node's id in a file, so that both are moved
//! together. Another node's spool is set aside and taken back if this machine
//! becomes that node again; of several the last one is kept.

use std::io;
use std::path::{Path, PathBuf};

use webhost_proto::ids::NodeId;

use crate::durable;

const NAME: &str = "spool";
const ASIDE: &str = "spool-of-";

/// The spool's directory below `state_dir`, which holds nothing but reports of
/// `node` from now on.
///
/// # Errors
/// Of the file system: then nothing that lies there may be sent.
pub fn claim(state_dir: &Path, node: NodeId) -> io::Result<PathBuf> {
    let dir = state_dir.join(NAME);
    let own = aside(state_dir, &node.to_string());
    match owner(&dir)? {
        // One of before, when spools had no owner, is this node's.
        Owner::Node(owner) if owner == node.to_string() => return Ok(dir),
        Owner::Nobody | Owner::Missing => {}
        Owner::Node(owner) => set_aside(state_dir, &dir, &owner, &own)?,
    }
    if own.exists() && !dir.exists() {
        std::fs::rename(&own, &dir)?;
        tracing::info!(%node, "reports of an earlier time as this node are taken up again");
    }
    durable::private_dir(&dir)?;
    mark(&dir, node)?;
    Ok(dir)
}

/// Says whose an unmarked spool is, before this machine becomes another node.
///
/// # Errors
/// Of the file system.
pub fn settle(state_dir: &Path, node: NodeId) -> io::Result<()> {
    let dir = state_dir.join(NAME);
    match owner(&dir)? {
        Owner::Nobody => mark(&dir, node),
        Owner::Missing | Owner::Node(_) => Ok(()),
    }
}

enum Owner {
    /// There is no directory.
    Missing,
    /// It has no mark.
    Nobody,
    Node(String),
}

fn owner(dir: &Path) -> io::Result<Owner> {
    if !dir.exists() {
        return Ok(Owner::Missing);
    }
    match std::fs::read_to_string(dir.join("node")) {
        // Nothing but an id becomes part of a path.
        Ok(text) => Ok(Owner::Node(match text.trim().parse::<NodeId>() {
            Ok(id) => id.to_string(),
            Err(_) => "unknown".into(),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Owner::Nobody),
        Err(error) => Err(error),
    }
}

fn mark(dir: &Path, node: NodeId) -> io::Result<()> {
    durable::replace(&dir.join("node"), node.to_string().as_bytes())
}

fn aside(state_dir: &Path, owner: &str) -> PathBuf {
    state_dir.join(format!("{ASIDE}{owner}"))
}

/// Moves another node's spool away; those that were set aside before go, but
/// for `own`, so that they never take more than one spool's room.
fn set_aside(state_dir: &Path, dir: &Path, owner: &str, own: &Path) -> io::Result<()> {
    let to = aside(state_dir, owner);
    for entry in std::fs::read_dir(state_dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if name.starts_with(ASIDE) && path != own {
            tracing::warn!(dir = %path.display(), "reports of a node that this machine was before \
                are removed");
            std::fs::remove_dir_all(&path)?;
        }
    }
    std::fs::rename(dir, &to)?;
    tracing::warn!(node = owner, dir = %to.display(), "this machine was another node: its unsent \
        reports are set aside and never sent as this one's");
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn node(number: u128) -> NodeId {
        NodeId(Uuid::from_u128(number))
    }

    /// What is in the spool that `number` gets.
    fn content(state_dir: &Path, number: u128) -> Vec<String> {
        let dir = claim(state_dir, node(number)).expect("is claimed");
        let names = std::fs::read_dir(dir).expect("lists").flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name != "node").collect()
    }

    fn aside_of(state_dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(state_dir).expect("lists").flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name != NAME).collect()
    }

    #[test]
    fn a_spool_is_its_nodes_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path();
        assert!(content(state, 1).is_empty());
        std::fs::write(state.join("spool/1.log"), "reports of 1").expect("writes");
        assert_eq!(content(state, 1), ["1.log"], "the same node goes on");
        assert!(content(state, 2).is_empty(), "another one has none of it");
        std::fs::write(state.join("spool/1.log"), "reports of 2").expect("writes");
        // Back again, as after an enrolment by mistake.
        assert_eq!(content(state, 1), ["1.log"]);
        let own = std::fs::read_to_string(state.join("spool/1.log")).expect("reads");
        assert_eq!(own, "reports of 1");
        assert_eq!(aside_of(state), [format!("spool-of-{}", node(2))]);
        assert!(content(state, 3).is_empty());
        assert_eq!(aside_of(state), [format!("spool-of-{}", node(1))], "the last one is kept");
    }

    #[test]
    fn what_has_no_mark_is_the_node_of_then() {
        for (settled, kept) in [(None, true), (Some(1), false), (Some(2), true)] {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::create_dir(dir.path().join(NAME)).expect("a spool");
            std::fs::write(dir.path().join("spool/1.log"), "reports").expect("writes");
            if let Some(before) = settled {
                settle(dir.path(), node(before)).expect("is marked");
            }
            assert_eq!(content(dir.path(), 2).len(), usize::from(kept), "{settled:?}");
        }
        let empty = tempfile::tempdir().expect("a directory");
        settle(empty.path(), node(1)).expect("nothing to mark");
        assert!(aside_of(empty.path()).is_empty() && !empty.path().join(NAME).exists());
    }

    #[test]
    fn a_mark_that_is_no_id_is_nobody_we_are() {
        let dir = tempfile::tempdir().expect("a directory");
        content(dir.path(), 1);
        std::fs::write(dir.path().join("spool/1.log"), "reports").expect("writes");
        std::fs::write(dir.path().join("spool/node"), "../../etc").expect("writes");
        assert!(content(dir.path(), 1).is_empty());
        assert_eq!(aside_of(dir.path()), ["spool-of-unknown"]);
    }
}
