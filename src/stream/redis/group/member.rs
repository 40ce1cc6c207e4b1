//! The task of a group: reads from Redis, acknowledges, retries and claims.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};
use tokio::time::{Instant, timeout};

use super::{Claim, EntryRef, Group, ignore_existing};
use crate::error::{Error, Result};
use crate::redis::socket::Socket;
use crate::redis::{Request, reconnect_backoff, reply};
use crate::stream::redis::parked::MAX_PARKED;
use crate::stream::redis::scripts;
use crate::topic::is_pattern;

/// How long one read blocks on the server.
const READ_BLOCK: Duration = Duration::from_millis(500);
/// Messages read or claimed at a time.
const MAX_MESSAGES_PER_READ: usize = 64;

/// Serves a group until it has been left.
pub(in crate::stream::redis) async fn run(group: Arc<Group>) {
    let config = group.shared.config.clone();
    let mut backoff = reconnect_backoff(&config);
    loop {
        match Socket::open(&config).await {
            Ok(socket) => {
                backoff.reset();
                let mut member = Member::new(&group, socket);
                match member.serve().await {
                    Ok(()) => {
                        member.leave().await;
                        break;
                    }
                    Err(error) => tracing::debug!(%error, "a group member reconnects"),
                }
            }
            Err(error) => tracing::debug!(%error, "a group member is not connected"),
        }
        if let Some(until) = group.drain_until() {
            // Without a connection nothing can be released: others claim it when this member has been idle.
            group.released.set();
            if Instant::now() >= until || !group.has_running_handlers() {
                break;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            () = group.changed.notified() => {}
        }
    }
    group.released.set();
    group.left.set();
}

struct Member<'a> {
    group: &'a Arc<Group>,
    socket: Socket,
    /// Topics in which the group is known to exist.
    topics: HashSet<Arc<str>>,
    /// The number of the last message read from each topic.
    last_numbers: HashMap<Arc<str>, u64>,
    /// Where the search for idle claims continues, per topic.
    claim_cursors: HashMap<Arc<str>, String>,
    claims_renewed: Option<Instant>,
}

impl<'a> Member<'a> {
    fn new(group: &'a Arc<Group>, socket: Socket) -> Self {
        Self {
            group,
            socket,
            topics: HashSet::new(),
            last_numbers: HashMap::new(),
            claim_cursors: HashMap::new(),
            claims_renewed: None,
        }
    }

    async fn call(&mut self, what: &'static str, cmd: &Cmd) -> Result<Value> {
        let limit = READ_BLOCK + self.group.shared.config.response_timeout;
        match timeout(limit, self.socket.call(what, cmd)).await {
            Ok(reply) => reply,
            Err(_) => Err(Error::unavailable(format!("{what}: no reply within {limit:?}"))),
        }
    }

    /// Reads and delivers until the group is left and its handlers have ended.
    async fn serve(&mut self) -> Result<()> {
        loop {
            self.find_topics().await?;
            self.settle().await?;
            let renewal_interval = self.group.shared.groups.claim_idle_after / 3;
            if self.claims_renewed.is_none_or(|at| at.elapsed() >= renewal_interval) {
                self.renew_claims().await?;
                self.claims_renewed = Some(Instant::now());
            }
            if let Some(until) = self.group.drain_until() {
                self.release_claims().await;
                self.group.released.set();
                let now = Instant::now();
                if now >= until || !self.group.has_running_handlers() {
                    return Ok(());
                }
                _ = timeout(READ_BLOCK.min(until - now), self.group.changed.notified()).await;
                continue;
            }
            let capacity = self.group.capacity();
            if capacity == 0 || self.topics.is_empty() {
                _ = timeout(READ_BLOCK, self.group.changed.notified()).await;
            } else {
                self.read(capacity.min(MAX_MESSAGES_PER_READ)).await?;
            }
        }
    }

    async fn find_topics(&mut self) -> Result<()> {
        if self.group.state().starts.is_none() {
            // The server could not be asked when the group was joined.
            let tail_ids =
                self.group.shared.tail_ids(if is_pattern(&self.group.topic) { "" } else { &self.group.topic });
            self.group.start_at(tail_ids.await?);
        }
        let topics = if is_pattern(&self.group.topic) {
            reply::texts(self.call("SMEMBERS", &cmd("SMEMBERS").arg(self.group.shared.keys.topics()).take()).await?)?
        } else {
            vec![self.group.topic.to_string()]
        };
        for topic in topics {
            if !self.group.glob.matches(&topic) || self.topics.contains(&*topic) {
                continue;
            }
            let create = self.group.create_command(&topic);
            self.call("XGROUP", &create).await.map(drop).or_else(ignore_existing)?;
            self.topics.insert(topic.into());
        }
        Ok(())
    }

    async fn read(&mut self, count: usize) -> Result<()> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&*self.group.name).arg(&self.group.member).arg("COUNT").arg(count);
        read.arg("BLOCK").arg(READ_BLOCK.as_millis() as u64).arg("STREAMS");
        let topics: Vec<_> = self.topics.iter().cloned().collect();
        topics.iter().for_each(|topic| _ = read.arg(self.group.shared.keys.retained(topic)));
        topics.iter().for_each(|_| _ = read.arg(">"));
        let streams = match self.call("XREADGROUP", &read).await {
            Ok(streams) => reply::list(streams)?,
            Err(error) if matches!(reply::server_code(&error), Some("NOGROUP" | "UNBLOCKED")) => {
                // A topic was deleted: the group is created in it again.
                self.topics.clear();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let prefix = self.group.shared.keys.retained_prefix();
        let mut unreported = Ok(());
        for stream in streams {
            let mut parts = reply::list(stream)?.into_iter();
            let (Some(key), Some(entries)) = (parts.next(), parts.next()) else { continue };
            let key = reply::text(key)?;
            let topic: Arc<str> = key.strip_prefix(&prefix).unwrap_or(&key).into();
            let entries = reply::list(entries)?;
            // The entries are this member's: they are delivered whether or not that fails. What was trimmed is reported later then.
            match self.report_trimmed(&topic, &entries).await {
                Ok(()) => {}
                Err(error) if error.is_retryable() => unreported = Err(error),
                Err(error) => {
                    tracing::warn!(code = %error.code(), topic = &*topic, "messages that were trimmed cannot be reported: {error}");
                }
            }
            for entry in entries {
                self.group.deliver(&topic, entry)?;
            }
        }
        unreported
    }

    /// Reports what was trimmed before these entries. Only if their numbers do not follow the last one that this member
    /// read can something have been trimmed; it may also have been read by other members.
    async fn report_trimmed(&mut self, topic: &Arc<str>, entries: &[Value]) -> Result<()> {
        let mut follows = self.last_numbers.get(topic).copied();
        let mut is_contiguous = follows.is_some();
        for entry in entries {
            let number = self.group.shared.entry(topic, entry.clone())?.number;
            is_contiguous &= number.is_some() && number == follows.map(|last| last + 1);
            follows = number;
        }
        if let Some(last) = follows {
            self.last_numbers.insert(topic.clone(), last);
        }
        if !is_contiguous {
            let mut call = scripts::TAKE_TRIMMED.call(&[&self.group.shared.keys.trimmed(topic)]);
            call.arg(&*self.group.name);
            let request = Request::write("subscribe", call).of(&scripts::TAKE_TRIMMED);
            let count = self.group.shared.client.call(request, reply::int).await?;
            self.group.report_trimmed(u64::try_from(count).unwrap_or(0));
        }
        Ok(())
    }

    /// Acknowledges what was handled, and delivers again what is due.
    async fn settle(&mut self) -> Result<()> {
        let (mut handled, mut due) = (Vec::new(), Vec::new());
        {
            let state = self.group.state();
            for (claimed, claim) in &state.claims {
                match claim {
                    Claim::Handled => handled.push(claimed.clone()),
                    Claim::RetryAt(at) if state.drain_until.is_none() && *at <= Instant::now() => {
                        due.push(claimed.clone())
                    }
                    Claim::RetryAt(_) | Claim::Delivered => {}
                }
            }
        }
        for claimed in handled {
            let (topic, id) = &claimed;
            let ack = cmd("XACK")
                .arg(self.group.shared.keys.retained(topic))
                .arg(&*self.group.name)
                .arg(id.to_string())
                .take();
            self.call("XACK", &ack).await?;
            self.group.state().claims.remove(&claimed);
        }
        for claimed in due {
            self.retry(claimed).await?;
        }
        Ok(())
    }

    /// Delivers a claimed message again, or parks it.
    async fn retry(&mut self, claimed: EntryRef) -> Result<()> {
        let shared = &self.group.shared;
        let (stream, parked) = (shared.keys.retained(&claimed.0), shared.keys.parked(&claimed.0, &self.group.name));
        let mut call = scripts::RETRY.call(&[&stream, &parked]);
        call.arg(&*self.group.name).arg(&self.group.member).arg(claimed.1.to_string());
        call.arg(shared.groups.max_deliveries).arg(MAX_PARKED);
        let entry = shared.client.call(Request::write("retry", call).of(&scripts::RETRY), Ok).await?;
        {
            let mut state = self.group.state();
            state.claims.remove(&claimed);
            if !matches!(entry, Value::Array(_)) {
                state.failures.remove(&claimed);
                drop(state);
                if entry != Value::Nil {
                    self.group.report_trimmed(1);
                }
                return Ok(());
            }
        }
        self.group.deliver(&claimed.0, entry)
    }

    /// Renews this member's claims, and claims what members that are gone have left, as far as there is capacity.
    async fn renew_claims(&mut self) -> Result<()> {
        let idle = self.group.shared.groups.claim_idle_after.as_millis() as u64;
        let claims: Vec<_> = self.group.state().claims.keys().cloned().collect();
        for topic in self.topics.clone() {
            let key = self.group.shared.keys.retained(&topic);
            let ids: Vec<_> = claims.iter().filter(|(t, _)| *t == topic).map(|(_, id)| id.to_string()).collect();
            if !ids.is_empty() {
                let mut claim = cmd("XCLAIM");
                claim.arg(&key).arg(&*self.group.name).arg(&self.group.member).arg(0).arg(ids).arg("JUSTID");
                self.call("XCLAIM", &claim).await?;
            }
            let capacity = self.group.capacity();
            if capacity == 0 || self.group.drain_until().is_some() {
                continue;
            }
            let cursor = self.claim_cursors.get(&topic).cloned().unwrap_or_else(|| "0-0".into());
            let mut claim = cmd("XAUTOCLAIM");
            claim.arg(&key).arg(&*self.group.name).arg(&self.group.member).arg(idle).arg(cursor);
            claim.arg("COUNT").arg(capacity.min(MAX_MESSAGES_PER_READ)).arg("JUSTID");
            let mut reply = reply::list(self.call("XAUTOCLAIM", &claim).await?)?.into_iter();
            // One call looks at a bounded number of claims; the next one continues after them.
            if let Some(cursor) = reply.next() {
                self.claim_cursors.insert(topic.clone(), reply::text(cursor)?);
            }
            for id in reply.next().map(reply::texts).transpose()?.unwrap_or_default() {
                let claimed = (topic.clone(), id.parse()?);
                if !self.group.state().claims.contains_key(&claimed) {
                    self.retry(claimed).await?;
                }
            }
        }
        Ok(())
    }

    /// Releases the claims whose handlers are not running to other members. Errors are ignored: then others claim them when
    /// this member has been idle.
    async fn release_claims(&mut self) {
        let released: Vec<_> = {
            let mut state = self.group.state();
            let released: Vec<_> = state
                .claims
                .iter()
                .filter(|(_, claim)| matches!(claim, Claim::RetryAt(_)))
                .map(|(claimed, _)| claimed.clone())
                .collect();
            released.iter().for_each(|claimed| _ = state.claims.remove(claimed));
            released
        };
        for topic in self.topics.clone() {
            if released.iter().any(|(t, _)| *t == topic) {
                _ = self.release(&topic, &released).await;
            }
        }
    }

    async fn release(&mut self, topic: &Arc<str>, released: &[EntryRef]) -> Result<()> {
        let mut call = scripts::LEAVE.call(&[&self.group.shared.keys.retained(topic)]);
        call.arg(&*self.group.name).arg(&self.group.member);
        released.iter().filter(|(t, _)| t == topic).for_each(|(_, id)| _ = call.arg(id.to_string()));
        self.group.shared.client.call(Request::write("leave", call).of(&scripts::LEAVE), |_| Ok(())).await
    }

    /// Releases every claim and removes the member from the group.
    async fn leave(mut self) {
        let left = async {
            _ = self.settle().await;
            let claims: Vec<_> = self.group.state().claims.drain().map(|(claimed, _)| claimed).collect();
            for topic in self.topics.clone() {
                // A topic that is gone has nothing to release.
                _ = self.release(&topic, &claims).await;
            }
        };
        // Errors mean an outage: then others claim what is left when this member has been idle.
        _ = timeout(2 * READ_BLOCK, left).await;
        self.socket.quit().await;
    }
}
