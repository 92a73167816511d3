//! What a downgrade leaves behind, kept as files until an operator deletes
//! them.
//!
//! One directory a move, `state_dir/archives/<move>/`: a binary COPY of each
//! table's rows, and a manifest with columns, counts and hashes. The clean-up
//! writes it before it deletes the first row. A file counts once the manifest
//! names it; after a crash those that it names are left as they are.
//!
//! **Invariant:** a manifest that says `complete` is durable, with every file
//! that it names, before a row is deleted.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use webhost_proto::ids::{MoveId, TenantId};

use super::catalog::Table;
use super::connect::Conn;
use super::error::MoveError;
use super::run::Run;
use super::spec::Progress;
use super::sql;
use super::statements::TableSql;
use crate::durable;

/// Bytes that stay free on the disk whatever is archived.
const SPARE: u64 = 64 << 20;

/// Written bytes after which the disk is waited for: a last wait for all of
/// them could be taken for a mover that hangs.
const SYNC_BYTES: u64 = 64 << 20;

/// One archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    pub move_id: MoveId,
    pub tenant: TenantId,
    /// Rows older than this are here; microseconds since 1970.
    pub retain_from_us: i64,
    pub made_at_us: i64,
    pub tables: Vec<Archived>,
    /// All tables are here.
    pub complete: bool,
}

/// One table's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// Quoted, with its schema.
    pub table: String,
    /// Quoted name and type, in the file's order.
    pub columns: Vec<(String, String)>,
    /// "binary" or "text", as COPY has it.
    pub format: String,
    pub file: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
}

impl Manifest {
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }
}

/// Where the archive of a move is, below the agent's state directory.
pub fn directory(archives: &Path, move_id: MoveId) -> PathBuf {
    archives.join(move_id.to_string())
}

/// The manifest in a move's directory.
pub fn manifest(dir: &Path) -> PathBuf {
    dir.join("manifest.json")
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> MoveError + '_ {
    move |error| MoveError::Interrupted(format!("the archive {}: {error}", path.display()))
}

/// When this returns, every row that the move leaves behind on this side is in
/// the archive, durably. Nothing is written where no row is. Idempotent.
///
/// # Errors
/// [`MoveError::Refused`] when the disk has no room for it;
/// [`MoveError::Interrupted`] where a file can't be written.
pub async fn write(run: &Run, conn: &Conn, tables: &[Table]) -> Result<(), MoveError> {
    let dir = directory(&run.archives, run.spec.move_id);
    let path = manifest(&dir);
    let mut found = match read(&dir) {
        Ok(found) if found.complete => return Ok(()),
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Manifest {
            version: 1,
            move_id: run.spec.move_id,
            tenant: run.spec.tenant,
            retain_from_us: run.spec.retain_from_us,
            made_at_us: jiff::Timestamp::now().as_microsecond(),
            tables: Vec::new(),
            complete: false,
        },
        Err(error) => return Err(failed(&path)(error)),
    };
    let mut wanted = Vec::new();
    let mut bytes = 0_u64;
    for table in tables {
        let sql = TableSql::new(table, &run.spec);
        let Some(left) = sql.left_behind("x") else { continue };
        let row = conn
            .one(
                &format!(
                    "select count(*), coalesce(sum(pg_column_size(x.*)), 0)::int8 from {} as x where {left}",
                    table.name
                ),
                &[],
            )
            .await?;
        if row.get::<_, i64>(0) > 0 && !found.tables.iter().any(|done| done.table == table.name) {
            bytes = bytes.saturating_add(row.get::<_, i64>(1).max(0).cast_unsigned());
            wanted.push((table, left));
        }
    }
    if wanted.is_empty() && found.tables.is_empty() {
        return Ok(());
    }
    durable::private_dir(&dir).map_err(failed(&dir))?;
    room(&dir, bytes)?;
    for (table, left) in wanted {
        let done = one(run, conn, &dir, found.tables.len(), table, &left).await?;
        found.tables.push(done);
        durable::save(&path, &found).map_err(|error| MoveError::Interrupted(error.to_string()))?;
        run.fail.point("mid_clean_up")?;
    }
    found.complete = true;
    durable::save(&path, &found).map_err(|error| MoveError::Interrupted(error.to_string()))?;
    tracing::info!(move_id = %run.spec.move_id, rows = found.rows(), bytes = found.bytes(),
        dir = %dir.display(), "archived what the downgrade leaves behind");
    Ok(())
}

fn room(dir: &Path, bytes: u64) -> Result<(), MoveError> {
    let disk = rustix::fs::statvfs(dir).map_err(|error| failed(dir)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < bytes.saturating_add(SPARE) {
        return Err(MoveError::refused(format!(
            "the archive {} needs about {} MiB, and {} MiB are free: make room, or delete older archives \
             (webhost-agent archives)",
            dir.display(),
            bytes.div_ceil(1 << 20),
            free >> 20
        )));
    }
    Ok(())
}

async fn one(
    run: &Run,
    conn: &Conn,
    dir: &Path,
    number: usize,
    table: &Table,
    left: &str,
) -> Result<Archived, MoveError> {
    let format = if table.binary() { "binary" } else { "text" };
    let copied = table.columns.iter().filter(|column| !column.generated);
    let columns: Vec<(String, String)> =
        copied.map(|column| (column.name.clone(), column.full_type.clone())).collect();
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("x.{name}")).collect();
    let name = format!("{number:03}.copy");
    let path = dir.join(&name);
    // A file that no manifest names is a crash's.
    durable::remove(&path).map_err(failed(&path))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed(&path))?;
    let out = conn
        .client()
        .copy_out(&format!(
            "COPY (SELECT {} FROM {} AS x WHERE {left}) TO STDOUT (FORMAT {format})",
            names.join(", "),
            table.name
        ))
        .await
        .map_err(|error| conn.error(error))?;
    tokio::pin!(out);
    let (mut hash, mut bytes, mut rows) = (Context::new(&SHA256), 0_u64, 0_u64);
    let mut synced = 0;
    while let Some(chunk) = out.next().await {
        let chunk = chunk.map_err(|error| conn.error(error))?;
        hash.update(&chunk);
        file.write_all(&chunk).map_err(failed(&path))?;
        bytes += chunk.len() as u64;
        if bytes - synced >= SYNC_BYTES {
            sync(&file).await.map_err(failed(&path))?;
            synced = bytes;
        }
        // One message a row, the binary header with the first; the trailer
        // is a message of its own.
        if chunk.as_ref() != [0xff, 0xff] {
            rows += 1;
        }
        if rows.is_multiple_of(4096) {
            run.progress.send_replace(Progress {
                table: format!("archive of {}", table.name),
                rows_done: rows,
                bytes_done: bytes,
                ..Progress::default()
            });
        }
    }
    sync(&file).await.map_err(failed(&path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))?;
    Ok(Archived {
        table: table.name.clone(),
        columns,
        format: format.into(),
        file: name,
        rows,
        bytes,
        sha256: hex(hash.finish().as_ref()),
    })
}

/// Waits for the disk beside the one thread, which has to say that it lives.
async fn sync(file: &File) -> std::io::Result<()> {
    let file = file.try_clone()?;
    tokio::task::spawn_blocking(move || file.sync_all()).await.map_err(std::io::Error::other)?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The manifest of one archive.
///
/// # Errors
/// Of the file system; where it is no manifest.
pub fn read(dir: &Path) -> std::io::Result<Manifest> {
    let text = std::fs::read(manifest(dir))?;
    serde_json::from_slice(&text).map_err(std::io::Error::other)
}

/// All archives below `archives`, the oldest first.
///
/// # Errors
/// Of the file system; where a manifest can't be read.
pub fn list(archives: &Path) -> std::io::Result<Vec<Manifest>> {
    let entries = match std::fs::read_dir(archives) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for entry in entries {
        let dir = entry?.path();
        match read(&dir) {
            Ok(found) => all.push(found),
            // A crash before the first table was whole.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(std::io::Error::other(format!("{}: {error}", dir.display())));
            }
        }
    }
    all.sort_by_key(|found| (found.made_at_us, found.move_id));
    Ok(all)
}

/// Deletes an archive. The manifest goes first: what is left then counts for
/// nothing.
///
/// # Errors
/// Of the file system; where there is no archive of this move.
pub fn delete(archives: &Path, move_id: MoveId) -> std::io::Result<Manifest> {
    let dir = directory(archives, move_id);
    let found = read(&dir)?;
    durable::remove(&manifest(&dir))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(found)
}

/// What psql has to run to bring the rows back; rows that exist stay as they
/// are. Every file's hash is checked before.
///
/// # Errors
/// Of the file system; where a file is not what the manifest says.
pub fn restore_sql(archives: &Path, move_id: MoveId) -> std::io::Result<String> {
    let dir = directory(archives, move_id);
    let found = read(&dir)?;
    let mut text = format!(
        "-- Rows of tenant {} that move {move_id} left behind: {} rows of {} tables.\n\
         -- For psql, in a database with the same schema, by the owner of the tables.\n\
         \\set ON_ERROR_STOP on\nBEGIN;\n",
        found.tenant,
        found.rows(),
        found.tables.len()
    );
    for (number, table) in found.tables.iter().enumerate() {
        let path = dir.join(&table.file);
        if digest(&path)? != table.sha256 {
            return Err(std::io::Error::other(format!(
                "{} is not what was archived: its SHA-256 differs",
                path.display()
            )));
        }
        let columns: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        let columns = columns.join(", ");
        text.push_str(&format!(
            "CREATE TEMP TABLE archived_{number} ON COMMIT DROP AS SELECT {columns} FROM {name} WITH NO DATA;\n\
             \\copy archived_{number} ({columns}) from {path} with (format {format})\n\
             INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM archived_{number} \
             ON CONFLICT DO NOTHING;\n",
            name = table.table,
            path = sql::literal(&path.display().to_string()),
            format = table.format,
        ));
    }
    text.push_str("COMMIT;\n");
    Ok(text)
}

fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Context::new(&SHA256), vec![0; 64 * 1024]);
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer)?;
        match buffer.get(..read) {
            Some(chunk) if read > 0 => hash.update(chunk),
            _ => return Ok(hex(hash.finish().as_ref())),
        }
    }
}
