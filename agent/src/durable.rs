//! Small files that must survive a crash whole: old or new, never half.

use std::fs::{File, OpenOptions};
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

/// Why a state directory can't be worked on.
#[derive(Debug, thiserror::Error)]
pub enum StateLockError {
    /// Somebody does already.
    #[error("{0} is held: an agent, or a recovery, works on this state directory; stop it first")]
    Held(PathBuf),
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] DurableError),
}

/// One agent, or one recovery by hand, at a time on a state directory. Let go
/// when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the lock or refuses; never waits.
    ///
    /// # Errors
    /// [`StateLockError`].
    pub fn take(state_dir: &Path) -> Result<Self, StateLockError> {
        let path = state_dir.join("lock");
        private_dir(state_dir).map_err(at(state_dir))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateLockError::Held(path)),
            Err(std::fs::TryLockError::Error(error)) => Err(at(&path)(error).into()),
        }
    }
}

/// Names the file in an error about it.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> DurableError {
    let path = path.to_path_buf();
    move |source| DurableError { path, source }
}

/// Replaces `path` by `bytes`, mode 0600. When it returns, the new content
/// survives a crash; before, the old one does.
///
/// # Errors
/// Of the file system; the old file stands then.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    replace_with(path, bytes, 0o600)
}

fn replace_with(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let dir = directory_of(path);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let fresh = dir.join(name);
    // A crash may have left one; it never counted.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()
}

/// [`replace`], readable by everybody.
///
/// # Errors
/// Of the file system; the old file stands then.
pub(crate) fn replace_public(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    replace_with(path, bytes, 0o644)
}

/// Removes `path` durably; it may be gone already.
///
/// # Errors
/// Of the file system.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => File::open(directory_of(path))?.sync_all(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// [`replace`] by `value` as JSON.
///
/// # Errors
/// [`DurableError`]; the old content is untouched then.
pub(crate) fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), DurableError> {
    serde_json::to_vec_pretty(value)
        .map_err(std::io::Error::other)
        .and_then(|text| replace(path, &text))
        .map_err(at(path))
}

/// All values in `dir`'s `.json` files. One that can't be read is an error: a
/// move that we forgot would be worse than one that stops us.
///
/// # Errors
/// [`DurableError`], naming the file.
pub(crate) fn load_all<T: DeserializeOwned>(dir: &Path) -> Result<Vec<T>, DurableError> {
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

/// Makes a directory and its parents, closed to everybody else.
///
/// # Errors
/// Of the file system.
pub(crate) fn private_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_works_on_a_state_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = StateLock::take(dir.path()).expect("free");
        let error = StateLock::take(dir.path()).expect_err("held").to_string();
        assert!(error.contains("stop it first"), "{error}");
        drop(held);
        StateLock::take(dir.path()).expect("free again");
    }
}
