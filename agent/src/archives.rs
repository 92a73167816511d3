//! `webhost-agent archives`: what downgrades left behind on this node.

use std::io::Write;
use std::path::Path;

use webhost_proto::ids::MoveId;

use crate::mover::archive;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    List { json: bool },
    Delete(MoveId),
    RestoreSql(MoveId),
}

/// Answers on `out`.
///
/// # Errors
/// Of the file system, naming the archive.
pub fn run(state_dir: &Path, ask: Ask, out: &mut impl Write) -> std::io::Result<()> {
    let archives = state_dir.join("archives");
    let named = |move_id: MoveId| {
        move |error: std::io::Error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                std::io::Error::other(format!(
                    "there is no archive of move {move_id} here; webhost-agent archives list shows those there are"
                ))
            } else {
                std::io::Error::other(format!("the archive of move {move_id}: {error}"))
            }
        }
    };
    match ask {
        Ask::List { json: true } => {
            let all = archive::list(&archives)?;
            writeln!(out, "{}", serde_json::to_string_pretty(&all).map_err(std::io::Error::other)?)
        }
        Ask::List { json: false } => list(&archives, out),
        Ask::Delete(move_id) => {
            let gone = archive::delete(&archives, move_id).map_err(named(move_id))?;
            writeln!(out, "deleted {} rows of tenant {}", gone.rows(), gone.tenant)
        }
        Ask::RestoreSql(move_id) => {
            let text = archive::restore_sql(&archives, move_id).map_err(named(move_id))?;
            out.write_all(text.as_bytes())
        }
    }
}

fn list(archives: &Path, out: &mut impl Write) -> std::io::Result<()> {
    let all = archive::list(archives)?;
    if all.is_empty() {
        return writeln!(out, "no archives in {}", archives.display());
    }
    for found in all {
        let made = jiff::Timestamp::from_microsecond(found.made_at_us)
            .map_or_else(|_| found.made_at_us.to_string(), |at| format!("{at:.0}"));
        writeln!(
            out,
            "{}  tenant {}  made {made}  {} rows, {} MiB in {} tables{}",
            found.move_id,
            found.tenant,
            found.rows(),
            found.bytes().div_ceil(1 << 20),
            found.tables.len(),
            if found.complete { "" } else { "  (not complete yet)" }
        )?;
        for table in &found.tables {
            writeln!(out, "    {}  {} rows  sha256 {}", table.table, table.rows, table.sha256)?;
        }
    }
    Ok(())
}
