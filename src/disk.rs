//! Data directories: private to the user, and open in one process at a time.
//!
//! The lock is the operating system's, on a file that names the process. It dies with the process, so a file left
//! behind by one that was killed is no obstacle.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Code, Error, Result};

/// What an acknowledged change survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Durability {
    /// The process being killed.
    #[default]
    Os,
    /// Power loss too: one sync of the disk for all changes that wait.
    Disk,
}

/// Returns the error for a failed call of the file system.
pub(crate) fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("{}: cannot {what}: {error}", path.display()))
}

/// Returns the absolute path of a directory, as the working directory of the process may change before it is opened.
pub(crate) fn absolute(dir: PathBuf) -> PathBuf {
    // It fails for an empty path, and where there is no working directory: opening reports either.
    std::path::absolute(&dir).unwrap_or(dir)
}

/// Creates the directory (private to the user) where it is missing; its one true path.
pub(crate) fn prepare_dir(dir: &Path) -> Result<PathBuf> {
    let missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|e| failed("create the data directory", dir, &e))?;
    for created in missing {
        sync_entry(created).map_err(|e| failed("sync the data directory", created, &e))?;
    }
    dir.canonicalize().map_err(|e| failed("find the data directory", dir, &e))
}

/// Returns the one true path of a directory that is there.
pub(crate) fn existing_dir(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::not_found(format!("{}: there is no such data directory", dir.display())),
        _ => failed("open the data directory", dir, &e),
    })
}

/// Makes the name of a new file or directory survive power loss.
pub(crate) fn sync_entry(path: &Path) -> std::io::Result<()> {
    // Elsewhere a directory cannot be opened, and the file system sees to it.
    if cfg!(unix) {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(parent)?.sync_all()?;
    }
    #[cfg(test)]
    crate::sync::lock(&tests::SYNCED).push(path.to_owned());
    Ok(())
}

/// Fails with [`Code::Corrupt`] if a database is missing or empty and its log is not: SQLite would delete the log, and with it what
/// was committed.
pub(crate) fn check_log(dir: &Path, database: &str) -> Result<()> {
    // What SQLite writes before the first entry.
    const LOG_HEADER: u64 = 32;
    let log = dir.join(format!("{database}-wal"));
    let length = |path: &Path| path.metadata().map_or(0, |meta| meta.len());
    let path = dir.join(database);
    if length(&path) > 0 || length(&log) <= LOG_HEADER {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{} is missing or empty, but {} has what was written last: restore {database}, or delete the log too to begin without data",
        path.display(),
        log.display(),
    )))
}

/// Renames a file. Fails if there is a file of the new name.
pub(crate) fn rename_new(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(from, to) {
        Ok(()) => std::fs::remove_file(from),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(e),
        // This file system has no links.
        Err(_) if to.symlink_metadata().is_err() => std::fs::rename(from, to),
        Err(e) => Err(e),
    }
}

/// Returns options for files that only the user may read.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Which file a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    is_empty: bool,
    #[cfg(unix)]
    device: u64,
    #[cfg(unix)]
    inode: u64,
}

impl FileId {
    /// Returns the file of a path.
    pub(crate) fn of(path: &Path) -> std::io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Ok(Self { is_empty: meta.len() == 0, device: meta.dev(), inode: meta.ino() })
        }
        #[cfg(not(unix))]
        {
            // An open file cannot be deleted or replaced there.
            Ok(Self { is_empty: meta.len() == 0 })
        }
    }

    /// Returns whether a path still leads to this file, and it has not been emptied since the last look.
    pub(crate) fn is_still_at(&mut self, path: &Path) -> bool {
        let Ok(now) = Self::of(path) else { return false };
        let is_same = now == Self { is_empty: now.is_empty, ..*self } && (self.is_empty || !now.is_empty);
        if is_same {
            *self = now;
        }
        is_same
    }
}

/// The lock on a data directory, held until it is dropped.
pub(crate) struct DirLock(File);

impl Drop for DirLock {
    /// Unlocks. A process that is being started by another thread has a copy of the file until it runs its program, and
    /// closing ours alone would leave the lock with it.
    fn drop(&mut self) {
        _ = self.0.unlock();
    }
}

impl DirLock {
    /// Takes the lock on a file of data itself, which cannot be replaced without replacing the data. Closing the file would
    /// release the locks that SQLite has on it: the lock must be dropped after the connections.
    #[cfg(unix)]
    pub(crate) fn take_data(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(name);
        let failed = |e: &std::io::Error| failed("lock the database", &path, e);
        let file = private_file().open(&path).map_err(|e| failed(&e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(locked_by(dir, "another process")),
            Err(TryLockError::Error(e)) => Err(failed(&e)),
        }
    }

    /// Takes the lock on the file of this name, or fails at once with [`Code::Locked`].
    pub(crate) fn take(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(name);
        let failed = |e: &std::io::Error| failed("use the lock file", &path, e);
        // It is written to: a link would lead to another file.
        if path.is_symlink() {
            return Err(Error::io(format!(
                "{}: is a symbolic link, and a lock must be a file: delete it",
                path.display()
            )));
        }
        let mut file = private_file().open(&path).map_err(|e| failed(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked(dir, &mut file)),
            Err(TryLockError::Error(e)) => return Err(failed(&e)),
        }
        let mut name = || {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            write!(file, "{}", std::process::id())
        };
        name().map_err(|e| failed(&e))?;
        Ok(Self(file))
    }
}

fn locked(dir: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let holder = match file.read_to_string(&mut text) {
        Ok(_) if text == std::process::id().to_string() => "another copy of nvent-native in this process".to_owned(),
        Ok(_) if !text.is_empty() => format!("the process with pid {text}"),
        _ => "another process".to_owned(),
    };
    locked_by(dir, &holder)
}

fn locked_by(dir: &Path, holder: &str) -> Error {
    Error::new(
        Code::Locked,
        format!("{}: {holder} uses this data directory: end it, or use another dataDir", dir.display()),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::op::Op;
    use crate::store::file::{FileStore, FileStoreOptions};
    use crate::store::{Maintenance, StoreBackend};
    use crate::time::system_clock;

    /// Entries whose directory was synced.
    pub(super) static SYNCED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

    fn is_synced(path: &Path) -> bool {
        crate::sync::lock(&SYNCED).iter().any(|synced| synced == path)
    }

    #[test]
    fn every_directory_that_is_created_survives_power_loss() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/b/c");
        prepare_dir(&dir).unwrap();
        for created in dir.ancestors().take(3) {
            assert!(is_synced(created), "{created:?}");
        }
        assert!(!is_synced(base.path()), "it was there");
    }

    #[tokio::test]
    async fn the_name_of_a_backup_survives_power_loss() {
        let base = tempfile::tempdir().unwrap();
        let options = FileStoreOptions::new(base.path().join("data"));
        let store = Arc::new(FileStore::new(options, system_clock(), tokio::runtime::Handle::current()));
        let copy = base.path().join("copy.db");
        let backup: Op<()> = store.backup(&copy);
        backup.await.unwrap();
        assert!(copy.is_file() && is_synced(&copy));
        store.close().await.unwrap();
    }

    #[test]
    fn a_lock_ends_with_its_holder_though_a_process_that_is_being_started_has_a_copy_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path(), "test.lock").unwrap();
        let copy = lock.0.try_clone().unwrap();
        assert!(DirLock::take(dir.path(), "test.lock").is_err());
        drop(lock);
        drop(DirLock::take(dir.path(), "test.lock").unwrap());
        drop(copy);
    }

    #[test]
    fn a_rename_replaces_no_file() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name);
        std::fs::write(path("from"), "new").unwrap();
        std::fs::write(path("to"), "old").unwrap();
        assert_eq!(rename_new(&path("from"), &path("to")).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(path("to")).unwrap(), "old");
        rename_new(&path("from"), &path("other")).unwrap();
        assert!(!path("from").exists() && path("other").exists());
    }
}
