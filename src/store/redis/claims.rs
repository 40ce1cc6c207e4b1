//! Claims: a hash of each subject, and the holders with the time at which their leases end. The server's clock decides.

use std::sync::Arc;
use std::time::Duration;

use ::redis::cmd;

use super::keys::Keys;
use super::scripts;
use crate::error::Error;
use crate::op::Op;
use crate::redis::{Client, Request, reply};
use crate::store::{Claim, Claims};

/// How long the claims of a subject are kept after the last one. Longer than any piece of work takes.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long they are kept after [`Claims::expire`]: who has read the subject before its end may still claim.
const KEPT_AT_END: Duration = Duration::from_secs(600);

/// The claims of one store.
pub(super) struct RedisClaims {
    client: Arc<Client>,
    keys: Keys,
}

impl RedisClaims {
    pub(super) fn new(client: Arc<Client>, keys: Keys) -> Self {
        Self { client, keys }
    }

    fn renew(&self, args: &[&str]) -> Op<Vec<Arc<str>>> {
        let mut call = scripts::CLAIM_RENEW.call(&[&self.keys.holders()]);
        args.iter().for_each(|arg| _ = call.arg(*arg));
        let request = Request::write("claim", call).of(&scripts::CLAIM_RENEW);
        self.client.call(request, |names| Ok(reply::texts(names)?.into_iter().map(Into::into).collect()))
    }
}

impl Claims for RedisClaims {
    fn renew(&self, holder: &str, lease: Duration) -> Op<Vec<Arc<str>>> {
        self.renew(&[holder, &lease.as_millis().to_string()])
    }

    fn release(&self, holder: &str) -> Op<()> {
        self.renew(&[holder, "0"]).map(drop)
    }

    fn forget(&self, holders: &[Arc<str>]) -> Op<()> {
        let args: Vec<&str> = std::iter::once("").chain(holders.iter().map(|holder| &**holder)).collect();
        self.renew(&args).map(drop)
    }

    fn claim(&self, subject: &str, id: &str, holder: &str, is_new: bool) -> Op<Claim> {
        let mut call = scripts::CLAIM.call(&[&self.keys.claims(subject), &self.keys.holders()]);
        call.arg(id).arg(holder).arg(u8::from(is_new)).arg(KEPT.as_millis() as u64);
        self.client.call(Request::write("claim", call).of(&scripts::CLAIM), |claimed| match reply::int(claimed)? {
            0 => Ok(Claim::Other),
            1 => Ok(Claim::Own),
            2 => Ok(Claim::TakenOver),
            _ => Err(Error::corrupt("Redis sent an unexpected reply for a claim")),
        })
    }

    fn holder_of(&self, subject: &str, id: &str) -> Op<Option<Arc<str>>> {
        let mut get = cmd("HGET");
        get.arg(self.keys.claims(subject)).arg(id);
        self.client.call(Request::read("claim", get), |value| Ok(reply::optional_text(value)?.map(Into::into)))
    }

    fn expire(&self, subject: &str) -> Op<()> {
        let mut expire = cmd("PEXPIRE");
        expire.arg(self.keys.claims(subject)).arg(KEPT_AT_END.as_millis() as u64);
        self.client.call(Request::write("claim", expire), |_| Ok(()))
    }
}
