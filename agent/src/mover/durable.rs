//! Small JSON files that survive a crash: written beside, synced, renamed.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct DurableError {
    path: PathBuf,
    source: std::io::Error,
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> DurableError {
    let path = path.to_path_buf();
    move |source| DurableError { path, source }
}

/// Creates `dir` for our eyes only.
///
/// # Errors
/// [`DurableError`], naming the directory.
pub fn directory(dir: &Path) -> Result<(), DurableError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))
}

/// When this returns, `path` holds `value` even after a power cut. The file is
/// readable by its owner alone.
///
/// # Errors
/// [`DurableError`]; the old content is untouched then.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), DurableError> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|error| at(path)(std::io::Error::other(error)))?;
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(at(&fresh))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(at(&fresh))?;
    std::fs::rename(&fresh, path).map_err(at(path))?;
    sync_parent(path)
}

/// Removes `path` durably; it may be gone already.
///
/// # Errors
/// [`DurableError`].
pub fn remove(path: &Path) -> Result<(), DurableError> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(path)(error)),
    }
}

fn sync_parent(path: &Path) -> Result<(), DurableError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(at(parent))
}

/// All values in `dir`'s `.json` files. One that can't be read is an error:
/// a move that we forgot would be worse than one that stops us.
///
/// # Errors
/// [`DurableError`], naming the file.
pub fn load_all<T: DeserializeOwned>(dir: &Path) -> Result<Vec<T>, DurableError> {
    let mut values = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read(&path).map_err(at(&path))?;
        let value = serde_json::from_slice(&text)
            .map_err(|error| at(&path)(std::io::Error::other(error)))?;
        values.push(value);
    }
    Ok(values)
}
