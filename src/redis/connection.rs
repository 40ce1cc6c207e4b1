//! Exchanges bytes over one socket, and bounds how long the server may take to reply.

use std::pin::Pin;
use std::time::Duration;

use ::redis::{Cmd, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until};

use super::config::RedisConfig;
use super::socket::{Socket, connection_closed, connection_lost};
use crate::error::{Error, Result};

/// Bytes of an incomplete reply that count as progress. Fewer within the response timeout do not.
const PROGRESS_BYTES: usize = 64 * 1024;

/// What happened on a connection.
pub(super) enum Activity<T> {
    /// Whole replies or messages arrived.
    Received(Vec<Value>),
    /// Everything that was queued has been written.
    Flushed,
    /// The caller's future resolved.
    Other(T),
    /// Nothing was exchanged for the ping interval, and no reply is pending.
    Idle,
}

/// A socket with its unsent output and the deadline of the next reply.
pub(super) struct Connection {
    socket: Socket,
    response_timeout: Duration,
    reply_timeout: Duration,
    ping_interval: Duration,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
    /// Offset of `output` in everything ever queued.
    base: u64,
    /// When the server last made progress, or a reply became pending.
    progress: Instant,
    /// When the last whole reply arrived, or a reply became pending.
    last_reply: Instant,
    /// Bytes of an incomplete reply since `progress`.
    partial: usize,
    timer: Pin<Box<Sleep>>,
    /// The parser failed after replies that were returned.
    failed: Option<Error>,
}

impl Connection {
    pub(super) fn new(socket: Socket, config: &RedisConfig) -> Self {
        let now = Instant::now();
        Self {
            socket,
            response_timeout: config.response_timeout,
            reply_timeout: config.reply_timeout,
            ping_interval: config.ping_interval,
            input: Vec::with_capacity(64 * 1024),
            output: Vec::new(),
            written: 0,
            base: 0,
            progress: now,
            last_reply: now,
            partial: 0,
            timer: Box::pin(sleep_until(now + config.ping_interval)),
            failed: None,
        }
    }

    /// Queues a command. Returns its offset in everything ever queued, to be compared with [`Connection::written`].
    /// `first` says that no other reply is pending.
    pub(super) fn queue(&mut self, cmd: &Cmd, first: bool) -> u64 {
        if first {
            self.progress = Instant::now();
            self.last_reply = self.progress;
            self.partial = 0;
        }
        let offset = self.base + self.output.len() as u64;
        cmd.write_packed_command(&mut self.output);
        offset
    }

    /// Returns the number of bytes ever written.
    pub(super) fn written(&self) -> u64 {
        self.base + self.written as u64
    }

    /// Returns the number of bytes that are queued and not written.
    pub(super) fn unwritten(&self) -> usize {
        self.output.len() - self.written
    }

    /// Reads and writes until something happened that concerns the caller. Cancel-safe. Fails when the connection broke, or
    /// when a reply is pending and the server is too slow.
    pub(super) async fn next<T>(&mut self, reply_pending: bool, other: impl Future<Output = T>) -> Result<Activity<T>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        tokio::pin!(other);
        loop {
            let deadline = self.deadline(reply_pending);
            if deadline < self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            let unwritten = self.output.len() - self.written;
            tokio::select! {
                read = self.socket.reader.read_buf(&mut self.input) => {
                    let bytes = read.map_err(|e| connection_lost(&self.socket.address, &e))?;
                    if bytes == 0 {
                        return Err(connection_closed(&self.socket.address));
                    }
                    if let Some(values) = self.parse(bytes)? {
                        return Ok(Activity::Received(values));
                    }
                }
                written = self.socket.writer.write(&self.output[self.written..]), if unwritten > 0 => {
                    self.written += written.map_err(|e| connection_lost(&self.socket.address, &e))?;
                    if self.written == self.output.len() {
                        self.base += self.written as u64;
                        self.written = 0;
                        self.output.clear();
                        return Ok(Activity::Flushed);
                    }
                }
                value = &mut other => return Ok(Activity::Other(value)),
                () = &mut self.timer => {
                    let deadline = self.deadline(reply_pending);
                    if Instant::now() < deadline {
                        self.timer.as_mut().reset(deadline);
                    } else if reply_pending {
                        return Err(self.too_slow());
                    } else {
                        return Ok(Activity::Idle);
                    }
                }
            }
        }
    }

    /// Parses the input. Returns None if no reply is complete.
    fn parse(&mut self, bytes: usize) -> Result<Option<Vec<Value>>> {
        let mut values = Vec::new();
        let parsed = self.socket.parser.feed(&self.input, |value| values.push(value));
        self.input.clear();
        self.partial += bytes;
        if values.is_empty() {
            parsed?;
            if self.partial >= PROGRESS_BYTES {
                (self.progress, self.partial) = (Instant::now(), 0);
            }
            return Ok(None);
        }
        (self.progress, self.partial) = (Instant::now(), 0);
        self.last_reply = self.progress;
        self.failed = parsed.err();
        Ok(Some(values))
    }

    fn deadline(&self, reply_pending: bool) -> Instant {
        if reply_pending {
            (self.progress + self.response_timeout).min(self.last_reply + self.reply_timeout)
        } else {
            self.progress + self.ping_interval
        }
    }

    fn too_slow(&self) -> Error {
        let (address, partial) = (&self.socket.address, self.partial > 0 || self.progress > self.last_reply);
        Error::unavailable(if !partial {
            format!("no reply from {address} within {:?}", self.response_timeout)
        } else if Instant::now() >= self.last_reply + self.reply_timeout {
            format!("no complete reply from {address} within {:?}", self.reply_timeout)
        } else {
            format!("{address} sent less than {PROGRESS_BYTES} bytes of a reply within {:?}", self.response_timeout)
        })
    }

    /// Closes the connection in an orderly way.
    pub(super) async fn quit(self) {
        self.socket.quit().await;
    }
}
