//! One process per data directory.
//!
//! The lock is the operating system's, on a file that names the process. It dies with the process, so a file left
//! behind by one that was killed is no obstacle.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{fault, schema};
use crate::error::{Code, Error, Result};

const LOCK_FILE: &str = "nvent.lock";

/// The lock on a data directory, held until it is dropped.
pub(super) struct DirLock(#[expect(dead_code, reason = "open is what it must be")] File);

impl DirLock {
    /// Takes the lock, or fails at once with [`Code::Locked`].
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK_FILE);
        let failed = |e: &std::io::Error| fault::io("use the lock file", &path, e);
        let mut file = schema::private_file().open(&path).map_err(|e| failed(&e))?;
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
    Error::new(
        Code::Locked,
        format!("{}: {holder} uses this data directory: end it, or use another dataDir", dir.display()),
    )
}
