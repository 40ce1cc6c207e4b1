//! The driver of queues in a directory: commands are sent to the thread that owns the database.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};

use tokio::sync::oneshot;

use super::super::driver::{Command, Driver, wait_for};
use super::super::engine::Engine;
use super::super::storage::JobStorage;
use super::Durability;
use super::sqlite::SqliteStorage;
use crate::disk;
use crate::error::{Error, Result};
use crate::op::BoxFuture;
use crate::sync::lock;
use crate::time::SharedClock;

/// How many commands one commit has at most.
const MAX_BATCH: usize = 1_000;

/// The thread that serves a directory. All queues of the process on one directory share it.
#[derive(Default)]
struct Directory {
    users: usize,
    sender: Option<Sender<Command>>,
    /// Held by the thread that serves: the next one waits until it has ended.
    turn: Arc<Mutex<()>>,
    /// Resolves when the thread ends.
    done: Option<oneshot::Receiver<()>>,
}

static DIRECTORIES: LazyLock<Mutex<HashMap<PathBuf, Directory>>> = LazyLock::new(Mutex::default);

/// Returns the canonical path of an absolute one that may not exist yet.
fn identity(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|dir| Some((dir, dir.canonicalize().ok()?)));
    match existing {
        Some((dir, real)) => match path.strip_prefix(dir) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => path.to_owned(),
    }
}

enum Attachment {
    /// Before the first call.
    None,
    To(PathBuf, Sender<Command>),
    Ended,
}

/// Sends the commands of one queue adapter to the thread of its directory.
pub(in crate::queue) struct FileDriver {
    path: PathBuf,
    durability: Durability,
    clock: SharedClock,
    attachment: Mutex<Attachment>,
}

impl FileDriver {
    pub(in crate::queue) fn new(path: PathBuf, durability: Durability, clock: SharedClock) -> Arc<Self> {
        let path = disk::absolute(path);
        Arc::new(Self { path, durability, clock, attachment: Mutex::new(Attachment::None) })
    }

    fn attach(&self) -> Result<(PathBuf, Sender<Command>)> {
        let path = identity(&self.path);
        let mut directories = lock(&DIRECTORIES);
        let directory = directories.entry(path.clone()).or_default();
        let sender = match &directory.sender {
            Some(sender) => sender.clone(),
            None => {
                let (sender, commands) = channel();
                let (finished, done) = oneshot::channel();
                let (turn, dir, clock) = (directory.turn.clone(), path.clone(), self.clock.clone());
                std::thread::Builder::new()
                    .name("nvent-queue".into())
                    .spawn(move || {
                        let _turn = lock(&turn);
                        serve(dir, clock, &commands);
                        // The receiver is dropped where no caller waits for the end.
                        _ = finished.send(());
                    })
                    .map_err(|e| Error::io(format!("no thread for the queue in {}: {e}", path.display())))?;
                (directory.sender, directory.done) = (Some(sender.clone()), Some(done));
                sender
            }
        };
        directory.users += 1;
        if self.durability == Durability::Disk {
            // Every command tries to open, so an error here is reported by the next one.
            _ = sender.send(Box::new(|engine| {
                _ = engine.and_then(|engine| engine.set_durability(Durability::Disk));
                Box::new(|_| {})
            }));
        }
        Ok((path, sender))
    }

    /// Releases the directory. Returns the end of the thread where this was the last user.
    fn detach(&self) -> Option<oneshot::Receiver<()>> {
        let Attachment::To(path, sender) = std::mem::replace(&mut *lock(&self.attachment), Attachment::Ended) else {
            return None;
        };
        drop(sender);
        let mut directories = lock(&DIRECTORIES);
        let directory = directories.get_mut(&path)?;
        directory.users -= 1;
        if directory.users > 0 {
            return None;
        }
        directory.sender = None;
        directory.done.take()
    }
}

impl Driver for FileDriver {
    fn submit(&self, command: Command) {
        let mut attachment = lock(&self.attachment);
        if let Attachment::None = *attachment {
            match self.attach() {
                Ok((path, sender)) => *attachment = Attachment::To(path, sender),
                Err(error) => return command(Err(error))(None),
            }
        }
        let refused = match &*attachment {
            Attachment::To(_, sender) => sender.send(command).err().map(|refused| refused.0),
            Attachment::None | Attachment::Ended => Some(command),
        };
        drop(attachment);
        if let Some(command) = refused {
            command(Err(Error::closed("the queue")))(None);
        }
    }

    fn end(&self) -> BoxFuture<()> {
        let done = self.detach();
        Box::pin(async move {
            if let Some(done) = done {
                // An error means that the thread panicked, which ended it as well.
                _ = done.await;
            }
            Ok(())
        })
    }
}

impl Drop for FileDriver {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Runs the thread of a directory. Returns when the last sender is dropped.
fn serve(dir: PathBuf, clock: SharedClock, commands: &Receiver<Command>) {
    let opener = move || Ok(Box::new(SqliteStorage::open(&dir)?) as Box<dyn JobStorage>);
    let mut engine = Engine::new("file", clock.clone(), Box::new(opener));
    loop {
        let first = match commands.recv_timeout(wait_for(engine.next_wake(), clock.monotonic_ms())) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let gathered = first.into_iter().chain(commands.try_iter()).take(MAX_BATCH);
        let replies: Vec<_> = gathered.map(|command| command(Ok(&mut engine))).collect();
        let failure = engine.commit_step().err();
        replies.into_iter().for_each(|reply| reply(failure.clone()));
    }
}
