//! Jobs in a directory: one thread owns the database, and commits what has gathered while it committed before.

mod sqlite;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::driver::{Command, Driver, wait_for};
use super::engine::Engine;
use super::storage::JobStorage;
use crate::error::{Error, Result};
use crate::op::BoxFuture;
use crate::time::SharedClock;

/// What an acknowledged change survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The process being killed.
    #[default]
    Os,
    /// Power loss too: one fsync for all changes that wait.
    Disk,
}

/// Commands that one commit holds at most.
const BATCH: usize = 1_000;

/// The threads that serve a directory, one after the other. All adapters of the process on one directory share one.
#[derive(Default)]
struct Directory {
    users: usize,
    sender: Option<Sender<Command>>,
    /// Held by the thread that serves, so that the next one begins when it is done.
    turn: Arc<Mutex<()>>,
    /// Ends with the thread.
    done: Option<oneshot::Receiver<()>>,
}

static DIRECTORIES: LazyLock<Mutex<HashMap<PathBuf, Directory>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks, and what they guard is whole at every point.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path by which a directory is known, whether it exists yet or not.
fn identity(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = path.ancestors().find_map(|dir| Some((dir, dir.canonicalize().ok()?)));
    match existing {
        Some((dir, real)) => match path.strip_prefix(dir) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => path,
    }
}

enum Attachment {
    /// Nothing was called yet.
    None,
    To(PathBuf, Sender<Command>),
    Ended,
}

/// One adapter's way to the thread of its directory.
pub(super) struct FileDriver {
    path: PathBuf,
    durability: Durability,
    clock: SharedClock,
    attachment: Mutex<Attachment>,
}

impl FileDriver {
    pub(super) fn new(path: PathBuf, durability: Durability, clock: SharedClock) -> Arc<Self> {
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
                        // Whoever closed may have stopped waiting.
                        _ = finished.send(());
                    })
                    .map_err(|e| Error::io(format!("no thread for the queue in {}: {e}", path.display())))?;
                (directory.sender, directory.done) = (Some(sender.clone()), Some(done));
                sender
            }
        };
        directory.users += 1;
        if self.durability == Durability::Disk {
            // Opening is tried again by every command, so an error here is told by the next one.
            _ = sender.send(Box::new(|engine| {
                _ = engine.and_then(Engine::survive_power_loss);
                Box::new(|_| {})
            }));
        }
        Ok((path, sender))
    }

    /// Lets go of the directory. Where this was the last user: what ends with the thread.
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
                // It ends also when the thread does so without a word.
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

/// The thread of a directory. It ends when the last sender is gone.
fn serve(dir: PathBuf, clock: SharedClock, commands: &Receiver<Command>) {
    let opener = move || Ok(Box::new(sqlite::SqliteStorage::open(&dir)?) as Box<dyn JobStorage>);
    let mut engine = Engine::new(clock.clone(), Box::new(opener));
    loop {
        let first = match commands.recv_timeout(wait_for(engine.next_wake(), clock.now_ms())) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let gathered = first.into_iter().chain(commands.try_iter()).take(BATCH);
        let replies: Vec<_> = gathered.map(|command| command(Ok(&mut engine))).collect();
        let failure = engine.finish_step().err();
        replies.into_iter().for_each(|reply| reply(failure.clone()));
    }
}
